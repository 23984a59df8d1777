#!/usr/bin/env python3
"""Pictures of the console with the records of `make run`, put into docs/images/. Options go to demo.py."""

import sys

sys.dont_write_bytecode = True

import json
import os
import subprocess
import urllib.request

import demo
import servers
from demo import Demo, Interrupted, ask_before_ending, interrupt
from servers import CHECKOUT, Trouble, say

IMAGES = CHECKOUT / "docs" / "images"
IMAGE_BYTES_MAX = 150_000
SECONDS_MAX = 180
WIDTH_OF_A_TELEPHONE = 360


def record_of(console, actor, action):
    """The leaf of the newest event of this kind."""
    with urllib.request.urlopen(f"{console.link()}api/v1/timeline?actor={actor}&limit=200", timeout=10) as answer:
        lines = json.load(answer)["lines"]
    return next(line["leaf_index"] for line in lines if line["action"] == action)


def pictures(demo):
    record = f"/record/{record_of(demo.console, 'RXY-CEO', 'VOTE_RECORDED')}"
    return [
        {"name": "now", "path": "/"},
        {"name": "now-dark", "path": "/", "dark": True},
        {"name": "timeline", "path": "/timeline"},
        {"name": "timeline-telephone", "path": "/timeline", "width": WIDTH_OF_A_TELEPHONE, "height": 740},
        {"name": "record", "path": record, "key": demo.verifier_key, "height": 860},
        {"name": "money", "path": "/money"},
        {"name": "rejects", "path": "/rejects"},
        {"name": "trust", "path": "/trust"},
    ]


def take(demo):
    clients = servers.client_libraries()
    environment = {**os.environ, "LEDGERD_TEST_CHROMIUM": str(servers.chromium()), "LEDGERD_TEST_BROWSER": str(clients["LEDGERD_TEST_BROWSER"])}
    IMAGES.mkdir(parents=True, exist_ok=True)
    wanted = pictures(demo)
    say(f"taking {len(wanted)} pictures ...")
    done = subprocess.run(["node", str(CHECKOUT / "scripts" / "screenshots.mjs"), demo.console.link().rstrip("/"), str(IMAGES), json.dumps(wanted)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=SECONDS_MAX)
    if done.returncode != 0:
        raise Trouble(f"the pictures could not be taken:\n{done.stdout}")
    for picture in wanted:
        file = IMAGES / f"{picture['name']}.png"
        size = file.stat().st_size
        say(f"{file.relative_to(CHECKOUT)}: {size:,} bytes")
        if size > IMAGE_BYTES_MAX:
            raise Trouble(f"{file.name} has more than {IMAGE_BYTES_MAX:,} bytes")


def main(options):
    ask_before_ending(interrupt)
    made = Demo(options)
    try:
        with demo.only_one():
            made.start()
            made.start_console()
            if not made.show():
                raise Trouble("not everything came out as expected")
            take(made)
    finally:
        made.stop()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Trouble, OSError, subprocess.SubprocessError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
    except Interrupted:
        sys.exit(1)
