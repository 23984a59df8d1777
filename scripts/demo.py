#!/usr/bin/env python3
"""The whole ledger on this machine, to look at: what `make run` does.

Builds ledgerd, starts private servers, publishes a small mix of good and bad records, and shows what became of each.
Then it keeps running until Ctrl-C. Servers of your own are used instead when their addresses are set:
LEDGERD__DATABASE__URL (postgres://…) and LEDGERD__NATS__URL (nats://…), each by itself.

    --once        end after the table; exit code 0 if everything came out as expected, 1 if not
    --no-build    take target/debug/ledgerd as it is
"""

import sys

sys.dont_write_bytecode = True

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import demo_report
from demo_console import Console, signing
from demo_database import Database
from demo_tables import Tables
from nats_publish import Connection, Refused
from private_servers import HttpProgram, Nats, Postgres, free_port, remove_leftovers, spawn
from sample_events import samples
from sample_records import Records
from servers import CHECKOUT, FOLDER, Trouble, nats_server, postgres_bin, psql, say

RUN = FOLDER / "run"
READY_SECONDS_MAX = 60
ACCOUNTED_SECONDS_MAX = 60
# A run takes a few seconds. Around midnight its calls would fall on two days.
BEFORE_MIDNIGHT_SECONDS_MIN = 30
DAY_SECONDS = 24 * 60 * 60
COMMAND_SECONDS_MAX = 120
# The daemon's own deadline is 30 seconds.
DRAIN_SECONDS_MAX = 35


class Interrupted(Exception):
    """Ctrl-C, or a polite request to end."""


def interrupt(_number, _frame):
    raise Interrupted


class Daemon(HttpProgram):
    """The program itself, with its configuration in the run folder. `settings` come from its environment."""

    def __init__(self, program, database_url, nats_url, run_folder=RUN, settings=None, more_sections=None):
        super().__init__("ledgerd", free_port(), run_folder / "ledgerd.log", DRAIN_SECONDS_MAX)
        self.program = program
        self.environment = {**os.environ, **(settings or {})}
        self.configuration = run_folder / "ledgerd.toml"
        # The samples of tool usage come from several actors, and name one agent.
        sections = {"http": {"listen": f"127.0.0.1:{self.port}"}, "log": {"format": "text"}, "usage": {"reporters": ["*"]}}
        sections.update(more_sections or {})
        # Addresses that came from the environment stay there: they may hold a password.
        if database_url:
            sections["database"] = {"url": database_url}
        if nats_url:
            sections["nats"] = {"url": nats_url}
        self.configuration.write_text("".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()) + "\n"
            for section, values in sections.items()))

    def command(self, *arguments):
        return [str(self.program), "--config", str(self.configuration), *arguments]

    def call(self, *arguments, **environment):
        """Runs one of its short commands to the end, and returns what it printed."""
        done = subprocess.run(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=COMMAND_SECONDS_MAX, env={**self.environment, **environment})
        if done.returncode != 0:
            raise Trouble(f"`ledgerd {shlex.join(arguments)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout

    def start(self):
        self.process = spawn(self.command("run"), self.log, signal.SIGTERM, environment=self.environment)
        wait_until("the daemon is ready", READY_SECONDS_MAX, lambda: self.check_alive() and self.ready())

    def ready(self):
        return self.answers("/readyz")


def wait_until(what, seconds_max, condition, logs=RUN):
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            raise Trouble(f"{what}: not so after {seconds_max} seconds; see {logs}/*.log")
        time.sleep(0.05)


def wait_for_a_whole_day():
    """Until midnight is over, if it is near."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < BEFORE_MIDNIGHT_SECONDS_MIN:
        say(f"waiting {left:.0f} s for the next UTC day, so that all calls fall on one ...")
        time.sleep(left + 1)


def build(options):
    """The program, built unless the options say otherwise."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target"))
    if "--no-build" not in options:
        if shutil.which("cargo") is None:
            raise Trouble("cargo is missing: install a Rust toolchain (rustup.rs)")
        # Unoptimised: it is there sooner, and `make test` uses the same files.
        say("building ledgerd (the first time takes some minutes) ...")
        if subprocess.run(["cargo", "build"], cwd=CHECKOUT).returncode != 0:
            raise Trouble("the build failed")
    return CHECKOUT / target / "debug" / "ledgerd"


class Demo:
    def __init__(self, options):
        self.options = options
        self.database_url = os.environ.get("LEDGERD__DATABASE__URL")
        self.nats_url = os.environ.get("LEDGERD__NATS__URL")
        # In the order of their start; they end in the opposite one.
        self.started = []

    def prepare(self):
        """What may be missing is looked for first: a build takes minutes, and should not end in `PostgreSQL is missing`."""
        if not self.database_url:
            postgres_bin()
        psql()
        if not self.nats_url:
            nats_server()
        return build(self.options)

    def start(self):
        """From nothing to a daemon that is ready."""
        program = self.prepare()
        remove_leftovers(RUN)
        RUN.mkdir()
        administration = self.database_url
        private_database = private_nats = None
        if not self.database_url:
            say("starting PostgreSQL ...")
            server = Postgres(RUN)
            self.started.append(server)
            # As in production: one role owns the tables, and the daemon has no more than it needs.
            administration = server.url("postgres", "ledgerd")
            private_database = self.database_url = server.url("ledgerd", "ledgerd")
            Database(server.url("postgres", "postgres")).execute("create role ledgerd login", "create database ledgerd")
        if not self.nats_url:
            say("starting nats-server ...")
            server = Nats(RUN)
            self.started.append(server)
            private_nats = self.nats_url = server.url()
        self.database = Database(administration)
        checkpoint, self.verifier_key = signing(program, RUN)
        console_port = free_port()
        sections = {"checkpoint": checkpoint, "console": {"listen": f"127.0.0.1:{console_port}"}}
        self.daemon = Daemon(program, private_database, private_nats, more_sections=sections)
        self.console = Console(self.daemon, RUN / "console.log", console_port)
        say("ledgerd migrate, ledgerd setup, ledgerd run, ledgerd setup --defaults ...")
        grant = ("--grant", "ledgerd") if private_database else ()
        self.is_private = bool(private_database and private_nats)
        self.daemon.call("migrate", *grant, LEDGERD__DATABASE__URL=administration)
        self.daemon.call("setup")
        self.started.append(self.daemon)
        self.daemon.start()
        self.started.append(self.console)
        self.set_reference()

    def start_console(self):
        """Starts it, and shows its link before anything else."""
        self.console.start()
        wait_until("the console answers", READY_SECONDS_MAX, self.console.is_ready)
        demo_report.show_console(self.console.link(), self.verifier_key)

    def set_reference(self):
        """The reference limits and rates take the way of all records; what a call costs can be told when they are rows."""
        items = json.loads(self.daemon.call("--json", "setup", "--defaults"))
        keys = {item["name"] for item in items if item["outcome"] in ("published", "in force")}
        wait_until("the reference limits and rates are in force", ACCOUNTED_SECONDS_MAX,
                   lambda: self.daemon.check_alive() and keys <= self.database.metrics_in_force())

    def publish(self, connection, samples):
        """Publishes some messages; waits until each is accounted for."""
        step = {}
        for sample in samples:
            self.stream, sequence = connection.publish(sample.subject, sample.payload)
            step[sequence] = sample.expected
        self.expected.update(step)
        self.wait_for(step)

    def wait_for(self, step):
        def accounted():
            self.daemon.check_alive()
            found = self.database.outcomes(self.stream, step)
            self.outcome.update(found)
            return found.keys() == step.keys() and all(entry["settled"] for entry in found.values())

        wait_until("every message is accounted for", ACCOUNTED_SECONDS_MAX, accounted)

    def publish_all(self, connection):
        """What is expected of each message, and what became of it, by its sequence in the stream."""
        self.expected, self.outcome = {}, {}
        events = list(samples())
        vote = next(event for event in events if event.subject == "ledger.VOTE.RXY-CEO")
        self.records = Records(json.loads(vote.payload)["event_id"], self.database.registered("agent_registry", 1),
                               self.database.registered("tool_registry", 1), self.database.registered("ventures", 2))
        say(f"publishing {len(events) + sum(map(len, self.records.steps)) + 1} messages, and waiting until each is accounted for ...")
        try:
            self.publish(connection, events)
            for step in self.records.steps:
                self.publish(connection, step)
            # One more as an agent's script would do it.
            printed = json.loads(self.daemon.call("--json", "emit", *demo_report.EMIT))
            step = {printed["sequence"]: "recorded"}
            self.expected.update(step)
            self.wait_for(step)
            wait_until("every alert is published", ACCOUNTED_SECONDS_MAX, lambda: self.database.alerts_waiting() == 0)
        except Trouble as trouble:
            say(f"error: {trouble}")

    def show(self):
        """Publishes, waits until each message is accounted for, shows them; returns whether all is as expected."""
        if self.is_private:
            wait_for_a_whole_day()
        connection = Connection(self.nats_url)
        connection.subscribe("alert.budget.*")
        self.publish_all(connection)
        tables = Tables(self.database, self.records, self.outcome, connection.heard())
        connection.close()
        return demo_report.show(self.expected, self.outcome, self.database.tree_head(), lambda: tables.show(self.is_private))

    def keep_running(self):
        demo_report.show_next_steps(self.daemon, self.console.link(), None if "LEDGERD__DATABASE__URL" in os.environ else self.database_url, psql(), RUN)
        while self.daemon.check_alive() and self.console.check_alive():
            time.sleep(0.5)

    def stop(self):
        """In order; a second Ctrl-C ends the waiting."""
        for hurry in (False, True):
            try:
                for server in reversed(self.started):
                    server.stop(hurry)
                return
            except Interrupted:
                ask_before_ending(signal.SIG_IGN)


def ask_before_ending(handler):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def run(options):
    demo = Demo(options)
    try:
        demo.start()
        if "--once" not in options:
            demo.start_console()
        as_expected = demo.show()
        if "--once" not in options:
            demo.keep_running()
        return 0 if as_expected else 1
    except Interrupted:
        say("\nstopping ...")
        return 0
    finally:
        if demo.started:
            demo.stop()
            say("stopped.")


@contextlib.contextmanager
def only_one():
    """While it lasts, no other demo runs in this checkout: they would share a folder."""
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / "demo.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble("the demo already runs in this checkout: end it with Ctrl-C there first")
        yield


def main(options):
    unknown = set(options) - {"--once", "--no-build"}
    if unknown:
        print(__doc__.strip(), file=sys.stdout if unknown == {"--help"} else sys.stderr)
        return 0 if unknown == {"--help"} else 64
    ask_before_ending(interrupt)
    with only_one():
        return run(options)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Trouble, Refused, OSError, subprocess.SubprocessError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
    except Interrupted:
        sys.exit(1)
