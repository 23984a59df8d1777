#!/usr/bin/env python3
"""How long does the cost report take over 100,000 uses of tools? What `make report` does.

Starts a private PostgreSQL, lets `ledgerd migrate` make the tables, fills them with docs/reports/sample_usage.sql, and prints the
times of some runs for each way of asking, and the report's own plans. Nothing is asserted: times depend on the machine.

    --no-build    take target/debug/ledgerd as it is
"""

import sys

sys.dont_write_bytecode = True

import os
import re
import shutil
import statistics
import subprocess
from pathlib import Path

from demo_database import Database
from demo_report import columns
from private_servers import Postgres, remove_leftovers
from servers import CHECKOUT, FOLDER, Trouble, psql, say

RUN = FOLDER / "report"
REPORTS = CHECKOUT / "docs" / "reports"
RUNS = 21
PLANS = 5
MIGRATE_SECONDS_MAX = 120
PSQL_SECONDS_MAX = 300

REPORT = (REPORTS / "cost_per_venture.sql").read_text()
GROUPED = "select venture_id, count(*), sum(cost_usd) from public.tool_usage_ledger group by venture_id order by 3 desc;"
WEEK = {"from": "2026-02-08", "to": "2026-02-15"}
CHAIRMAN = "set role authenticated; set request.jwt.claims = '{\"role\": \"chairman\"}';"
ASK_ONCE = "alter policy chairman_read_ledger on public.tool_usage_ledger using ((select public.fn_is_chairman()));"

# What is asked, how, with which variables, and what is said before. The last one changes the policy, for what comes after it too.
WAYS = [
    ("the report, all 30 days", REPORT, {}, ""),
    ("the report, one week", REPORT, WEEK, ""),
    ("group by venture_id, all 30 days", GROUPED, {}, ""),
    ("the report, all 30 days, as the chairman", REPORT, {}, CHAIRMAN),
    ("the same, the policy written as (select fn_is_chairman())", REPORT, {}, ASK_ONCE + CHAIRMAN),
]


class Client:
    def __init__(self, url):
        self.command = [psql(), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname", url]

    def run(self, text, **variables):
        arguments = [f"--set={name}={value}" for name, value in variables.items()]
        done = subprocess.run(self.command + arguments, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=PSQL_SECONDS_MAX)
        if done.returncode != 0:
            raise Trouble(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def measure(self, text, variables, before):
        """Milliseconds of some runs in one session, as psql sees them, and the fastest of some plans. The first run warms the caches."""
        head, query = re.fullmatch(r"(.*?)(^select\b.*)", text, re.DOTALL | re.MULTILINE).groups()
        head += before
        printed = self.run(f"{head}\n\\timing on\n\\o /dev/null\n" + f"{query}\n" * (RUNS + 1), **variables)
        times = [float(time) for time in re.findall(r"^Time: ([0-9.]+) ms", printed, re.MULTILINE)]
        explained = self.run(head + f"\\echo next plan\nexplain (analyze, buffers) {query}\n" * PLANS, **variables)
        return times[1:], min(explained.split("next plan\n")[1:], key=execution_ms).strip()


def execution_ms(plan):
    return float(re.search(r"^Execution Time: ([0-9.]+) ms", plan, re.MULTILINE).group(1))


def measure_ways(client, state, ways):
    """Prints a table of times; returns the plans."""
    rows, plans = [(state, "best ms", "median", "slowest", "pages")], []
    for name, text, variables, before in ways:
        times, plan = client.measure(text, variables, before)
        pages = re.search(r"Buffers: shared hit=(\d+)", plan)
        rows.append((name, f"{min(times):.1f}", f"{statistics.median(times):.1f}", f"{max(times):.1f}", pages.group(1) if pages else "?"))
        plans.append((name, plan))
    print("", *columns(rows), sep="\n", flush=True)
    return plans


def ledgerd(options):
    if "--no-build" not in options:
        if shutil.which("cargo") is None:
            raise Trouble("cargo is missing: install a Rust toolchain (rustup.rs)")
        if subprocess.run(["cargo", "build", "--quiet"], cwd=CHECKOUT).returncode != 0:
            raise Trouble("the build failed")
    return CHECKOUT / Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug" / "ledgerd"


def measure(server, program):
    Database(server.url("postgres", "postgres")).execute("create database ledgerd")
    url = server.url("postgres", "ledgerd")
    say("ledgerd migrate ...")
    configuration = RUN / "ledgerd.toml"
    configuration.touch()
    subprocess.run([str(program), "--config", str(configuration), "migrate"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "LEDGERD__DATABASE__URL": url}, timeout=MIGRATE_SECONDS_MAX)
    client = Client(url)
    # This script alone decides when the table is vacuumed.
    client.run("alter table public.tool_usage_ledger set (autovacuum_enabled = false);")
    say("100,000 uses of tools ...")
    client.run((REPORTS / "sample_usage.sql").read_text() + "grant select on public.ventures to authenticated; analyze;")
    say("measuring ...")
    print(client.run("select version();"))
    measure_ways(client, "before any vacuum", WAYS[:2])
    client.run("vacuum analyze public.tool_usage_ledger;")
    for name, plan in measure_ways(client, "after a vacuum", WAYS)[:2]:
        print(f"\n{name}:\n{plan}")


def main(options):
    unknown = set(options) - {"--no-build"}
    if unknown:
        print(__doc__.strip(), file=sys.stdout if unknown == {"--help"} else sys.stderr)
        return 0 if unknown == {"--help"} else 64
    program = ledgerd(options)
    FOLDER.mkdir(exist_ok=True)
    remove_leftovers(RUN)
    RUN.mkdir()
    say("starting PostgreSQL ...")
    server = Postgres(RUN)
    try:
        measure(server, program)
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Trouble, OSError, subprocess.SubprocessError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)
