//! The read-only queries of `ledgerd dlq`: the dead letters, and the state of each.

use crate::dead_letter::resolution::{DecisionOutcome, LetterState, REQUEUES_MAX, Standing};
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::message::Incarnation;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use std::sync::Arc;

/// Which dead letters are meant; those of all, where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub reason: Option<String>,
    /// The lane, as in the dead letter's subject.
    pub lane: Option<String>,
    pub actor: Option<String>,
    /// Rejected at this moment or later, in UTC.
    pub since: Option<String>,
    /// Rejected before this moment.
    pub until: Option<String>,
    pub states: Option<Vec<LetterState>>,
}

/// One dead letter in a list.
#[derive(Clone, Debug)]
pub struct LetterSummary {
    pub leaf_index: i64,
    /// Names it: the last token of its subject.
    pub reference: String,
    pub reason: String,
    pub detail: String,
    pub subject: String,
    pub sequence: i64,
    /// The id that the publisher gave it, where it could be read.
    pub record_id: Option<String>,
    /// When it was rejected.
    pub rejected_at: String,
    /// Whether it reached its subject.
    pub published: bool,
    /// Whether and how it was resolved.
    pub state: LetterState,
}

#[derive(Clone, Debug)]
pub struct Shown {
    /// As in a list.
    pub listed: LetterSummary,
    /// Where it was published as a reject.
    pub dlq_subject: String,
    pub headers: Option<Vec<u8>>,
    /// The publisher's bytes.
    pub payload: Vec<u8>,
    /// What was decided about it, in this order.
    pub resolutions: Vec<Resolved>,
}

#[derive(Clone, Debug)]
pub struct Resolved {
    /// `REQUEUED` or `DISCARDED`.
    pub action: String,
    pub by: String,
    pub why: Option<String>,
    pub decided_at: String,
    /// Other bytes that were published in place of the original.
    pub replacement: Option<Vec<u8>>,
    /// The event that records it.
    pub event_id: String,
    /// Where in the stream the new message is.
    pub sequence: Option<i64>,
    pub outcome: Option<DecisionOutcome>,
}

/// The dead letters, each with the last decision about it.
const LETTERS: &str = "
    from ledger.dead_letter as d
    left join lateral (
        select *
        from ledger.resolution
        where resolution.leaf_index = d.leaf_index
        order by round desc
        limit 1
    ) as r on true
    cross join lateral (
        select case
            when r.action is null then 'open'
            when r.action = 'DISCARDED' then 'discarded'
            when r.settled_at is null then 'unfinished'
            else 'requeued'
        end as name
    ) as state";

/// What is listed of the letters of an inner query. Custody is asked for these alone, and not for their bytes.
const COLUMNS: &str = r#"
    select d.leaf_index, split_part(d.dlq_subject, '.', 5) as reference, d.reason, d.detail, e.subject, e.sequence, e.record_id,
        to_char(d.rejected_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as rejected_at,
        d.published_at is not null as published, d.state
    from d
    cross join lateral (
        select subjects[place] as subject, sequences[place] as sequence, record_ids[place] as record_id
        from ledger.batch
        cross join lateral (select (d.leaf_index - batch.first_leaf + 1)::integer as place) as at
        where batch.first_leaf = (select max(first_leaf) from ledger.batch where first_leaf <= d.leaf_index)
            and d.leaf_index < batch.first_leaf + batch.leaves
    ) as e"#;

const MATCHING: &str = "
    where ($1::text is null or d.reason = $1)
        and ($2::text is null or split_part(d.dlq_subject, '.', 3) = $2)
        and ($3::text is null or split_part(d.dlq_subject, '.', 4) = $3)
        and ($4::text is null or d.rejected_at >= $4::timestamptz)
        and ($5::text is null or d.rejected_at < $5::timestamptz)
        and ($6::text[] is null or state.name = any($6))
        and d.leaf_index > $7
        and d.leaf_index <= $8";

/// Leaves after one and up to another.
#[derive(Clone, Copy, Debug)]
pub struct Leaves {
    pub after: i64,
    pub up_to: i64,
}

pub async fn newest(
    connections: &Connections,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<LetterSummary>, DatabaseError> {
    newest_within(connections, filter, Leaves { after: -1, up_to: i64::MAX }, limit).await
}

/// The same of a range of leaves.
pub async fn newest_within(
    connections: &Connections,
    filter: &Filter,
    leaves: Leaves,
    limit: i64,
) -> Result<Vec<LetterSummary>, DatabaseError> {
    let query = format!(
        "with d as (select d.*, state.name as state{LETTERS}{MATCHING} order by d.leaf_index desc limit $9){COLUMNS} order by d.leaf_index desc"
    );
    list(connections, query, filter, leaves, limit).await
}

/// The oldest that match: those that were published first.
pub async fn oldest(
    connections: &Connections,
    filter: &Filter,
    leaves: Leaves,
    limit: i64,
) -> Result<Vec<LetterSummary>, DatabaseError> {
    let query = format!(
        "with d as (select d.*, state.name as state{LETTERS}{MATCHING} order by d.leaf_index limit $9){COLUMNS} order by d.leaf_index"
    );
    list(connections, query, filter, leaves, limit).await
}

async fn list(
    connections: &Connections,
    query: String,
    filter: &Filter,
    leaves: Leaves,
    limit: i64,
) -> Result<Vec<LetterSummary>, DatabaseError> {
    connections
        .run("listing dead letters", async |connection| {
            let query = matching(sqlx::query(AssertSqlSafe(query)), filter, leaves).bind(limit);
            let rows = query.fetch_all(&mut *connection).await?;
            rows.iter().map(listed).collect::<Result<_, _>>()
        })
        .await
}

/// How many match, and the leaf of the newest of them.
pub async fn extent(connections: &Connections, filter: &Filter) -> Result<(i64, Leaves), DatabaseError> {
    let query = format!("select count(*), coalesce(max(d.leaf_index), -1){LETTERS}{MATCHING}");
    let all = Leaves { after: -1, up_to: i64::MAX };
    connections
        .run("counting dead letters", async |connection| {
            let query = matching(sqlx::query(AssertSqlSafe(query)), filter, all);
            let row = query.fetch_one(&mut *connection).await?;
            let read = || Ok((row.try_get(0)?, Leaves { after: -1, up_to: row.try_get(1)? }));
            read()
        })
        .await
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn matching<'q>(query: Query<'q>, filter: &'q Filter, leaves: Leaves) -> Query<'q> {
    let states = filter.states.as_ref().map(|states| states.iter().map(|state| state.name()).collect::<Vec<_>>());
    // A moment comes without an offset, and the session's time zone is UTC.
    query
        .bind(filter.reason.as_deref())
        .bind(filter.lane.as_deref())
        .bind(filter.actor.as_deref())
        .bind(filter.since.as_deref())
        .bind(filter.until.as_deref())
        .bind(states)
        .bind(leaves.after)
        .bind(leaves.up_to)
}

fn listed(row: &PgRow) -> Result<LetterSummary, sqlx::Error> {
    Ok(LetterSummary {
        leaf_index: row.try_get("leaf_index")?,
        reference: row.try_get("reference")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        subject: row.try_get("subject")?,
        sequence: row.try_get("sequence")?,
        record_id: row.try_get("record_id")?,
        rejected_at: row.try_get("rejected_at")?,
        published: row.try_get("published")?,
        state: LetterState::named(row.try_get("state")?).expect("one of the query's words"),
    })
}

/// Finds a dead letter by its reference or its whole subject.
pub async fn find(connections: &Connections, reference: &str) -> Result<Option<LetterSummary>, DatabaseError> {
    let query =
        format!(
            "with d as (
                select d.*, state.name as state{LETTERS} where d.dlq_subject = $1 or split_part(d.dlq_subject, '.', 5) = $1 limit 1
            ){COLUMNS}"
        );
    connections
        .run("looking for a dead letter", async |connection| {
            let query = sqlx::query(AssertSqlSafe(query)).bind(reference);
            let row = query.fetch_optional(&mut *connection).await?;
            row.as_ref().map(listed).transpose()
        })
        .await
}

/// The dead letter of a leaf.
pub async fn at_leaf(connections: &Connections, leaf_index: i64) -> Result<Option<LetterSummary>, DatabaseError> {
    let query = format!("with d as (select d.*, state.name as state{LETTERS} where d.leaf_index = $1){COLUMNS}");
    connections
        .run("looking for a dead letter", async |connection| {
            let query = sqlx::query(AssertSqlSafe(query)).bind(leaf_index);
            let row = query.fetch_optional(&mut *connection).await?;
            row.as_ref().map(listed).transpose()
        })
        .await
}

/// Reads the rest of a dead letter.
pub async fn show(connections: &Connections, listed: LetterSummary) -> Result<Shown, DatabaseError> {
    connections
        .run("reading a dead letter", async |connection| {
            let query = "select d.dlq_subject, e.headers, coalesce(e.payload, '') as payload
            from ledger.dead_letter as d
            cross join lateral ledger.entry_at(d.leaf_index) as e
            where d.leaf_index = $1";
            let row = sqlx::query(query).bind(listed.leaf_index).fetch_one(&mut *connection).await?;
            let resolutions = history(connection, listed.leaf_index).await?;
            let read = || {
                let (dlq_subject, headers, payload) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                Ok(Shown { listed, dlq_subject, headers, payload, resolutions })
            };
            read()
        })
        .await
}

/// What became of the message of a decision: by the place that the stream gave it.
const OUTCOME: &str = "
    left join lateral (
        select arrived.disposition, split_part(again.dlq_subject, '.', 5) as reference
        from ledger.epoch
        cross join lateral ledger.entry_by_sequence(epoch.epoch, r.new_sequence) as arrived
        left join ledger.dead_letter as again using (leaf_index)
        where epoch.stream = r.stream
            and epoch.stream_created_ns = r.new_created_ns
            and encode(ledger.requeue_id(arrived.headers), 'escape') = r.message_id
        limit 1
    ) as outcome on true";

fn outcome(disposition: Option<String>, rejected_as: Option<String>) -> DecisionOutcome {
    match (disposition, rejected_as) {
        (_, Some(reference)) => DecisionOutcome::Rejected(reference),
        (Some(_), None) => DecisionOutcome::Accepted,
        (None, None) => DecisionOutcome::Awaited,
    }
}

async fn history(connection: &mut PgConnection, leaf_index: i64) -> Result<Vec<Resolved>, sqlx::Error> {
    let query = format!(
        r#"select r.action, r.decided_by, r.why,
            to_char(r.decided_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as decided_at,
            r.replacement, r.event_id, r.new_sequence, outcome.disposition, outcome.reference
        from ledger.resolution as r
        {OUTCOME}
        where r.leaf_index = $1
        order by r.round"#
    );
    let rows = sqlx::query(AssertSqlSafe(query)).bind(leaf_index).fetch_all(connection).await?;
    let resolved = |row: &PgRow| {
        let sequence: Option<i64> = row.try_get("new_sequence")?;
        let found = outcome(row.try_get("disposition")?, row.try_get("reference")?);
        Ok(Resolved {
            action: row.try_get("action")?,
            by: row.try_get("decided_by")?,
            why: row.try_get("why")?,
            decided_at: row.try_get("decided_at")?,
            replacement: row.try_get("replacement")?,
            event_id: row.try_get("event_id")?,
            sequence,
            outcome: sequence.is_some().then_some(found),
        })
    };
    rows.iter().map(resolved).collect()
}

/// How a dead letter stands, and how it came to be.
pub async fn standing(connections: &Connections, letter: &LetterSummary) -> Result<Standing, DatabaseError> {
    connections
        .run("looking how a dead letter stands", async |connection| {
            let standing = read_standing(connection, letter.leaf_index).await?;
            Ok(standing)
        })
        .await
}

async fn read_standing(connection: &mut PgConnection, leaf_index: i64) -> Result<Standing, sqlx::Error> {
    let query = format!(
        "select d.reason, state.name, coalesce(r.round, 0), p.stream, p.stream_created_ns, r.new_created_ns, r.new_sequence,
            outcome.disposition, outcome.reference
        {LETTERS}
        cross join lateral ledger.entry_at(d.leaf_index) as e
        join ledger.epoch as p on p.epoch = e.epoch
        {OUTCOME}
        where d.leaf_index = $1"
    );
    let row = sqlx::query(AssertSqlSafe(query)).bind(leaf_index).fetch_one(&mut *connection).await?;
    let (stream, created_ns): (String, i64) = (row.try_get(3)?, row.try_get(4)?);
    let (new_created_ns, new_sequence): (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let found = outcome(row.try_get(7)?, row.try_get(8)?);
    Ok(Standing {
        state: LetterState::named(row.try_get(1)?).expect("one of the query's words"),
        rounds: row.try_get(2)?,
        reason: row.try_get(0)?,
        origins: origins(connection, leaf_index).await?,
        requeued: new_created_ns.zip(new_sequence).map(|(created_ns, sequence)| (found, created_ns, sequence)),
        // What the program records itself was in no stream, since the beginning of time.
        incarnation: (created_ns > 0).then(|| Incarnation { stream: Arc::from(stream), created_ns }),
    })
}

/// The way back: each dead letter that this one was requeued from, by the id of the message that the requeue published.
async fn origins(connection: &mut PgConnection, leaf_index: i64) -> Result<Vec<(String, String)>, sqlx::Error> {
    let query = "
        with recursive origin (leaf_index, distance) as (
            select $1::bigint, 0
            union all
            select resolution.leaf_index, distance + 1
            from origin
            cross join lateral ledger.entry_at(origin.leaf_index) as entry
            join ledger.resolution on resolution.message_id = encode(ledger.requeue_id(entry.headers), 'escape')
            where distance <= $2
        )
        select split_part(dlq_subject, '.', 5), reason
        from origin
        join ledger.dead_letter using (leaf_index)
        where distance > 0
        order by distance";
    let distance_max = i32::try_from(REQUEUES_MAX).unwrap_or(i32::MAX);
    sqlx::query_as(query).bind(leaf_index).bind(distance_max).fetch_all(connection).await
}
