"""What the demo reads from the database, through psql."""

import json
import os
import subprocess
from urllib.parse import unquote, urlsplit

from servers import Trouble, psql

QUERY_SECONDS_MAX = 30


class Database:
    def __init__(self, url):
        address = urlsplit(url)
        self.environment = {**os.environ, "PGCONNECT_TIMEOUT": "5"}
        if address.password is not None:
            # Not among the arguments, where any user of the machine could read it.
            self.environment["PGPASSWORD"] = unquote(address.password)
            account, _, host = address.netloc.rpartition("@")
            address = address._replace(netloc=f"{account.split(':')[0]}@{host}")
        self.command = [psql(), "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
                        "--dbname", address.geturl()]

    def execute(self, *statements):
        """Runs each statement in a transaction of its own; returns what psql printed."""
        arguments = [f"--command={statement}" for statement in statements]
        done = subprocess.run(self.command + arguments, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=QUERY_SECONDS_MAX)
        if done.returncode != 0:
            raise Trouble(f"psql: {done.stderr.strip()}")
        return done.stdout

    def rows(self, select):
        return json.loads(self.execute(f"select coalesce(json_agg(rows), '[]') from ({select}) as rows"))

    def outcomes(self, stream, sequences):
        """What became of the messages with these sequences in the newest epoch of a stream, by sequence.

        `settled`: nothing more will happen to it; a reject's dead letter has been published."""
        stream_literal = "'" + stream.replace("'", "''") + "'"
        found = self.rows(f"""
            select e.sequence, e.leaf_index, e.subject, e.record_id, e.row_id, coalesce(d.reason, e.disposition) as outcome, d.detail,
                d.leaf_index is null or d.published_at is not null as settled,
                a.event_id, a.actor, a.action, a.outcome as event_outcome, i.intact
            from ledger.entry as e
            left join ledger.dead_letter as d using (leaf_index)
            -- Each table numbers its rows for itself.
            left join public.audit_events as a on a.id = e.row_id and a.event_id = e.record_id
            left join public.audit_events_integrity as i on i.id = a.id
            where e.epoch = (select max(epoch) from ledger.epoch where stream = {stream_literal})
                and e.sequence between {min(sequences)} and {max(sequences)}
            order by e.leaf_index""")
        # Somebody else may publish at the same time, if the server is not ours.
        return {row["sequence"]: row for row in found if row["sequence"] in sequences}

    def tree_head(self):
        return self.rows("select size, encode(root, 'hex') as root from ledger.tree_head")[0]

    def metrics_in_force(self):
        return {row["metric_key"] for row in self.rows("select metric_key from ledger.metric_in_force")}

    def registered(self, table, count):
        """Ids of a registry that tool usage refers to. It belongs to another system: what it lacks is added, for the demo alone."""
        lacking = count - self.rows(f"select count(*) as count from (select from public.{table} limit {count}) as known")[0]["count"]
        self.execute(*[f"insert into public.{table} default values"] * lacking)
        return [row["id"] for row in self.rows(f"select id from public.{table} order by id limit {count}")]

    def days(self, agents):
        """The present days of these agents, each with what limits it."""
        return self.rows(f"""
            select day.agent_name, total_tokens_input, total_tokens_output, total_cost::text as total_cost, budget_status,
                coalesce(
                    (select metric_value || ' by ' || metric_key from ledger.metric_in_force
                    where metric_key in ('daily_limit_' || day.agent_name, 'daily_limit_' || day.budget_group)
                    order by metric_key = 'daily_limit_' || day.agent_name desc limit 1), 'none') as limited_to
            from public.token_ledger as day
            where date = (current_timestamp at time zone 'UTC')::date and day.agent_name in {literals(agents)}
            order by day.agent_name""")

    def alerts_waiting(self):
        return self.rows("select count(*) as count from ledger.budget_alert where published_at is null")[0]["count"]

    def trails(self, trail_ids):
        return self.rows(f"""
            select trail_id, outcome, (select count(*) from jsonb_object_keys(council_vote)) as votes, ledger_ref,
                exists (select from public.audit_events where event_id = ledger_ref) as found
            from public.decision_trails
            where trail_id in {literals(trail_ids)}
            order by trail_id""")

    def metrics(self, row_ids):
        return self.rows(f"""
            select metric_key, metric_value::text as metric_value, period, set_by
            from public.economic_metrics
            where id in {literals(row_ids)}
            order by metric_key""")

    def uses(self, ids):
        return self.rows(f"""
            select id, agent_id, tool_id, venture_id, tokens_consumed, cost_usd::text as cost_usd, execution_ms
            from public.tool_usage_ledger
            where id in {literals(ids)}""")


def literals(values):
    """A list for SQL's `in`, which is never empty there."""
    return "(" + ", ".join(["null", *("'" + str(value).replace("'", "''") + "'" for value in values)]) + ")"
