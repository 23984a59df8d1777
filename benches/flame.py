#!/usr/bin/env python3
"""Where does the daemon's processor time go in a drain? Draws benches/flame.svg. What `make flame` does.

Needs perf, and inferno's two programs (cargo install inferno). The daemon is built once more, with frame pointers."""

import sys

sys.dont_write_bytecode = True

import os
import shutil
import signal
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))

import backlog
import drains
from bench_servers import Servers
from processes import Watched
from servers import CHECKOUT, FOLDER, Trouble, say

RUN = FOLDER / "flame"
EVENTS = 200_000
SAMPLES_PER_SECOND = 997


def needed(program):
    found = shutil.which(program)
    if not found:
        raise Trouble(f"{program} is not installed")
    return found


def build():
    say("building ledgerd with frame pointers")
    target = CHECKOUT / "target" / "flame"
    environment = {**os.environ, "RUSTFLAGS": "-C force-frame-pointers=yes", "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--release", "--bin", "ledgerd", "--quiet"], cwd=CHECKOUT, check=True, env=environment)
    return target / "release" / "ledgerd"


def record(perf, servers, programs):
    url, database = servers.new_database()
    environment = drains.prepare(servers, programs, url)
    before = database.tree_head()["size"]
    watched = Watched([programs.ledgerd, "run"], servers.folder / "ledgerd.log", environment)
    samples = RUN / "perf.data"
    recording = subprocess.Popen([perf, "record", "-q", "-g", "-F", str(SAMPLES_PER_SECOND), "-p", str(watched.process.pid), "-o", samples])
    drains.wait(watched, lambda: servers.all_is_acknowledged(drains.LANES))
    recording.send_signal(signal.SIGINT)
    recording.wait()
    watched.stop()
    drains.expect(database, "select size as there from ledger.tree_head", before + EVENTS)
    return samples


def draw(perf, samples):
    script = subprocess.run([perf, "script", "-i", samples], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    folded = subprocess.run([needed("inferno-collapse-perf"), "-q"], input=script, stdout=subprocess.PIPE, check=True).stdout
    title = ["--title", "ledgerd run: processor time in a drain", "--width", "1400", "--minwidth", "0.3"]
    picture = subprocess.run([needed("inferno-flamegraph"), *title], input=folded, stdout=subprocess.PIPE, check=True).stdout
    (HERE / "flame.svg").write_bytes(picture)


def main():
    perf = needed("perf")
    for program in ("inferno-collapse-perf", "inferno-flamegraph"):
        needed(program)
    programs = drains.Programs(build(), plain=None, steady=None, peers=None)
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    servers = Servers(RUN)
    try:
        drains.run(programs, {"LEDGERD__NATS__URL": servers.nats.url()}, "setup")
        backlog.publish(servers.nats.url(), EVENTS)
        draw(perf, record(perf, servers, programs))
    finally:
        servers.stop()
    say("benches/flame.svg is drawn")


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(f"flame: {trouble}")
