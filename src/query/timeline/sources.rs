//! The sources of the timeline: which ones a filter needs, and the statements that read each in its own order, from an index.

use crate::query::line::{Entry, RECORDED, REJECTED, entry_columns, utc};
use crate::query::timeline::TimelineQuestion;
use crate::query::timeline::cursor::Key;
use crate::record::lane::Lane;
use crate::record::subject::safe_token;
use crate::record::table::Table;
use sqlx::{FromRow, PgConnection};

/// What a source gave.
pub(crate) struct Fetched {
    pub(crate) source: String,
    pub(crate) candidates: Vec<Candidate>,
    /// Whether the source has more behind the last of them.
    pub(crate) has_more: bool,
}

/// A place in a source, and what stands there.
pub(crate) struct Candidate {
    pub(crate) key: Key,
    pub(crate) at_us: i64,
    /// `None` where the search only passed.
    pub(crate) entry: Option<Entry>,
}

/// Rows that one look into a source goes through: what bounds a filter of which little is found.
const SCAN_MAX: usize = 5_000;
/// Entries that are read where their outcome is known only from their rows.
const ENTRIES_MAX: usize = 1_000;
/// Batches that are looked at.
const BATCHES_MAX: usize = 1_000;
/// Events of one task that are sorted; a task with more is looked for among all events.
const TASK_EVENTS_MAX: i64 = 5_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Audit events, by their own time.
    Events,
    /// Usage of tokens, by its day.
    Usage,
    /// A lane as it came in, rejects included.
    Lane(String),
    /// Rejects of all lanes.
    Rejects,
}

/// The name of the source of the rejects.
pub(crate) const REJECTS: &str = "rejects";

/// The lanes that no source but their own shows.
const SMALL_LANES: [Lane; 3] = [Lane::Trail, Lane::Metric, Lane::Usage];

/// The sources that the answer to a question is merged from.
pub(crate) fn of(question: &TimelineQuestion) -> Vec<Source> {
    let outcome = question.outcome.as_deref();
    if outcome == Some(REJECTED) {
        return if question.task.is_some() { Vec::new() } else { vec![Source::Rejects] };
    }
    let lane_is = |table: Table| question.lane.as_ref().is_none_or(|lane| table_of(lane) == table);
    let has_own_outcome = outcome.is_some_and(|outcome| outcome != RECORDED);
    let mut sources = Vec::new();
    if question.task.is_some() {
        sources.extend((lane_is(Table::AuditEvents) && outcome != Some(RECORDED)).then_some(Source::Events));
        sources.extend((lane_is(Table::TokenLedger) && !has_own_outcome).then_some(Source::Usage));
        return sources;
    }
    let Some(lane) = &question.lane else {
        sources.extend((outcome != Some(RECORDED)).then_some(Source::Events));
        sources.extend((!has_own_outcome).then_some(Source::Usage));
        sources.extend(SMALL_LANES.map(|lane| Source::Lane(lane.prefix().to_owned())));
        sources.extend(question.wants_rejects().then_some(Source::Rejects));
        return sources;
    };
    // A lane as it came in is in order of arrival; events and usages are asked for by their own times.
    let is_timed = question.since_us.is_some() || question.until_us.is_some();
    let by_table = match table_of(lane) {
        Table::AuditEvents if is_timed || has_own_outcome => Some(Source::Events),
        Table::TokenLedger if is_timed || question.actor.is_some() => Some(Source::Usage),
        _ => None,
    };
    let rejects = (by_table.is_some() && question.wants_rejects()).then_some(Source::Rejects);
    sources.push(by_table.unwrap_or_else(|| Source::Lane(lane.clone())));
    sources.extend(rejects);
    sources
}

fn table_of(lane: &str) -> Table {
    lane.parse::<Lane>().map_or(Table::AuditEvents, Lane::table)
}

/// The moment before which everything is, as text that PostgreSQL reads; the last that it and we can name.
const END_US: i64 = 253_402_207_200_000_000;
const BEGINNING_US: i64 = -62_135_596_800_000_000;

/// A page of rows of a source that is searched row by row.
#[derive(FromRow)]
struct Found {
    key_1: i64,
    key_2: i64,
    is_match: bool,
    leaf_index: Option<i64>,
    subject: Option<String>,
    server_time_ns: Option<i64>,
    disposition: Option<String>,
    record_id: Option<String>,
    row_id: Option<i64>,
    trace_id: Option<String>,
}

impl Found {
    fn candidate(self, us_per_key: i64) -> Candidate {
        let (key, at_us) = ([self.key_1, self.key_2, 0], self.key_1 * us_per_key);
        let entry = (|| {
            Some(Entry {
                leaf_index: self.leaf_index?,
                subject: self.subject?,
                server_time_ns: self.server_time_ns?,
                disposition: self.disposition?,
                record_id: self.record_id,
                row_id: self.row_id,
                trace_id: self.trace_id,
            })
        })();
        Candidate { key, at_us, entry }
    }
}

/// The first rows that match, and the last one that was looked at, each with its entry in custody: `$1` rows are looked at, and `$2`
/// wanted. The rows come in the order of their subquery.
macro_rules! with_entries {
    ($rows:expr, $batches:expr, $place:expr) => {
        concat!(
            "select page.key_1, page.key_2, page.is_match, entry.*
            from (
                select *
                from (select *, row_number() over () as number from (",
            $rows,
            ") as looked_at) as numbered
                where is_match or number = $1
                limit $2
            ) as page
            left join lateral (
                select ",
            entry_columns!(),
            " from ",
            $batches,
            " as found (first_leaf)
                cross join lateral (select * from ledger.batch as held where held.first_leaf = found.first_leaf offset 0) as batch
                cross join lateral (select ",
            $place,
            " as at) as place
                where place.at is not null
                limit 1
            ) as entry on page.is_match
            order by page.number"
        )
    };
}

/// Rows of a table that a lane fills, each with its entry.
macro_rules! with_entries_of_rows {
    ($rows:expr) => {
        with_entries!(
            $rows,
            "ledger.batches_of_rows(page.lane, page.key_2, page.key_2)",
            "array_position(batch.row_ids, page.key_2)"
        )
    };
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Events => "events",
            Self::Usage => "usage",
            Self::Lane(lane) => lane,
            Self::Rejects => REJECTS,
        }
    }

    /// The next lines of the source, and one more than are wanted, if there are as many.
    pub(crate) async fn fetch(
        &self,
        connection: &mut PgConnection,
        question: &TimelineQuestion,
        wanted: usize,
    ) -> Result<Fetched, sqlx::Error> {
        let after = question.cursor.after(self.name());
        let (candidates, has_more) = match self {
            Self::Events => events(connection, question, after, wanted).await?,
            Self::Usage => usage(connection, question, after, wanted).await?,
            Self::Lane(lane) => lane_entries(connection, question, (lane, after), wanted).await?,
            Self::Rejects => rejects(connection, question, after, wanted).await?,
        };
        Ok(Fetched { source: self.name().to_owned(), candidates, has_more })
    }
}

/// What was found, each at the moment that the first part of its key says, and whether the search ended before the source did.
fn candidates(found: Vec<Found>, wanted: usize, us_per_key: i64) -> (Vec<Candidate>, bool) {
    let has_more = found.len() >= wanted || found.last().is_some_and(|last| !last.is_match);
    (found.into_iter().map(|row| row.candidate(us_per_key)).collect(), has_more)
}

/// As PostgreSQL reads a `timestamp`.
fn moment(at_us: i64) -> String {
    utc(at_us).trim_end_matches('Z').to_owned()
}

async fn events(
    connection: &mut PgConnection,
    question: &TimelineQuestion,
    after: Option<Key>,
    wanted: usize,
) -> Result<(Vec<Candidate>, bool), sqlx::Error> {
    let task = match &question.task {
        Some(task) if !is_large(connection, task).await? => Some(task),
        _ => None,
    };
    // What almost all events have narrows nothing.
    let outcome = question.outcome.as_ref().filter(|outcome| *outcome != "SUCCESS" && task.is_none());
    let actor = question.actor.as_ref().filter(|_| task.is_none() && outcome.is_none());
    let [at_us, id, _] = after.unwrap_or([END_US, i64::MAX, 0]);
    let narrowed = if task.is_some() { EVENTS_OF_TASK } else { EVENTS };
    let found: Vec<Found> = sqlx::query_as(narrowed)
        .persistent(false)
        .bind(i64::try_from(SCAN_MAX).unwrap_or(i64::MAX))
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .bind(moment(at_us))
        .bind(id)
        .bind(moment(question.since_us.unwrap_or(BEGINNING_US)))
        .bind(moment(question.until_us.unwrap_or(END_US)))
        .bind(if task.is_some() { task } else { actor })
        .bind(outcome)
        .bind(&question.actor)
        .bind(&question.outcome)
        .bind(&question.task)
        .bind(&question.lane)
        .fetch_all(connection)
        .await?;
    Ok(candidates(found, wanted, 1))
}

macro_rules! events_of {
    ($table:literal, $narrowed:literal) => {
        with_entries_of_rows!(concat!(
            "select (extract(epoch from timestamp) * 1000000)::bigint as key_1, id as key_2, split_part(event_id, '-', 1) as lane,
                ($9::text is null or actor = $9) and ($10::text is null or outcome = $10) and ($11::text is null or task_id = $11)
                    and ($12::text is null or split_part(event_id, '-', 1) = $12) as is_match
            from ",
            $table,
            " where timestamp >= $5::timestamp and timestamp < $6::timestamp and (timestamp, id) < ($3::timestamp, $4) and ",
            $narrowed,
            " order by timestamp desc, id desc limit $1"
        ))
    };
}

const EVENTS: &str = events_of!(
    "public.audit_events as event",
    "($7::text is null or event.actor = $7) and ($8::text is null or event.outcome = $8)"
);

/// The range of one value makes the plan one through the index, whatever the planner thinks of the task's size.
const EVENTS_OF_TASK: &str = events_of!(
    "(select * from public.audit_events where task_id >= $7 and task_id <= $7 order by task_id limit 5001) as event",
    "$8::text is null"
);

/// Whether a task has more events than are sorted at a time.
async fn is_large(connection: &mut PgConnection, task: &str) -> Result<bool, sqlx::Error> {
    let events: i64 = sqlx::query_scalar(
        "select count(*)
        from (select from public.audit_events where task_id >= $1 and task_id <= $1 order by task_id limit $2 + 1) as event",
    )
    .persistent(false)
    .bind(task)
    .bind(TASK_EVENTS_MAX)
    .fetch_one(connection)
    .await?;
    Ok(events > TASK_EVENTS_MAX)
}

const US_PER_DAY: i64 = 86_400_000_000;

async fn usage(
    connection: &mut PgConnection,
    question: &TimelineQuestion,
    after: Option<Key>,
    wanted: usize,
) -> Result<(Vec<Candidate>, bool), sqlx::Error> {
    let [day, id, _] = after.unwrap_or([END_US.div_euclid(US_PER_DAY), i64::MAX, 0]);
    let found: Vec<Found> = sqlx::query_as(with_entries_of_rows!(
        "select (date - date '1970-01-01')::bigint as key_1, id as key_2, 'TOKENS'::text as lane, true as is_match
        from ledger.token_usage
        where (date, id) < (date '1970-01-01' + $3::integer, $4) and date >= date '1970-01-01' + $5::integer
            and date <= date '1970-01-01' + $6::integer
            and ($7::text is null or agent_name = $7) and ($8::text is null or task_id = $8)
        order by date desc, id desc
        limit $1"
    ))
    .persistent(false)
    .bind(i64::try_from(SCAN_MAX).unwrap_or(i64::MAX))
    .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
    .bind(i32::try_from(day).unwrap_or(i32::MAX / 4096))
    .bind(id)
    .bind(i32::try_from(question.since_us.unwrap_or(BEGINNING_US).div_euclid(US_PER_DAY)).unwrap_or(0))
    .bind(i32::try_from(question.until_us.unwrap_or(END_US).div_euclid(US_PER_DAY)).unwrap_or(0))
    .bind(&question.actor)
    .bind(&question.task)
    .fetch_all(connection)
    .await?;
    Ok(candidates(found, wanted, US_PER_DAY))
}

async fn rejects(
    connection: &mut PgConnection,
    question: &TimelineQuestion,
    after: Option<Key>,
    wanted: usize,
) -> Result<(Vec<Candidate>, bool), sqlx::Error> {
    let [at_us, leaf, _] = after.unwrap_or([END_US, i64::MAX, 0]);
    let found: Vec<Found> = sqlx::query_as(with_entries!(
        "select (extract(epoch from rejected_at) * 1000000)::bigint as key_1, leaf_index as key_2,
            $8::text is null or split_part(dlq_subject, '.', 3) = $8 as is_match
        from ledger.dead_letter
        where rejected_at >= $5::timestamptz and rejected_at < $6::timestamptz
            and (rejected_at, leaf_index) < ($3::timestamptz, $4)
            and ($7::text is null or split_part(dlq_subject, '.', 4) = $7)
        order by rejected_at desc, leaf_index desc
        limit $1",
        "(select max(before.first_leaf) from ledger.batch as before where before.first_leaf <= page.key_2)",
        "(page.key_2 - batch.first_leaf + 1)::integer"
    ))
    .persistent(false)
    .bind(i64::try_from(SCAN_MAX).unwrap_or(i64::MAX))
    .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
    .bind(utc(at_us))
    .bind(leaf)
    .bind(utc(question.since_us.unwrap_or(BEGINNING_US)))
    .bind(utc(question.until_us.unwrap_or(END_US)))
    // As it stands in the dead letter's subject.
    .bind(question.actor.as_deref().map(safe_token))
    .bind(&question.lane)
    .fetch_all(connection)
    .await?;
    Ok(candidates(found, wanted, 1))
}

/// A batch of a lane.
#[derive(Clone, Copy, FromRow)]
struct LaneBatch {
    first_leaf: i64,
    leaves: i32,
    began_ns: i64,
    ended_ns: i64,
}

#[derive(FromRow)]
struct LaneEntry {
    began_ns: i64,
    first_leaf: i64,
    at: i64,
    #[sqlx(flatten)]
    entry: Entry,
}

async fn lane_entries(
    connection: &mut PgConnection,
    question: &TimelineQuestion,
    (lane, after): (&str, Option<Key>),
    wanted: usize,
) -> Result<(Vec<Candidate>, bool), sqlx::Error> {
    let [began_ns, first_leaf, at] = after.unwrap_or([i64::MAX, i64::MAX, i64::MAX]);
    // Events of an audit lane have times of their own, and a filter of times asks another source for these.
    let since_ns = question.since_us.map_or(i64::MIN, |us| us.saturating_mul(1000));
    let until_ns = question.until_us.map_or(i64::MAX, |us| us.saturating_mul(1000));
    let wanted = if question.outcome.is_some() { ENTRIES_MAX.max(wanted) } else { wanted };
    let entries_max = if question.actor.is_some() { SCAN_MAX } else { wanted };
    // Each has one entry at least.
    let batches_max = entries_max.min(BATCHES_MAX) + 1;
    let batches: Vec<LaneBatch> = sqlx::query_as(
        "select first_leaf, leaves, server_times_ns[1] as began_ns, server_times_ns[leaves] as ended_ns
        from ledger.batch
        where lane = $1 and (server_times_ns[1], first_leaf) <= ($2, $3) and server_times_ns[1] < $4
        order by server_times_ns[1] desc, first_leaf desc
        limit $5",
    )
    .persistent(false)
    .bind(lane)
    .bind(began_ns)
    // A batch whose first message was shown is done.
    .bind(if at <= 1 { first_leaf - 1 } else { first_leaf })
    .bind(until_ns)
    .bind(i64::try_from(batches_max).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await?;
    let is_all = batches.len() < batches_max;
    let in_range: Vec<LaneBatch> = batches.iter().copied().take_while(|batch| batch.ended_ns >= since_ns).collect();
    let mut room = entries_max;
    let chosen: Vec<LaneBatch> = in_range
        .iter()
        .copied()
        .take_while(|batch| {
            let has_room = room > 0;
            room = room.saturating_sub(usize::try_from(batch.leaves).unwrap_or(0));
            has_room
        })
        .collect();
    let found: Vec<LaneEntry> = sqlx::query_as(concat!(
        "select wanted.began_ns, batch.first_leaf, place.at::bigint as at, ",
        entry_columns!(),
        " from unnest($1::bigint[], $2::bigint[]) with ordinality as wanted (first_leaf, began_ns, number)
        cross join lateral (select * from ledger.batch as held where held.first_leaf = wanted.first_leaf offset 0) as batch
        cross join lateral (
            select item.at::integer as at
            from unnest(batch.subjects, batch.server_times_ns, batch.dispositions)
                with ordinality as item (subject, server_time_ns, disposition, at)
            where (item.disposition = 'r' or item.disposition = 'x' and $10) and ($3::text is null or split_part(item.subject, '.', 3) = $3)
                and item.server_time_ns >= $4 and item.server_time_ns < $5
                and (wanted.began_ns, batch.first_leaf, item.at) < ($6, $7, $8)
            order by item.at desc
            limit $9
        ) as place
        order by wanted.number, place.at desc
        limit $9"
    ))
    .persistent(false)
    .bind(chosen.iter().map(|batch| batch.first_leaf).collect::<Vec<_>>())
    .bind(chosen.iter().map(|batch| batch.began_ns).collect::<Vec<_>>())
    .bind(&question.actor)
    .bind(since_ns)
    .bind(until_ns)
    .bind(began_ns)
    .bind(first_leaf)
    .bind(at)
    .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
    // Without a filter of lanes, rejects come from a source of their own.
    .bind(question.lane.is_some() && question.wants_rejects())
    .fetch_all(connection)
    .await?;
    let is_full = found.len() >= wanted;
    let mut candidates: Vec<Candidate> = found
        .into_iter()
        .map(|row| Candidate {
            key: [row.began_ns, row.first_leaf, row.at],
            at_us: row.entry.server_time_ns / 1000,
            entry: Some(row.entry),
        })
        .collect();
    let has_more = is_full || chosen.len() < in_range.len() || (!is_all && in_range.len() == batches.len());
    if let (true, false, Some(last)) = (has_more, is_full, chosen.last()) {
        // All of it was looked at.
        candidates.push(Candidate {
            key: [last.began_ns, last.first_leaf, 1],
            at_us: last.began_ns / 1000,
            entry: None,
        });
    }
    Ok((candidates, has_more))
}
