"""The servers that all sides share: PostgreSQL and nats-server as they come, with one stream that holds the backlog."""

import signal
import time
from contextlib import contextmanager

from demo_database import Database
from nats_publish import Connection
from private_servers import Nats, Postgres, end, spawn
from servers import output_of

SPEC_TABLE = """
create table audit_events (
    id serial primary key, event_id varchar(255) unique not null, actor varchar(50) not null, action text not null,
    outcome varchar(32) not null, details jsonb, task_id varchar(255), timestamp timestamp not null,
    integrity_hash varchar(64) not null, created_at timestamp default current_timestamp
);
create index idx_actor on audit_events (actor);
create index idx_outcome on audit_events (outcome);
create index idx_timestamp on audit_events (timestamp);
create index idx_task_id on audit_events (task_id);
"""


class TimedPostgres(Postgres):
    """Knows when each transaction was committed, which is what latencies are measured by. It costs all sides the same."""

    def start(self, port):
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "track_commit_timestamp": "on"}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return spawn(self.command("postgres", *arguments), self.log, signal.SIGINT, self.account)

    def go_away(self):
        end(self.process, (signal.SIGINT, 60))

    def come_back(self):
        self.process = self.start(self.port)
        while not self.answers(self.port):
            time.sleep(0.1)


class HastyNats(Nats):
    """Writes through every two minutes, so that millions of messages are published in minutes and not in hours."""

    sync_interval = "2m"


class Servers:
    def __init__(self, folder):
        self.folder = folder
        self.events_file = folder / "events.ndjson"
        self.postgres = TimedPostgres(folder)
        self.nats = Nats(folder)
        self.databases = 0

    def stop(self):
        self.nats.stop(hurry=True)
        self.postgres.stop(hurry=True)

    def versions(self):
        return {"postgresql": output_of(self.postgres.programs / "postgres", "--version"), "nats": output_of(self.nats.program, "--version")}

    def new_database(self, setup=""):
        """An empty database, with nothing left to do from what was there before."""
        admin = Database(self.postgres.url("postgres", "postgres"))
        if self.databases:
            admin.execute(f"drop database if exists bench_{self.databases} with (force)")
        self.databases += 1
        name = f"bench_{self.databases}"
        admin.execute(f"create database {name}", "checkpoint")
        database = Database(self.postgres.url("postgres", name))
        if setup:
            database.execute(setup)
        return self.postgres.url("postgres", name), database

    def api(self, subject, body=b""):
        return Connection(self.nats.url()).request(f"$JS.API.{subject}", body)

    def consumers(self):
        return self.api("CONSUMER.LIST.LEDGER").get("consumers") or []

    def all_is_acknowledged(self, consumers):
        """Whether so many consumers are there, and have nothing left: ledgerd makes its own anew when it starts."""
        found = self.consumers()
        return len(found) == consumers and not any(consumer["num_pending"] or consumer["num_ack_pending"] for consumer in found)

    @contextmanager
    def nats_of_its_own(self, name, kind=Nats):
        """Another nats-server in the place of the backlog's, for as long as the caller needs it."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        backlog_nats, self.nats = self.nats, kind(folder)
        try:
            yield
        finally:
            self.nats.stop(hurry=True)
            self.nats = backlog_nats

    def forget_consumers(self):
        for consumer in self.consumers():
            self.api(f"CONSUMER.DELETE.LEDGER.{consumer['name']}")
