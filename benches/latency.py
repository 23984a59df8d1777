"""At a steady 500 events in a second: the time from the stream's own answer for an event to its acknowledgement, which follows its commit.
Beside it, the time of one row and its commit over one connection."""

import json
import statistics

import backlog
import drains
from bench_servers import SPEC_TABLE
from processes import Watched

EVENTS = 10_000
# Until the daemon is ready, and so that no start is measured.
WARM_EVENTS = 1_000


def p99(values):
    return statistics.quantiles(values, n=100)[98]


def steady(servers, programs):
    url, _ = servers.new_database(SPEC_TABLE)
    committed, _ = drains.plain(servers, programs, "commit", url, str(EVENTS))
    with servers.nats_of_its_own("steady"):
        return {**measure(servers, programs), **summary("commit_", committed["milliseconds"])}


def measure(servers, programs):
    url, _ = servers.new_database()
    environment = drains.prepare(servers, programs, url)
    events = servers.folder / "steady.events"
    backlog.write_with_subjects(events, WARM_EVENTS + EVENTS)
    ledgerd = Watched([programs.ledgerd, "run"], servers.folder / "ledgerd.log", environment)
    log = servers.folder / "steady.log"
    steady = Watched([programs.steady, servers.nats.url(), events, str(WARM_EVENTS)], log)
    # What ledgerd cannot acknowledge would be waited for in vain.
    drains.wait(ledgerd, steady.has_ended)
    steady.wait(0)
    ledgerd.stop()
    heard = json.loads(log.read_text())
    return {"events": EVENTS, **summary("stored_", heard["stored_ms"]), **summary("", heard["acknowledged_ms"])}


def summary(name, milliseconds):
    return {f"{name}p50_ms": round(statistics.median(milliseconds), 2), f"{name}p99_ms": round(p99(milliseconds), 2)}
