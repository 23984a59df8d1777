#!/usr/bin/env python3
"""How fast is it, against its own ceiling and against what users would pick instead? What `make bench` does.

Real servers, and every side in the same run, in turns: what counts are the ratios, for machines differ and are noisy. The results go
to standard output and, with `--keep`, into benches/results.json, from which report.py makes the table and the plot of README.md.

    --events N    the backlog (500,000)
    --rounds N    how often each side takes its turn (3)
    --only WORD   only what has this word in its name
    --stored N    only the drain with up to N rows in the database already, backlog upon backlog (10,000,000: about ten minutes on two cores, 15 GB and more; the stream is not written through)
    --keep        writes benches/results.json and benches/README.md's figures
"""

import sys

sys.dont_write_bytecode = True

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))

import backlog
import drains
import latency
import report
from bench_servers import Servers
from servers import CHECKOUT, FOLDER, Trouble, say

RUN = FOLDER / "bench"


def build():
    say("building ledgerd and what it is measured with, optimised")
    command = ["cargo", "build", "--release", "--bin", "ledgerd", "--bench", "plain", "--bench", "steady", "--message-format=json"]
    made = subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = [json.loads(line) for line in made.splitlines() if line.startswith("{")]
    executables = {entry["target"]["name"]: entry["executable"] for entry in found if entry.get("executable")}
    return CHECKOUT / "target" / "release" / "ledgerd", executables["plain"], executables["steady"]


def peers():
    """The Python of the peers' own environment, and ingestr in it, at the versions of requirements.txt."""
    place = FOLDER / "bench-peers"
    python = place / "bin" / "python"
    if not python.exists():
        say("installing the peers (nats-py, asyncpg, ingestr)")
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt"], check=True)
    return place / "bin"


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024 // 1024
    return {"processor": cpu, "cores": os.cpu_count(), "memory_gib": memory, "kernel": os.uname().release}


def measure(options, servers, programs):
    """Each round lets every side take its turn; the sides that take longest drain a part of the backlog."""
    events = options.events
    say(f"{events:,} events: writing and publishing them")
    mean_bytes = backlog.write(servers.events_file, events)
    drains.run(programs, {"LEDGERD__NATS__URL": servers.nats.url()}, "setup")
    backlog.publish(servers.nats.url(), events)
    sides = [
        ("ceiling", lambda: drains.ceiling(servers, programs)),
        ("ledgerd", lambda: drains.ledgerd(servers, programs, events)),
        ("nats-py + asyncpg, batches of 1,000", lambda: drains.peer(servers, programs, "batch", min(events, 200_000))),
        ("nats-py + asyncpg, one by one", lambda: drains.peer(servers, programs, "single", min(events, 20_000))),
        ("ingestr 1.1.22", lambda: drains.ingestr(servers, programs, events)),
        ("verify", lambda: drains.verify(servers, programs)),
        ("latency", lambda: latency.steady(servers, programs)),
        ("outage", lambda: drains.outage(servers, programs, events)),
    ]
    found = {name: [] for name, _ in sides if options.only in name}
    for number in range(options.rounds):
        for name, side in sides:
            if name in found:
                found[name].append(side())
                say(f"round {number + 1}, {name}: {json.dumps(found[name][-1])}")
    return {"machine": machine(), "servers": servers.versions(), "events": events, "event_bytes": round(mean_bytes), "sides": found,
            "at": time.strftime("%Y-%m-%d", time.gmtime())}


def measure_stored(options, servers, programs):
    found = drains.stored(servers, programs, options.events, options.stored)
    return {"machine": machine(), "servers": servers.versions(), **found, "at": time.strftime("%Y-%m-%d", time.gmtime())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--stored", type=int)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    programs = drains.Programs(*build(), peers())
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    servers = Servers(RUN)
    try:
        results = measure_stored(options, servers, programs) if options.stored else measure(options, servers, programs)
    finally:
        servers.stop()
    kept = report.with_kept(results)
    print(report.table(kept))
    if options.keep:
        report.keep(kept)


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(f"bench: {trouble}")
