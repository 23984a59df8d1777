#!/usr/bin/env python3
"""The workflows of README.md and docs/publish.md in a real n8n, with a real ledger: what `make test-n8n` does.

Installs n8n from npm, starts private servers, imports the workflows as the documents show them, executes them, and counts rows and
dead letters: also with NATS, PostgreSQL and the ledger itself away during an execution.

    --no-build    take target/debug/ledgerd as it is
"""

import sys

sys.dont_write_bytecode = True

import hashlib
import itertools
import json
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from demo import Daemon, Interrupted, ask_before_ending, build, interrupt, wait_until
from demo_database import Database
from n8n import N8n, programs
from private_servers import Nats, Postgres, end, remove_leftovers
from servers import CHECKOUT, FOLDER, Trouble, nats_server, postgres_bin, psql, say

RUN = FOLDER / "run-n8n"
# What the agents send beyond the specification.
SETTINGS = {"LEDGERD__PROFILE": "hegemon"}
TOKEN = "a-token-for-n8n"
ACTORS = "N8N_SANITIZER RXY-CEO SRN-CIO BRM-CTO VRA-CFO"
ADDRESS = "http://127.0.0.1:9465/"
AGENT_SECONDS_MAX = 5
START_SECONDS_MAX = 120
RECOVERY_SECONDS_MAX = 90


def block(document, language):
    """The one block of code in this language."""
    parts = (CHECKOUT / document).read_text().split(f"```{language}\n")[1:]
    if len(parts) != 1:
        raise Trouble(f"{document} has {len(parts)} blocks of {language}")
    return parts[0].split("```")[0]


def now():
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def injection_scan(actor, outcome, number):
    """As the injection guard makes it."""
    return {"event_id": f"SEC-{actor}-{hashlib.sha256(str(number).encode()).hexdigest()[:16]}", "actor": actor, "action": "INJECTION_SCAN",
            "outcome": outcome, "timestamp": now(), "task_id": "",
            "details": {"severity": "HIGH", "matched_patterns": ["HIGH"], "input_source": "telegram", "input_length": 142,
                        "blocked": outcome == "BLOCKED", "sanitized": outcome != "BLOCKED"}}


def tool_request(actor, number):
    """As the tool policy makes it."""
    return {"event_id": f"TOOL-{actor}-web_search-2026-02-20T{number:06}", "actor": actor, "action": "TOOL_REQUEST_WEB_SEARCH",
            "outcome": "DENIED_NEEDS_VOTE", "timestamp": now(),
            "details": {"tool_name": "web_search", "agent_tier": "TIER_1_COUNCIL", "council_vote_ref": None, "architect_approval_ref": None}}


def execution(actor, number, action="EXECUTION_STARTED"):
    return {"event_id": f"EXEC-{actor}-{1771609634568 + number}", "actor": actor, "action": action, "outcome": "SUCCESS", "timestamp": now()}


class Ledger:
    """PostgreSQL, nats-server and the daemon, and what the ledger must hold in the end."""

    def __init__(self, program):
        self.postgres, self.nats = Postgres(RUN), Nats(RUN)
        administration = self.postgres.url("postgres", "ledgerd")
        Database(self.postgres.url("postgres", "postgres")).execute("create role ledgerd login", "create database ledgerd")
        self.database = Database(administration)
        token = hashlib.sha256(TOKEN.encode()).hexdigest()
        settings = {**SETTINGS, "LEDGERD__WEBHOOKS__TOKENS": f"{token} {ACTORS}"}
        self.daemon = Daemon(program, self.postgres.url("ledgerd", "ledgerd"), self.nats.url(), RUN, settings)
        self.daemon.call("migrate", "--grant", "ledgerd", LEDGERD__DATABASE__URL=administration)
        self.daemon.call("setup")
        self.daemon.start()

    def rows(self, event_id):
        return int(self.database.execute(f"select count(*) from audit_events where event_id = '{event_id}'"))

    def totals(self):
        """Rows and rejects."""
        found = self.database.execute("select (select count(*) from audit_events), (select count(*) from ledger.dead_letter)")
        return tuple(map(int, found.strip().split("|")))

    def answers(self, code):
        """How many posts to the audit webhook were answered so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.daemon.port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        wanted = ("ledgerd_webhook_answers_total", 'webhook="audit"', f'code="{code}"')
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(part in line for part in wanted))

    def stop(self, hurry=False):
        for server in (self.daemon, self.nats, self.postgres):
            server.stop(hurry)


class Away:
    """A server that is away, and comes back on its port with its data."""

    def __init__(self, server, end_signal):
        self.server, self.end_signal = server, end_signal

    def __enter__(self):
        end(self.server.process, (self.end_signal, 20))
        return self

    def __exit__(self, *_):
        self.server.process = self.server.start(self.server.port)
        wait_until("the server is back", 60, lambda: self.server.answers(self.server.port), RUN)


class DaemonAway:
    """The daemon is stopped, and whoever connects to its port is hung up on, and counted."""

    def __init__(self, daemon):
        self.daemon, self.calls = daemon, 0

    def __enter__(self):
        self.daemon.stop()
        self.listener = socket.create_server(("127.0.0.1", self.daemon.port))
        threading.Thread(target=self.hang_up, daemon=True).start()

    def hang_up(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.close()
            self.calls += 1

    def __exit__(self, *_):
        # Another thread waits in accept(), which a close alone does not end.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.daemon.start()


class Test:
    def __init__(self, ledger, n8n):
        self.ledger, self.n8n, self.numbers = ledger, n8n, itertools.count(100)
        # Migrations are rows too.
        self.rows_before, self.expected_rows, self.expected_rejects = ledger.totals()[0], 0, 0

    def show(self, sentence):
        print(f"ok  {sentence}", flush=True)

    def expect(self, what, found, expected):
        if found != expected:
            raise Trouble(f"{what}: {found!r} in place of {expected!r}; see {RUN}/*.log")

    def import_all(self):
        """The documents' own text, with the ledger's address and token in place of the example's."""
        address = f"http://127.0.0.1:{self.ledger.daemon.port}/"
        short = block("README.md", "json n8n").replace(ADDRESS, address)
        workflow = block("docs/publish.md", "json n8n").replace(ADDRESS, address)
        forward = block("docs/publish.md", "json n8n-forward").replace(ADDRESS, address)
        refused = workflow.replace("ledgerdEvent", "ledgerdRefused").replace("INJECTION_BLOCKED_AT_INTAKE", "NO_SUCH_ACTION")
        credential = block("docs/publish.md", "json n8n-credential").replace("YOUR-TOKEN", TOKEN)
        texts = {"credentials": credential, "short": short, "workflow": workflow, "forward": forward, "refused": refused}
        for name, text in texts.items():
            file = RUN / f"{name}.json"
            file.write_text(text)
            self.n8n.call("import:credentials" if name == "credentials" else "import:workflow", f"--input={file}")
        self.show("the documents' credential and workflows are imported")

    def execute(self, workflow="ledgerdEvent"):
        """Executes a workflow that makes an event; returns the event, and the codes of the ledger's answers."""
        printed = self.n8n.call("execute", f"--id={workflow}", "--rawOutput")
        runs = json.loads(printed[printed.index("\n{\n"):])["data"]["resultData"]["runData"]
        event = runs["Event"][0]["data"]["main"][0][0]["json"]
        self.expected_rows += 1
        wait_until("the event is a row", RECOVERY_SECONDS_MAX, lambda: self.ledger.rows(event["event_id"]) == 1, RUN)
        answers = [run["data"]["main"][0][0]["json"].get("statusCode") for run in runs["Ledger"]]
        return event, answers

    def executes(self):
        _, answers = self.execute()
        self.expect("the ledger's answers", answers, [200])
        self.show("the workflow of docs/publish.md: executed, answered with 200, one row")

    def executes_short(self):
        self.execute("ledgerdShort")
        self.show("README's workflow: executed, one row")

    def refuses(self):
        before = self.ledger.answers(422)
        printed = self.n8n.call("execute", "--id=ledgerdRefused", fails=True)
        if "unknown_action" not in printed:
            raise Trouble(f"the execution does not say why:\n{printed}")
        self.expected_rejects += 1
        self.expect("posts that were refused", self.ledger.answers(422) - before, 1)
        self.show("the workflow of docs/publish.md with an unknown action: posted once, the execution fails with the reason, one dead letter")

    def executes_while(self, what, away, first, answered):
        """Executes, and lets the server come back once `answered` says that n8n has heard of its absence."""
        with ThreadPoolExecutor() as pool:
            with away:
                execution = pool.submit(self.execute)
                wait_until(f"n8n hears that {what}", START_SECONDS_MAX, lambda: execution.done() or answered(), RUN)
            _, answers = execution.result()
        self.expect(f"the first answer while {what}", answers[0], first)
        self.expect("the last answer is good", answers[-1] in (200, 202), True)
        heard = "no answer" if first is None else first
        self.show(f"the workflow of docs/publish.md while {what}: first {heard}, {len(answers)} posts in all, one row")

    def executes_through_outages(self):
        before = self.ledger.answers(503)
        self.executes_while("NATS is away", Away(self.ledger.nats, signal.SIGTERM), 503, lambda: self.ledger.answers(503) > before)
        before_202 = self.ledger.answers(202)
        self.executes_while("PostgreSQL is away", Away(self.ledger.postgres, signal.SIGINT), 202, lambda: self.ledger.answers(202) > before_202)
        away = DaemonAway(self.ledger.daemon)
        self.executes_while("ledgerd is away", away, None, lambda: away.calls > 0)

    def start_forward(self):
        self.n8n.call("publish:workflow", "--id=ledgerdForward")
        self.n8n.start()
        wait_until("n8n is ready", START_SECONDS_MAX, self.n8n.is_ready, RUN)
        # It is ready before its workflows listen.
        wait_until("the workflow listens", START_SECONDS_MAX, lambda: "not registered for GET" in str(self.ask("GET", None)), RUN)

    def ask(self, method, body):
        """As an unmodified agent does: JSON, no header of its own, five seconds."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.n8n.port}/webhook/hegemon-audit-log", data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=AGENT_SECONDS_MAX) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError as error:
            return None, str(error)

    def post(self, event):
        return (event["event_id"], *self.ask("POST", event))

    def forwards(self):
        events = [injection_scan("RXY-CEO", "SUCCESS", 1), tool_request("BRM-CTO", 2), injection_scan("SRN-CIO", "BLOCKED", 3), execution("BRM-CTO", 4)]
        for event in events:
            event_id, status, answer = self.post(event)
            self.expected_rows += 1
            self.expect(f"the agent hears of {event_id}", (status, answer), (200, {**answer, "status": "LOGGED", "event_id": event_id}))
            self.expect("its rows", self.ledger.rows(event_id), 1)
        self.show(f"n8n's own webhook: {len(events)} agents' events, each answered with the ledger's 200, each one row")
        _, status, answer = self.post(execution("BRM-CTO", 5, "NO_SUCH_ACTION"))
        self.expected_rejects += 1
        self.expect("the agent hears", (status, answer.get("reason")), (422, "unknown_action"))
        self.show("n8n's own webhook, a rejected event: the agent hears 422 and the reason, one dead letter")

    def alarms(self):
        """In how many executions the node for alarms has run."""
        query = """select count(*) from execution_data as d join execution_entity as e on e.id = d."executionId"
            where e."workflowId" = 'ledgerdForward' and d.data like '%"Your alarms"%'"""
        return int(self.n8n_database.execute(query))

    def alarm_runs_once(self):
        wait_until("the alarm of the blocked event", 30, lambda: self.alarms() == 1, RUN)
        self.show("n8n's own webhook: the branch for alarms ran for the blocked event, and for no other")

    def forwards_through(self, what, away, expected):
        event_ids = []
        with away:
            wait_until(f"ledgerd notices that {what}", 60, lambda: not self.ledger.daemon.ready(), RUN)
            for _ in range(3):
                event_id, status, answer = self.post(execution("BRM-CTO", next(self.numbers)))
                event_ids.append(event_id)
                self.expect(f"the agent hears while {what}", (status, answer.get("status")), expected)
        self.expected_rows += len(event_ids)
        wait_until("every event is a row", RECOVERY_SECONDS_MAX, lambda: all(self.ledger.rows(it) == 1 for it in event_ids), RUN)
        self.show(f"n8n's own webhook while {what}: {len(event_ids)} events answered with {expected[0]}, afterwards each one row")

    def counts(self):
        rows, rejects = self.ledger.totals()
        self.expect("rows and rejects", (rows - self.rows_before, rejects), (self.expected_rows, self.expected_rejects))
        self.show(f"in all {self.expected_rows} events are one row each, and {rejects} are one dead letter each: nothing is lost, nothing is doubled")

    def run(self):
        self.import_all()
        self.executes_short()
        self.executes()
        self.refuses()
        self.executes_through_outages()
        self.start_forward()
        self.forwards()
        self.alarm_runs_once()
        self.forwards_through("NATS is away", Away(self.ledger.nats, signal.SIGTERM), (503, "FAILED"))
        self.forwards_through("PostgreSQL is away", Away(self.ledger.postgres, signal.SIGINT), (202, "QUEUED"))
        self.counts()


def main(options):
    if set(options) - {"--no-build"}:
        print(__doc__.strip(), file=sys.stdout if options == ["--help"] else sys.stderr)
        return 0 if options == ["--help"] else 64
    ask_before_ending(interrupt)
    FOLDER.mkdir(exist_ok=True)
    postgres_bin(), psql(), nats_server(), programs()
    program = build(options)
    remove_leftovers(RUN)
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir()
    (RUN / "n8n-postgresql").mkdir()
    started = []
    try:
        say("starting PostgreSQL, nats-server, ledgerd, and a PostgreSQL for n8n ...")
        started.append(Ledger(program))
        # The ledger's own goes away in the middle of it.
        started.append(Postgres(RUN / "n8n-postgresql"))
        n8n = N8n(RUN, started[-1])
        started.append(n8n)
        test = Test(started[0], n8n)
        test.n8n_database = Database(started[1].url("postgres", "postgres"))
        test.run()
        return 0
    finally:
        for server in reversed(started):
            server.stop()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Trouble, OSError, subprocess.SubprocessError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
    except Interrupted:
        sys.exit(1)
