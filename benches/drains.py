"""From a full stream to committed rows: each side in its turn, into an empty database, with consumers of its own."""

import json
import shutil
import subprocess
import time
from collections import namedtuple

import backlog
from bench_servers import SPEC_TABLE, HastyNats
from processes import Watched, server_cpu_seconds
from servers import Trouble, say

SECONDS_MAX = 3_600
LOOK_SECONDS = 0.1
OUTAGE_SECONDS = 20
LANES = 15
KEY_NAME = "bench.example/ledger"

Programs = namedtuple("Programs", "ledgerd plain steady peers")


def result(events, watched):
    return {"events": events, "seconds": round(watched.seconds, 3), "per_second": round(events / watched.seconds),
            "cpu_seconds": round(watched.cpu_seconds, 2), "memory_mib": round(watched.memory_bytes_max / 2**20, 1)}


def plain(servers, programs, *arguments):
    watched = Watched([programs.plain, *arguments], servers.folder / "plain.log").wait(SECONDS_MAX)
    return json.loads((servers.folder / "plain.log").read_text()), watched


def ceiling(servers, programs):
    """The same rows into the specification's table, over one connection, in batches of 1,000."""
    url, database = servers.new_database(SPEC_TABLE)
    costs = Costs(servers, database)
    found, watched = plain(servers, programs, "insert", url, servers.events_file)
    watched.seconds = found["seconds"]
    return {**result(found["rows"], watched), "postgres_us": costs.per_event(found["rows"])["postgres_us"]}


def peer(servers, programs, way, events):
    servers.forget_consumers()
    url, database = servers.new_database(SPEC_TABLE)
    command = [programs.peers / "python", __file__.replace("drains.py", "peer.py"), way, servers.nats.url(), url, str(events)]
    watched = Watched(command, servers.folder / "peer.log").wait(SECONDS_MAX)
    expect(database, "select count(*) as there from audit_events", events)
    return result(events, watched)


def ingestr(servers, programs, events):
    """Its streaming mode on a durable of ours, ended when the last message is acknowledged, which it does after its commit."""
    servers.forget_consumers()
    url, database = servers.new_database()
    config = {"stream_name": "LEDGER", "config": {"durable_name": "ingestr", "ack_policy": "explicit", "deliver_policy": "all",
                                                  "max_ack_pending": 200_000, "ack_wait": 120_000_000_000}}
    answer = servers.api("CONSUMER.DURABLE.CREATE.LEDGER.ingestr", json.dumps(config).encode())
    if "error" in answer:
        raise Trouble(f"no consumer for ingestr: {answer['error']}")
    command = [programs.peers / "ingestr", "ingest", "--yes", "--stream", "--progress", "log", "--source-uri",
               f"{servers.nats.url()}?consumer=ingestr", "--source-table", "LEDGER", "--dest-uri",
               url.replace("postgres://", "postgresql://") + "?sslmode=disable", "--dest-table", "public.events"]
    environment = {"TELEMETRY_OPTOUT": "1", "INGESTR_DISABLE_TELEMETRY": "1"}
    watched = Watched(command, servers.folder / "ingestr.log", environment)
    wait(watched, lambda: servers.all_is_acknowledged(1))
    watched.seconds = time.monotonic() - watched.started
    watched.stop()
    expect(database, "select count(*) as there from public.events", events)
    return result(events, watched)


def ledgerd_environment(servers, url):
    key = servers.folder / "signing-key"
    return {"LEDGERD__DATABASE__URL": url, "LEDGERD__NATS__URL": servers.nats.url(), "LEDGERD__CHECKPOINT__KEY_FILE": str(key),
            "LEDGERD__CHECKPOINT__ANCHOR_FILE": str(servers.folder / "anchor")}


def prepare(servers, programs, url):
    """Tables, streams, consumers and a key for ledgerd."""
    for name in ("signing-key", "anchor"):
        path = servers.folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    environment = ledgerd_environment(servers, url)
    run(programs, environment, "keygen", "--name", KEY_NAME, "--out", str(servers.folder / "signing-key"))
    run(programs, environment, "migrate", "--roles")
    run(programs, environment, "setup")
    return environment


def run(programs, environment, *arguments):
    done = subprocess.run([programs.ledgerd, *arguments], env={**environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise Trouble(f"ledgerd {' '.join(arguments)}:\n{done.stdout[-3000:]}")
    return done.stdout


def ledgerd(servers, programs, events):
    """Committed, in custody, in the tree, signed and acknowledged."""
    servers.forget_consumers()
    url, database = servers.new_database()
    environment = prepare(servers, programs, url)
    found = drain(servers, programs, environment, database, events)
    found.update(checkpoint_lag(database))
    return found


def outage(servers, programs, events):
    """PostgreSQL goes away in the middle of the drain, and comes back: what does the daemon hold meanwhile?"""
    servers.forget_consumers()
    url, database = servers.new_database()
    environment = prepare(servers, programs, url)
    before = database.tree_head()["size"]
    watched = Watched([programs.ledgerd, "run"], servers.folder / "ledgerd.log", environment)
    wait(watched, lambda: sum(consumer["num_pending"] for consumer in servers.consumers()) < 0.7 * events)
    servers.postgres.go_away()
    before_mib = watched.memory_bytes_max / 2**20
    time.sleep(OUTAGE_SECONDS)
    servers.postgres.come_back()
    wait(watched, lambda: servers.all_is_acknowledged(LANES))
    watched.stop()
    expect(database, "select size as there from ledger.tree_head", before + events)
    return {"outage_seconds": OUTAGE_SECONDS, "memory_mib_before": round(before_mib, 1), "memory_mib": round(watched.memory_bytes_max / 2**20, 1)}


def stored(servers, programs, events, rows):
    """One backlog after the other into one database, until it holds so many rows: the first drain and the last, and those between."""
    with servers.nats_of_its_own("stored", HastyNats):
        url, database = servers.new_database()
        environment = prepare(servers, programs, url)
        drained = []
        for first in range(0, rows + events, events):
            backlog.publish_by_two(servers.nats.url(), events, first)
            drained.append({"stored": first, **drain(servers, programs, environment, database, events)})
            say(f"{first:,} rows stored: {drained[-1]['per_second']:,} events per second")
    return {"drains": drained, "ratio": round(drained[-1]["per_second"] / drained[0]["per_second"], 3)}


class Costs:
    """What a drain costs beside time: processor time of each server, bytes on disk, write-ahead log."""

    SQL = """
        select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint as wal,
            coalesce((select sum(pg_total_relation_size(oid)) from pg_class
                where relkind in ('r', 'p') and relnamespace = to_regnamespace('ledger')), 0)::bigint as custody,
            coalesce(pg_total_relation_size(to_regclass('public.audit_events')), 0)::bigint as table_bytes"""

    def __init__(self, servers, database):
        self.servers, self.database = servers, database
        self.before = self.now()

    def now(self):
        return {**self.database.rows(self.SQL)[0], "postgres": server_cpu_seconds(self.servers.postgres.process.pid),
                "nats": server_cpu_seconds(self.servers.nats.process.pid)}

    def per_event(self, events):
        now = self.now()
        spent = {name: (now[name] - before) / events for name, before in self.before.items()}
        return {"postgres_us": round(spent["postgres"] * 1e6, 2), "nats_us": round(spent["nats"] * 1e6, 2),
                "wal_bytes": round(spent["wal"]), "custody_bytes": round(spent["custody"]), "row_bytes": round(spent["table_bytes"])}


def drain(servers, programs, environment, database, events):
    before = database.tree_head()["size"]
    costs = Costs(servers, database)
    watched = Watched([programs.ledgerd, "run"], servers.folder / "ledgerd.log", environment)
    # The consumers are asked, which costs the machine next to nothing; a psql ten times a second takes a twentieth of it.
    wait(watched, lambda: servers.all_is_acknowledged(LANES))
    watched.seconds = time.monotonic() - watched.started
    expect(database, "select size as there from ledger.tree_head", before + events)
    found = costs.per_event(events)
    # The last checkpoint.
    wait(watched, lambda: database.rows("select coalesce(max(tree_size), 0) as signed from ledger.checkpoint")[0]["signed"] >= before + events)
    watched.stop()
    found.update(result(events, watched))
    found["ledgerd_us"] = round(found["cpu_seconds"] / events * 1e6, 2)
    return found


def checkpoint_lag(database):
    """From each commit to the first signed checkpoint that covers it."""
    [found] = database.rows("""
        with signed as (
            select tree_size, pg_xact_commit_timestamp(xmin) as at,
                coalesce(lag(tree_size) over (order by tree_size), 0) as before
            from ledger.checkpoint
        )
        select percentile_cont(0.99) within group (order by extract(epoch from signed.at - pg_xact_commit_timestamp(batch.xmin))) as p99
        from ledger.batch as batch
        cross join lateral generate_series(batch.first_leaf, batch.first_leaf + batch.leaves - 1) as entry (leaf_index)
        join signed on entry.leaf_index >= signed.before and entry.leaf_index < signed.tree_size""")
    return {"checkpoint_lag_p99_seconds": round(found["p99"], 3)}


def verify(servers, programs):
    """The ledger of the last drain by ledgerd, against a SELECT of the same rows over one connection."""
    url, database = servers.new_database()
    environment = prepare(servers, programs, url)
    servers.forget_consumers()
    run(programs, environment, "setup")
    events = servers.api("STREAM.INFO.LEDGER")["state"]["messages"]
    drain(servers, programs, environment, database, events)
    database.execute("vacuum analyze")
    query = "select * from ledger.entry join public.audit_events on id = row_id order by leaf_index"
    selected, _ = plain(servers, programs, "select", url, query)
    watched = Watched([programs.ledgerd, "verify", "--jobs", "1"], servers.folder / "verify.log", environment).wait(SECONDS_MAX)
    both = Watched([programs.ledgerd, "verify"], servers.folder / "verify.log", environment).wait(SECONDS_MAX)
    found = result(events, watched)
    found.update(select_per_second=round(selected["rows"] / selected["seconds"]), all_cores_per_second=round(events / both.seconds))
    return found


def expect(database, query, count):
    there = database.rows(query)[0]["there"]
    if there != count:
        raise Trouble(f"{there} rows are there, and {count} should be")


def wait(watched, condition):
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        watched.alive()
        if time.monotonic() > deadline:
            raise Trouble(f"not within {SECONDS_MAX} seconds")
        time.sleep(LOOK_SECONDS)
