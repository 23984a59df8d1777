#!/usr/bin/env python3
"""Ten lines of what `make run` shows, put into README.md between its markers.

Runs `scripts/demo.py --once` and takes lines of its output as they are; other options go to demo.py.
"""

import sys

sys.dont_write_bytecode = True

import os
import re
import subprocess

from servers import CHECKOUT, Trouble, say

README = CHECKOUT / "README.md"
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"
# As wide as a page shows without a scroll bar.
COLUMNS = "120"
LINES = 10
# Of these rejects, the first whose detail fits on one line is shown.
REASONS = ("hash_mismatch", "unknown_action", "actor_mismatch", "missing_field")


def output_of_demo(options):
    environment = {**os.environ, "COLUMNS": COLUMNS, "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, CHECKOUT / "scripts" / "demo.py", "--once", *options], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        raise Trouble(f"scripts/demo.py ended with {done.returncode}:\n{done.stdout}")
    return done.stdout.splitlines()


def section(lines, title):
    """The lines of a section: its title and what follows it, to the next blank line."""
    starts = [number for number, line in enumerate(lines) if line.startswith(title)]
    if not starts:
        raise Trouble(f"the demo shows no section {title!r}")
    found = lines[starts[0]:]
    return found[:found.index("")] if "" in found else found


def line_with(lines, word):
    for line in lines:
        if word in line.split():
            return line
    raise Trouble(f"the demo shows no line with {word!r}")


def reject(lines):
    """A reject and its detail, which is indented below it."""
    def is_detail(number):
        return number < len(lines) and lines[number].startswith(" " * 8)

    for reason in REASONS:
        for number, line in enumerate(lines):
            if reason in line.split()[1:2] and is_detail(number + 1) and not is_detail(number + 2):
                return [line, lines[number + 1]]
    raise Trouble("the demo shows no reject whose detail fits on one line")


def picture(lines):
    rows = section(lines, "Rows of audit_events")
    rejects = section(lines, "Rejects")
    counts = section(lines, "Counts")
    last = next((line for line in lines if line.startswith("Each of the ")), None)
    if last is None:
        raise Trouble("the demo does not say that everything came out as expected")
    chosen = [rows[0], rows[1], line_with(rows, "INJECTION_SCAN"), rejects[0], *reject(rejects),
              line_with(counts, "recorded"), line_with(counts, "rejected"), line_with(counts, "not"), last]
    if len(chosen) != LINES:
        raise Trouble(f"{len(chosen)} lines were chosen in place of {LINES}")
    return "\n".join(chosen)


def main(options):
    text = README.read_text()
    block = f"{BEGIN}\n```text\n{picture(output_of_demo(options))}\n```\n{END}"
    changed, times = re.subn(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)
    if times != 1:
        raise Trouble(f"README.md has {times} places for the picture")
    README.write_text(changed)
    say(f"README.md has {len(changed.encode()):,} bytes")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Trouble, OSError, subprocess.SubprocessError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
