//! The search: any id that a record, a reject, a task, a proposal or a trace has, and any place in the log or in a stream.

use crate::postgres::remedy::DatabaseError;
use crate::query::line::{Entry, TimelineLine, entry_columns, lines};
use crate::query::timeline::text;
use crate::query::{BadQuestion, Reader};
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a search has found.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct SearchAnswer {
    /// What was searched for, as it was understood.
    pub(crate) query: String,
    pub(crate) found: Vec<Found>,
    /// What it was taken for, one after the other.
    pub(crate) tried: Vec<&'static str>,
}

/// One thing that may be meant.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Found {
    /// An entry of the log.
    Entry {
        leaf_index: i64,
        /// Which of the ways led to it.
        by: &'static str,
        disposition: String,
        /// Absent for a duplicate, and where the record was erased.
        line: Option<Box<TimelineLine>>,
    },
    Task {
        id: String,
    },
    Proposal {
        id: String,
    },
    Agent {
        name: String,
    },
}

/// Entries of one kind that are listed.
const ENTRIES_MAX: i64 = 20;

impl Reader {
    /// Everything that a text may mean.
    pub(crate) async fn search(&self, query: &str) -> Result<Result<SearchAnswer, BadQuestion>, DatabaseError> {
        let query = match text("q", Some(&query.to_owned())) {
            Ok(query) => query.unwrap_or_default(),
            Err(bad) => return Ok(Err(bad)),
        };
        let answer = self.0.run("searching", async |connection| search(connection, query).await).await?;
        Ok(Ok(answer))
    }
}

async fn search(connection: &mut PgConnection, query: String) -> Result<SearchAnswer, sqlx::Error> {
    let mut search = Search { connection, entries: BTreeMap::new(), tried: Vec::new() };
    if query.is_empty() {
        return Ok(SearchAnswer { query, found: Vec::new(), tried: Vec::new() });
    }
    if let Ok(number) = query.parse::<i64>() {
        search.entries("a leaf of the log", AT_LEAF, &number.to_string()).await?;
        search.entries("a sequence of the stream", AT_SEQUENCE, &number.to_string()).await?;
    }
    if let Some(trace_id) = trace_id(&query) {
        search.entries("a trace", OF_TRACE, &trace_id).await?;
    }
    search.entries("a reject", OF_REJECT, &query).await?;
    search.entries("the id of a record or the key of a metric", OF_NAME, &query).await?;
    let mut found = search.found().await?;
    let Search { connection, mut tried, .. } = search;
    let [is_task, is_proposal, is_agent] = names(connection, &query).await?;
    tried.extend(["a task", "a proposal", "an agent"]);
    found.extend(is_task.then(|| Found::Task { id: query.clone() }));
    found.extend(is_proposal.then(|| Found::Proposal { id: query.clone() }));
    found.extend(is_agent.then(|| Found::Agent { name: query.clone() }));
    Ok(SearchAnswer { query, found, tried })
}

/// The trace that a text names: 32 hexadecimal digits, alone or inside a `traceparent`.
fn trace_id(text: &str) -> Option<String> {
    let id = text.to_ascii_lowercase();
    let id = match id.split('-').collect::<Vec<_>>()[..] {
        [_, trace, _, _] => trace.to_owned(),
        _ => id,
    };
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

struct Search<'c> {
    connection: &'c mut PgConnection,
    /// By leaf, with the way that led there first.
    entries: BTreeMap<i64, (&'static str, Entry)>,
    tried: Vec<&'static str>,
}

impl Search<'_> {
    async fn entries(&mut self, by: &'static str, statement: &'static str, query: &str) -> Result<(), sqlx::Error> {
        self.tried.push(by);
        let found: Vec<Entry> = sqlx::query_as(statement)
            .persistent(false)
            .bind(query)
            .bind(ENTRIES_MAX)
            .fetch_all(&mut *self.connection)
            .await?;
        for entry in found {
            self.entries.entry(entry.leaf_index).or_insert((by, entry));
        }
        Ok(())
    }

    /// The newest first. A record that came again is found once.
    async fn found(&mut self) -> Result<Vec<Found>, sqlx::Error> {
        let entries: Vec<&Entry> = self.entries.values().map(|(_, entry)| entry).collect();
        let lines = lines(self.connection, &entries).await?;
        let is_recorded =
            |id: &Option<String>| entries.iter().any(|entry| entry.disposition == "r" && entry.record_id == *id);
        let mut found: Vec<Found> = self
            .entries
            .values()
            .zip(lines)
            .filter(|((by, entry), _)| {
                entry.disposition != "d"
                    || *by != "the id of a record or the key of a metric"
                    || !is_recorded(&entry.record_id)
            })
            .map(|((by, entry), line)| Found::Entry {
                leaf_index: entry.leaf_index,
                by,
                disposition: match entry.disposition.as_str() {
                    "r" => "recorded".to_owned(),
                    "d" => "duplicate".to_owned(),
                    "x" => "rejected".to_owned(),
                    other => other.to_owned(),
                },
                line: line.map(Box::new),
            })
            .collect();
        found.reverse();
        Ok(found)
    }
}

/// The entries at places: `first_leaf` of a batch, and the place in it.
macro_rules! entries_at {
    ($places:expr) => {
        concat!(
            "select ",
            entry_columns!(),
            " from (",
            $places,
            ") as wanted
            cross join lateral (select * from ledger.batch as held where held.first_leaf = wanted.first_leaf offset 0) as batch
            cross join lateral (select wanted.at as at) as place
            limit $2"
        )
    };
}

const AT_LEAF: &str = entries_at!(
    "select batch.first_leaf, ($1::bigint - batch.first_leaf + 1)::integer as at
    from ledger.batch as batch
    where batch.first_leaf = (select max(before.first_leaf) from ledger.batch as before where before.first_leaf <= $1::bigint)
        and $1::bigint < batch.first_leaf + batch.leaves"
);

/// In the newest epochs.
const AT_SEQUENCE: &str = entries_at!(
    "select found.first_leaf, array_position(held.sequences, $1::bigint) as at
    from (select epoch from ledger.epoch order by epoch desc limit 10) as epoch
    cross join lateral ledger.batches_of_epoch(epoch.epoch, $1::bigint, $1::bigint) as found (first_leaf)
    cross join lateral (select sequences from ledger.batch where batch.first_leaf = found.first_leaf offset 0) as held
    where array_position(held.sequences, $1::bigint) is not null"
);

const OF_TRACE: &str = entries_at!(
    "select trace.first_leaf, (trace.leaf_index - trace.first_leaf + 1)::integer as at
    from ledger.entries_by_trace($1) as trace
    limit $2"
);

/// By the subject of its dead letter, or by the reference that this ends in: `EPOCH-SEQUENCE`.
const OF_REJECT: &str = entries_at!(
    "select (select max(before.first_leaf) from ledger.batch as before where before.first_leaf <= letter.leaf_index) as first_leaf,
        (letter.leaf_index - (select max(before.first_leaf) from ledger.batch as before where before.first_leaf <= letter.leaf_index)
            + 1)::integer as at
    from ledger.dead_letter as letter
    where letter.dlq_subject = $1
    union all
    select found.first_leaf, array_position(held.sequences, place.sequence) as at
    from (select regexp_match($1, '^([0-9]{1,19}(?:r[0-9]{1,9})?)-([0-9]{1,18})$') as parts) as reference
    cross join lateral (select reference.parts[1] as epoch_key, reference.parts[2]::bigint as sequence) as place
    join ledger.epoch as epoch
        on epoch.stream_created_ns::text || case when epoch.regressions > 0 then 'r' || epoch.regressions else '' end = place.epoch_key
    cross join lateral ledger.batches_of_epoch(epoch.epoch, place.sequence, place.sequence) as found (first_leaf)
    cross join lateral (select sequences from ledger.batch where batch.first_leaf = found.first_leaf offset 0) as held
    where array_position(held.sequences, place.sequence) is not null"
);

/// By way of the row that has the name, or of the index of those names that no row has.
const OF_NAME: &str = entries_at!(
    "select distinct found.first_leaf, item.at::integer as at
    from (
        select place.first_leaf
        from public.audit_events as event
        cross join lateral ledger.batches_of_rows(split_part(event.event_id, '-', 1), event.id, event.id) as place (first_leaf)
        where event.event_id = $1
        union
        select place.first_leaf
        from public.decision_trails as trail
        cross join lateral ledger.batches_of_rows('TRAIL', trail.id, trail.id) as place (first_leaf)
        where trail.trail_id = $1
        union
        select place.first_leaf
        from (select id from ledger.token_usage where usage_id = $1 limit $2) as usage
        cross join lateral ledger.batches_of_rows('TOKENS', usage.id, usage.id) as place (first_leaf)
        union
        select place.first_leaf
        from (select id from public.economic_metrics where metric_key = $1 order by id desc limit $2) as metric
        cross join lateral ledger.batches_of_rows('METRIC', metric.id, metric.id) as place (first_leaf)
        union
        -- What was erased has no row any more.
        select (select max(before.first_leaf) from ledger.batch as before where before.first_leaf <= removal.leaf_index)
        from ledger.removal as removal
        where removal.row_key = $1 and removal.leaf_index is not null
        union
        (
            select batch.first_leaf
            from ledger.batch as batch
            where (batch.duplicates > 0 or batch.rejected > 0 or batch.lane in ('METRIC', 'USAGE'))
                and ledger.names_without_key(batch.lane, batch.dispositions, batch.record_ids) @> array[$1]
                and (batch.lane <> 'METRIC' or batch.rejected > 0)
            limit $2
        )
    ) as found
    cross join lateral (select record_ids from ledger.batch where batch.first_leaf = found.first_leaf offset 0) as held
    cross join lateral unnest(held.record_ids) with ordinality as item (record_id, at)
    where item.record_id = $1
    order by 1 desc, 2 desc
    limit $2"
);

/// Whether a text is the id of a task, of a proposal, or the name of an agent. The range of one value makes the plan one through the
/// index, whatever the planner thinks of it.
async fn names(connection: &mut PgConnection, query: &str) -> Result<[bool; 3], sqlx::Error> {
    let found: (bool, bool, bool) = sqlx::query_as(
        "select
            exists (select from (select from public.audit_events where task_id >= $1 and task_id <= $1 order by task_id limit 1) as it)
                or exists (select from (select from ledger.token_usage where task_id >= $1 and task_id <= $1 order by task_id limit 1) as it)
                or exists (select from (select from public.decision_trails where ledger.task_of(proposal) >= left($1, 200)
                    and ledger.task_of(proposal) <= left($1, 200) order by ledger.task_of(proposal) limit 1) as it),
            exists (select from (select from public.audit_events where ledger.proposal_of(details) >= left($1, 200)
                    and ledger.proposal_of(details) <= left($1, 200) order by ledger.proposal_of(details) limit 1) as it)
                or exists (select from (select from public.decision_trails where ledger.proposal_of(proposal) >= left($1, 200)
                    and ledger.proposal_of(proposal) <= left($1, 200) order by ledger.proposal_of(proposal) limit 1) as it),
            exists (select from (select from public.audit_events where actor >= $1 and actor <= $1 order by actor limit 1) as it)
                or exists (select from (select from ledger.token_usage where agent_name >= $1 and agent_name <= $1
                    order by agent_name limit 1) as it)",
    )
    .persistent(false)
    .bind(query)
    .fetch_one(connection)
    .await?;
    Ok([found.0, found.1, found.2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_by_its_id_or_by_its_header() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [id, &id.to_uppercase(), &format!("00-{id}-00f067aa0ba902b7-01")] {
            assert_eq!(trace_id(text).as_deref(), Some(id));
        }
        for text in ["", "4bf9", &format!("{id}0"), "EXEC-BRM-CTO-1708451234567", &id.replace('4', "g")] {
            assert_eq!(trace_id(text), None, "{text}");
        }
    }
}
