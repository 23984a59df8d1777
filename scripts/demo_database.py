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
            select e.sequence, e.leaf_index, e.subject, e.record_id, coalesce(d.reason, e.disposition) as outcome, d.detail,
                d.leaf_index is null or d.published_at is not null as settled,
                a.event_id, a.actor, a.action, a.outcome as event_outcome, i.intact
            from ledger.entry as e
            left join ledger.dead_letter as d using (leaf_index)
            left join public.audit_events as a on a.id = e.row_id
            left join public.audit_events_integrity as i on i.id = e.row_id
            where e.epoch = (select max(epoch) from ledger.epoch where stream = {stream_literal})
                and e.sequence between {min(sequences)} and {max(sequences)}
            order by e.leaf_index""")
        # Somebody else may publish at the same time, if the server is not ours.
        return {row["sequence"]: row for row in found if row["sequence"] in sequences}

    def tree_head(self):
        return self.rows("select size, encode(root, 'hex') as root from ledger.tree_head")[0]
