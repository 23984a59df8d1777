//! The statements on `ledger.resolution` (migration 9): decisions about dead letters. Each decision is entered once,
//! and settled once.

use crate::dead_letter::resolution::DecisionAction;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::message::{Incarnation, Position};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use std::sync::Arc;

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    pub leaf_index: i64,
    /// The decisions about it that were known: with another since, this one does not hold.
    pub rounds: i32,
    pub by: &'a str,
    pub why: Option<&'a str>,
    pub what: Proposed<'a>,
}

/// What is to happen to a dead letter.
#[derive(Clone, Copy, Debug)]
pub enum Proposed<'a> {
    Discard,
    /// It is published again.
    Requeue {
        from: &'a Position,
        /// The bytes that take the place of the original's.
        replacement: Option<&'a [u8]>,
    },
}

/// A decision that was entered.
#[derive(Clone, Debug)]
pub struct Decision {
    pub id: i64,
    pub leaf_index: i64,
    pub reference: String,
    /// The decisions about this letter, counted from 1.
    pub round: i32,
    pub by: String,
    pub why: Option<String>,
    /// When, in microseconds since 1970.
    pub decided_at_us: i64,
    /// The event that records it.
    pub event_id: String,
    /// What is to be published; nothing of what was discarded.
    pub requeue: Option<Requeue>,
}

/// A message that is to come into a stream once.
#[derive(Clone, Debug)]
pub struct Requeue {
    /// The id that nobody else can have.
    pub message_id: String,
    /// The stream's last message at the decision: this one comes later.
    pub from: Position,
    /// The bytes that take the place of the original's.
    pub replacement: Option<Vec<u8>>,
}

impl Decision {
    pub fn action(&self) -> DecisionAction {
        if self.requeue.is_some() { DecisionAction::Requeued } else { DecisionAction::Discarded }
    }
}

const COLUMNS: &str = "id, leaf_index, round, decided_by, why, (extract(epoch from decided_at) * 1000000)::bigint as decided_at_us,
    event_id, message_id, stream, stream_created_ns, after_sequence, replacement,
    (select split_part(dlq_subject, '.', 5) from ledger.dead_letter where dead_letter.leaf_index = resolution.leaf_index) as reference";

fn decision(row: &PgRow) -> Result<Decision, sqlx::Error> {
    let message_id: Option<String> = row.try_get("message_id")?;
    let requeue = message_id.map(|message_id| {
        let stream: &str = row.try_get("stream")?;
        let incarnation = Incarnation { stream: Arc::from(stream), created_ns: row.try_get("stream_created_ns")? };
        Ok::<_, sqlx::Error>(Requeue {
            message_id,
            from: Position { incarnation, sequence: row.try_get("after_sequence")? },
            replacement: row.try_get("replacement")?,
        })
    });
    Ok(Decision {
        id: row.try_get("id")?,
        leaf_index: row.try_get("leaf_index")?,
        reference: row.try_get("reference")?,
        round: row.try_get("round")?,
        by: row.try_get("decided_by")?,
        why: row.try_get("why")?,
        decided_at_us: row.try_get("decided_at_us")?,
        event_id: row.try_get("event_id")?,
        requeue: requeue.transpose()?,
    })
}

/// Enters a decision. `None`: somebody else decided since the letter was looked at.
pub async fn decide(connections: &Connections, proposal: &Proposal<'_>) -> Result<Option<Decision>, DatabaseError> {
    let (action, from, replacement) = match proposal.what {
        Proposed::Discard => (DecisionAction::Discarded, None, None),
        Proposed::Requeue { from, replacement } => (DecisionAction::Requeued, Some(from), replacement),
    };
    // Of two decisions of one millisecond, which would have one event id, the second is taken once more by its caller.
    let query = format!(
        "insert into ledger.resolution
            (leaf_index, round, action, decided_by, why, replacement, stream, stream_created_ns, after_sequence, message_id, event_id)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, case $3 when 'REQUEUED' then 'requeue-' || gen_random_uuid() end,
            ledger.unused_event_id())
        on conflict do nothing
        returning {COLUMNS}"
    );
    connections
        .run("entering a decision", async |connection| {
            let beginning = sqlx::raw_sql("begin isolation level read committed");
            beginning.execute(&mut *connection).await?;
            let row = sqlx::query(AssertSqlSafe(query))
                .bind(proposal.leaf_index)
                .bind(proposal.rounds + 1)
                .bind(action.name())
                .bind(proposal.by)
                .bind(proposal.why)
                .bind(replacement)
                .bind(from.map(|from| &*from.incarnation.stream))
                .bind(from.map(|from| from.incarnation.created_ns))
                .bind(from.map(|from| from.sequence))
                .fetch_optional(&mut *connection)
                .await?;
            // A timeout would end the wait for a synchronous standby and let the commit pass as if it had been there.
            let committing = sqlx::raw_sql("set local statement_timeout = 0; commit");
            committing.execute(&mut *connection).await?;
            row.as_ref().map(decision).transpose()
        })
        .await
}

/// The decision to requeue this letter that nobody finished.
pub async fn unfinished(connections: &Connections, leaf_index: i64) -> Result<Option<Decision>, DatabaseError> {
    let query = format!(
        "select {COLUMNS} from ledger.resolution where leaf_index = $1 and action = 'REQUEUED' and settled_at is null"
    );
    connections
        .run("looking for a decision", async |connection| {
            let query = sqlx::query(AssertSqlSafe(query)).bind(leaf_index);
            let row = query.fetch_optional(&mut *connection).await?;
            row.as_ref().map(decision).transpose()
        })
        .await
}

/// The decisions that no event records yet, `stream` being where these events are.
pub async fn unrecorded(connections: &Connections, stream: &str) -> Result<Vec<Decision>, DatabaseError> {
    let query = format!(
        "select {COLUMNS}
        from ledger.resolution
        where id not in (
            select unnest(batch.sequences) from ledger.batch join ledger.epoch using (epoch) where epoch.stream = $1
        )
        order by id"
    );
    connections
        .run("looking for decisions", async |connection| {
            let query = sqlx::query(AssertSqlSafe(query)).bind(stream);
            let rows = query.fetch_all(&mut *connection).await?;
            rows.iter().map(decision).collect::<Result<_, _>>()
        })
        .await
}

/// Where custody has the message of a requeue, which the stream may have given up since. Only one with the same bytes is it.
pub async fn arrived(
    connections: &Connections,
    message_id: &str,
    subject: &str,
    payload_sha256: &[u8],
) -> Result<Option<Position>, DatabaseError> {
    connections
        .run("looking for a requeued message", async |connection| {
            let found: Option<(String, i64, i64)> = sqlx::query_as(
                "select stream, stream_created_ns, sequence
            from ledger.entries_by_requeue($1)
            join ledger.epoch using (epoch)
            where subject = $2 and payload_sha256 = $3
            order by leaf_index
            limit 1",
            )
            .bind(message_id)
            .bind(subject)
            .bind(payload_sha256)
            .fetch_optional(&mut *connection)
            .await?;
            let position = |(stream, created_ns, sequence): (String, i64, i64)| Position {
                incarnation: Incarnation { stream: Arc::from(stream), created_ns },
                sequence,
            };
            Ok(found.map(position))
        })
        .await
}

/// Notes where the message is. Whoever comes second finds it noted.
pub async fn settle(connections: &Connections, decision: &Decision, at: &Position) -> Result<(), DatabaseError> {
    connections
        .run("settling a decision", async |connection| {
            sqlx::query(
                "update ledger.resolution
            set settled_at = clock_timestamp(), new_created_ns = $2, new_sequence = $3
            where id = $1 and settled_at is null",
            )
            .bind(decision.id)
            .bind(at.incarnation.created_ns)
            .bind(at.sequence)
            .execute(&mut *connection)
            .await?;
            Ok(())
        })
        .await
}
