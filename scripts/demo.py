#!/usr/bin/env python3
"""The whole ledger on this machine, to look at: what `make run` does.

Builds ledgerd, starts private servers, publishes a small mix of good and bad events, and shows what became of each.
Then it keeps running until Ctrl-C. Servers of your own are used instead when their addresses are set:
LEDGERD__DATABASE__URL (postgres://…) and LEDGERD__NATS__URL (nats://…), each by itself.

    --once        end after the table; exit code 0 if everything came out as expected, 1 if not
    --no-build    take target/debug/ledgerd as it is
"""

import sys

sys.dont_write_bytecode = True

import fcntl
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import demo_report
from demo_database import Database
from nats_publish import Connection, Refused
from private_servers import Nats, Postgres, end, free_port, last_lines, remove_leftovers, spawn
from sample_events import Events, samples
from servers import CHECKOUT, FOLDER, Trouble, nats_server, postgres_bin, psql, say

RUN = FOLDER / "run"
READY_SECONDS_MAX = 60
ACCOUNTED_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 120
# The daemon's own deadline is 30 seconds.
DRAIN_SECONDS_MAX = 35


class Interrupted(Exception):
    """Ctrl-C, or a polite request to end."""


def interrupt(_number, _frame):
    raise Interrupted


class Daemon:
    """The program itself, with its configuration in the run folder."""

    def __init__(self, program, database_url, nats_url):
        self.program, self.process = program, None
        self.log = RUN / "ledgerd.log"
        self.configuration = RUN / "ledgerd.toml"
        self.http_port = free_port()
        sections = {"http": {"listen": f"127.0.0.1:{self.http_port}"}, "log": {"format": "text"}}
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
                              text=True, timeout=COMMAND_SECONDS_MAX, env={**os.environ, **environment})
        if done.returncode != 0:
            raise Trouble(f"`ledgerd {shlex.join(arguments)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout

    def start(self):
        self.process = spawn(self.command("run"), self.log, signal.SIGTERM)
        wait_until("the daemon is ready", READY_SECONDS_MAX, lambda: self.check_alive() and self.ready())

    def ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def check_alive(self):
        if self.process.poll() is not None:
            raise Trouble(f"ledgerd ended by itself with {self.process.returncode}; its log ends:\n{last_lines(self.log)}")
        return True

    def stop(self, hurry=False):
        if self.process:
            end(self.process, *(() if hurry else ((signal.SIGTERM, DRAIN_SECONDS_MAX),)))


def wait_until(what, seconds_max, condition):
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            raise Trouble(f"{what}: not so after {seconds_max} seconds; see {RUN}/*.log")
        time.sleep(0.05)


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
        target = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target"))
        if "--no-build" not in self.options:
            if shutil.which("cargo") is None:
                raise Trouble("cargo is missing: install a Rust toolchain (rustup.rs)")
            # Unoptimised: it is there sooner, and `make test` uses the same files.
            say("building ledgerd (the first time takes some minutes) ...")
            if subprocess.run(["cargo", "build"], cwd=CHECKOUT).returncode != 0:
                raise Trouble("the build failed")
        return CHECKOUT / target / "debug" / "ledgerd"

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
        self.daemon = Daemon(program, private_database, private_nats)
        say("ledgerd migrate, ledgerd setup, ledgerd run ...")
        grant = ("--grant", "ledgerd") if private_database else ()
        self.daemon.call("migrate", *grant, LEDGERD__DATABASE__URL=administration)
        self.daemon.call("setup")
        self.started.append(self.daemon)
        self.daemon.start()

    def publish(self):
        """Publishes everything; returns what is expected of each message, by its sequence in the stream."""
        connection = Connection(self.nats_url)
        expected = {}
        for sample in samples():
            self.stream, sequence = connection.publish(sample.subject, sample.payload)
            expected[sequence] = sample.expected
        connection.close()
        # One more as an agent's script would do it.
        printed = self.daemon.call("--json", "emit", *demo_report.EMIT)
        expected[json.loads(printed)["sequence"]] = "recorded"
        return expected

    def show(self):
        """Publishes, waits until each message is accounted for, shows them; returns whether all is as expected."""
        expected = self.publish()
        say(f"published {len(expected)} messages; waiting until each is accounted for ...")
        outcome = {}

        def accounted():
            self.daemon.check_alive()
            outcome.update(self.database.outcomes(self.stream, expected))
            return outcome.keys() == expected.keys() and all(entry["settled"] for entry in outcome.values())

        try:
            wait_until("every message is accounted for", ACCOUNTED_SECONDS_MAX, accounted)
        except Trouble as trouble:
            say(f"error: {trouble}")
        return demo_report.show(expected, outcome, self.database.tree_head())

    def keep_running(self):
        demo_report.show_next_steps(self.daemon, None if "LEDGERD__DATABASE__URL" in os.environ else self.database_url, psql(), RUN)
        while self.daemon.check_alive():
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


def main(options):
    unknown = set(options) - {"--once", "--no-build"}
    if unknown:
        print(__doc__.strip(), file=sys.stdout if unknown == {"--help"} else sys.stderr)
        return 0 if unknown == {"--help"} else 64
    ask_before_ending(interrupt)
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / "demo.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble("the demo already runs in this checkout: end it with Ctrl-C there first")
        return run(options)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Trouble, Refused, OSError, subprocess.SubprocessError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
    except Interrupted:
        sys.exit(1)
