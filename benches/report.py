"""The results as a table, as a plot, and as a file."""

import json
import re
import statistics
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILE = HERE / "results.json"
PLOT = HERE / "drain.svg"
README = HERE / "README.md"
BEGIN, END = "<!-- figures: written by bench.py --keep -->", "<!-- end of figures -->"


def with_kept(results):
    """A long measurement is made by itself, and stands beside the others; each replaces its own last one."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {**kept, "stored": results} if "drains" in results else {**results, "stored": kept.get("stored")}


def median(side, name):
    return statistics.median(turn[name] for turn in side)


def spread(side, name):
    values = [turn[name] for turn in side]
    return f"{min(values):,.0f} to {max(values):,.0f}"


def ratios(results, name):
    """The ledger against a side, turn by turn: both of one round."""
    ours, theirs = results["sides"].get("ledgerd", []), results["sides"].get(name, [])
    return [our["per_second"] / their["per_second"] for our, their in zip(ours, theirs)]


def drain_sides(results):
    return [name for name, turns in results["sides"].items() if turns and name not in ("verify", "latency", "outage")]


def table(results):
    lines = ["| side | events per second: median (range) | ledgerd is | processor seconds per 1,000 events | most memory, MiB |",
             "|---|---|---|---|---|"]
    for name in drain_sides(results):
        side = results["sides"][name]
        ratio = "" if name == "ledgerd" or not ratios(results, name) else f"{statistics.median(ratios(results, name)):.2f} ×"
        cpu = statistics.median(turn["cpu_seconds"] / turn["events"] * 1_000 for turn in side)
        memory = max(turn["memory_mib"] for turn in side)
        lines.append(f"| {name} | {median(side, 'per_second'):,.0f} ({spread(side, 'per_second')}) | {ratio} | {cpu:.3f} | {memory:.0f} |")
    lines.append("")
    if ours := results["sides"].get("ledgerd"):
        lines.append(f"- Commit to signed checkpoint at full drain, p99: {max(turn['checkpoint_lag_p99_seconds'] for turn in ours):.2f} s, the worst round.")
        ceiling = results["sides"].get("ceiling")
        bare = f" (of it {median(ceiling, 'postgres_us'):.1f} µs for the rows and indexes of the ceiling)" if ceiling else ""
        lines.append(f"- Processor time for each event: nats-server {median(ours, 'nats_us'):.1f} µs, PostgreSQL {median(ours, 'postgres_us'):.1f} µs{bare}, "
                     f"ledgerd {median(ours, 'ledgerd_us'):.1f} µs.")
        lines.append(f"- For each event on disk: {median(ours, 'custody_bytes'):,.0f} bytes in schema `ledger`, {median(ours, 'row_bytes'):,.0f} in "
                     f"`audit_events` with its indexes; {median(ours, 'wal_bytes'):,.0f} bytes of write-ahead log.")
    if verified := results["sides"].get("verify"):
        ratio = statistics.median(turn["per_second"] / turn["select_per_second"] for turn in verified)
        lines.append(f"- `verify` on one core: {median(verified, 'per_second'):,.0f} entries per second, {ratio:.2f} of a `SELECT` of the same rows "
                     f"({median(verified, 'select_per_second'):,.0f}); on all cores {median(verified, 'all_cores_per_second'):,.0f}.")
    if steady := results["sides"].get("latency"):
        half, most = (statistics.median(turn[f"{name}_ms"] / turn[f"commit_{name}_ms"] for turn in steady) for name in ("p50", "p99"))
        lines.append(f"- 500 events per second, stored by the stream to acknowledged: p50 {median(steady, 'p50_ms'):.2f} ms, p99 {median(steady, 'p99_ms'):.2f} ms; "
                     f"one row and its commit, p50 {median(steady, 'commit_p50_ms'):.2f} ms, p99 {median(steady, 'commit_p99_ms'):.2f} ms: {half:.1f} × and {most:.1f} ×. "
                     f"Published to stored by the stream: p50 {median(steady, 'stored_p50_ms'):.2f} ms, p99 {median(steady, 'stored_p99_ms'):.2f} ms.")
    if away := results["sides"].get("outage"):
        lines.append(f"- PostgreSQL away for {away[0]['outage_seconds']} s in the middle of the drain: {max(turn['memory_mib'] for turn in away):.0f} MiB at most.")
    if long := results.get("stored"):
        first, *others = long["drains"]
        of_empty = [drain["per_second"] / first["per_second"] for drain in others]
        lines.append(f"- With {others[-1]['stored']:,} rows stored already ({long['at']}): {others[-1]['per_second']:,} events per second, {of_empty[-1]:.2f} of what the same run drained "
                     f"into the empty database ({first['per_second']:,}). On the way there: {min(of_empty):.2f} at least, {statistics.median(of_empty):.2f} at the median.")
    at = results["machine"]
    lines.append(f"\n{results['at']}, {results['events']:,} events of {results['event_bytes']} bytes, {at['processor']}, {at['cores']} cores, "
                 f"{at['memory_gib']} GiB, Linux {at['kernel']}; {results['servers']['postgresql']}, {results['servers']['nats']}.")
    return "\n".join(lines)


def plot(results):
    """Bars, by hand: a plot needs no library that needs a library."""
    rows = [(name, median(results["sides"][name], "per_second")) for name in drain_sides(results)]
    widest, left, height = max(value for _, value in rows), 250, 34
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height * len(rows) + 40}" font-family="sans-serif" font-size="13">',
             '<rect width="100%" height="100%" fill="white"/>', '<text x="10" y="20" font-weight="bold">Drain of a backlog: events per second</text>']
    for number, (name, value) in enumerate(rows):
        top = 34 + number * height
        color = "#2563eb" if name == "ledgerd" else "#9ca3af"
        parts.append(f'<text x="{left - 8}" y="{top + 17}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{max(1, value / widest * 420):.0f}" height="{height - 10}" fill="{color}"/>')
        parts.append(f'<text x="{left + value / widest * 420 + 6:.0f}" y="{top + 17}">{value:,.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])


def keep(results):
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    PLOT.write_text(plot(results))
    text = README.read_text()
    figures = f"{BEGIN}\n{table(results)}\n\n![Drain of a backlog: events per second](drain.svg)\n{END}"
    README.write_text(re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: figures, text, flags=re.DOTALL))
