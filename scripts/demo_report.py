"""What the demo shows."""

import os
import shlex
import shutil
import sys
import textwrap

COLOURS = {"recorded": "32", "duplicate": "36", "rejected": "33", "wrong": "1;31", "title": "1", "quiet": "2"}

# The event that is published with `ledgerd emit`, and that the reader is invited to publish again.
EMIT = ("--actor", "BRM-CTO", "--action", "AGENT_VALIDATED", "--outcome", "APPROVED", "--details", '{"agent":"WRK-012"}')


def paint(kind, text):
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if coloured else text


def title(text):
    print(f"\n{paint('title', text)}")


def columns(rows):
    """Lines of a table whose columns are as wide as their widest cell."""
    widths = [max(len(str(row[number])) for row in rows) for number in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip()


def show_rows(recorded):
    title("Rows of audit_events")
    head, *lines = columns([("leaf", "event id", "actor", "action", "outcome")] + [
        (row["leaf_index"], row["event_id"], row["actor"], row["action"], row["event_outcome"]) for row in recorded])
    print(f"  {paint('quiet', head)}")
    for line in lines:
        print(f"  {paint('recorded', line)}")


def show_duplicates(duplicates):
    title("Duplicates: acknowledged, not stored twice")
    head, *lines = columns([("leaf", "subject", "id")] + [(row["leaf_index"], row["subject"], row["record_id"]) for row in duplicates])
    print(f"  {paint('quiet', head)}")
    for line in lines:
        print(f"  {paint('duplicate', line)}")


def show_rejects(rejected):
    title("Rejects: the bytes are kept, and published again as dead letters with the reason")
    width_max = max(shutil.get_terminal_size((120, 40)).columns, 60)
    head, *lines = columns([("leaf", "reason", "subject")] + [(row["leaf_index"], row["outcome"], row["subject"]) for row in rejected])
    print(f"  {paint('quiet', head)}")
    for line, row in zip(lines, rejected):
        print(f"  {paint('rejected', line)}")
        print(textwrap.fill(row["detail"], width_max, initial_indent=" " * 8, subsequent_indent=" " * 8))


def show_counts(expected, recorded, duplicates, rejected, head):
    letters = sum(row["settled"] for row in rejected)
    events = [row for row in recorded if row["event_id"]]
    intact = sum(row["intact"] is True for row in events)
    accounted = recorded + duplicates + rejected
    lost = len(expected) - len(accounted)
    first_leaf = min((row["leaf_index"] for row in accounted), default=head["size"])
    title("Counts")
    for line in columns([
        ("published", len(expected), "messages, acknowledged by the stream"),
        ("recorded", len(recorded), f"of them {len(events)} audit events; the specification's hash, recomputed in SQL, holds for {intact}"),
        ("duplicate", len(duplicates), ""),
        ("rejected", len(rejected), f"of {len({row['outcome'] for row in rejected})} kinds; {letters} dead letters published"),
        ("not accounted for", lost, ""),
        ("in the tree", head["size"], f"leaves, {first_leaf} from before (migrations and the reference); root {head['root']}"),
    ]):
        print(f"  {line}")
    return lost == 0 and letters == len(rejected) and intact == len(events)


def show(expected, outcomes, head, show_tables):
    """Shows what became of each message; returns whether that was what was expected. `show_tables` does so for the other tables."""
    rows = sorted(outcomes.values(), key=lambda row: row["leaf_index"])
    recorded = [row for row in rows if row["outcome"] == "recorded"]
    duplicates = [row for row in rows if row["outcome"] == "duplicate"]
    rejected = [row for row in rows if row["outcome"] not in ("recorded", "duplicate")]
    if recorded:
        show_rows([row for row in recorded if row["event_id"]])
    tables_complete = show_tables()
    if duplicates:
        show_duplicates(duplicates)
    if rejected:
        show_rejects(rejected)
    complete = show_counts(expected, recorded, duplicates, rejected, head)
    surprises = [(sequence, wanted, outcomes.get(sequence, {"outcome": "nothing", "detail": None}))
                 for sequence, wanted in expected.items()
                 if sequence not in outcomes or outcomes[sequence]["outcome"] != wanted]
    for sequence, wanted, found in surprises:
        print(paint("wrong", f"  sequence {sequence}: expected {wanted}, found {found['outcome']} {found['detail'] or ''}".rstrip()))
    if complete and tables_complete and not surprises:
        print(f"\nEach of the {len(expected)} messages became what it should, and the tables hold what they must.")
        return True
    print(paint("wrong", "\nNot everything came out as expected."))
    return False


def show_console(link, verifier_key):
    title("Look at the ledger in your browser: what is published appears there")
    print(f"  {link}")
    print(f"  its key, to check proofs against: {verifier_key}", flush=True)


def show_next_steps(daemon, link, private_url, psql, run_folder):
    """`private_url` None: the database is the reader's own, and its address is in the environment already."""
    ledgerd = shlex.join(shortest(part) for part in daemon.command())
    address = shlex.quote(private_url) if private_url else '"$LEDGERD__DATABASE__URL"'
    client = "psql" if shutil.which("psql") else shlex.quote(psql)
    title("Publish an event of your own, and see what became of it (in another terminal, in this folder)")
    print(f"  {ledgerd} emit {shlex.join(EMIT)}")
    print(f"  {ledgerd} status")
    print(f"  {ledgerd} dlq list")
    title("Query")
    print(f"  {client} {address} -c 'select leaf_index, subject, disposition, reason from ledger.newest(10)'")
    print(f"  {client} {address} -c 'select event_id, action, outcome, timestamp from audit_events order by id desc limit 10'")
    print(f"  {client} {address} -f docs/reports/spend_today.sql")
    title("Look")
    print(f"  console  {link}")
    print(f"  metrics  http://127.0.0.1:{daemon.port}/metrics (also /readyz, /livez)")
    print(f"  logs     {shortest(str(run_folder))}/ledgerd.log, console.log, nats-server.log, postgresql.log")
    print(f"\n{paint('title', 'ledgerd is running. Ctrl-C stops it and its servers.')}", flush=True)


def shortest(path):
    """Relative to the current folder where that is shorter."""
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return min(path, relative, key=len)
