//! Which rejects must still reach their subject? The queue is the part of `ledger.dead_letter` without `published_at`.

use super::connections::Connections;
use super::remedy::DatabaseError;
use crate::domain::dead_letter::{DeadLetter, epoch_key};
use crate::domain::message::{Headers, Incarnation};
use crate::outbox::Queue;
use sqlx::Row;
use std::sync::Arc;

/// The rejects that wait, over connections of their own.
#[derive(Debug)]
pub struct DeadLetterQueue(pub Connections);

impl Queue for DeadLetterQueue {
    type Letter = DeadLetter;

    async fn waiting(&self, after: i64, limit: i64) -> Result<Vec<i64>, String> {
        self.0.bounded("reading the outbox", waiting(&self.0, after, limit)).await.map_err(|error| error.to_string())
    }

    async fn read(&self, leaf_index: i64) -> Result<DeadLetter, String> {
        self.0
            .bounded("reading a dead letter", dead_letter(&self.0, leaf_index))
            .await
            .map_err(|error| error.to_string())
    }

    async fn mark(&self, letter: &DeadLetter) -> Result<(), String> {
        self.0
            .bounded("marking a dead letter", mark_published(&self.0, letter))
            .await
            .map_err(|error| error.to_string())
    }
}

async fn waiting(connections: &Connections, after: i64, limit: i64) -> Result<Vec<i64>, DatabaseError> {
    let mut lease = connections.lease().await?;
    let leaves = sqlx::query_scalar(
        "select leaf_index from ledger.dead_letter where published_at is null and leaf_index > $1 order by leaf_index limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *lease)
    .await
    .map_err(DatabaseError::new)?;
    lease.keep();
    Ok(leaves)
}

/// One reject, whole: its payload may be large, so they are read one at a time.
pub async fn dead_letter(connections: &Connections, leaf_index: i64) -> Result<DeadLetter, DatabaseError> {
    let mut lease = connections.lease().await?;
    let row = sqlx::query(
        "select d.dlq_subject, d.reason, d.detail, (extract(epoch from d.rejected_at) * 1000000)::bigint * 1000 as rejected_at_ns,
            p.stream, p.stream_created_ns, p.regressions, e.sequence, e.subject, e.server_time_ns, e.headers, e.payload
        from ledger.dead_letter as d
        join ledger.entry as e using (leaf_index)
        join ledger.epoch as p using (epoch)
        where d.leaf_index = $1",
    )
    .bind(leaf_index)
    .fetch_one(&mut *lease)
    .await
    .map_err(DatabaseError::new)?;
    lease.keep();
    of_row(leaf_index, &row).map_err(DatabaseError::new)
}

fn of_row(leaf_index: i64, row: &sqlx::postgres::PgRow) -> Result<DeadLetter, sqlx::Error> {
    let stream: String = row.try_get("stream")?;
    let incarnation = Incarnation { stream: Arc::from(stream.as_str()), created_ns: row.try_get("stream_created_ns")? };
    Ok(DeadLetter {
        leaf_index,
        dlq_subject: row.try_get("dlq_subject")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        stream,
        epoch: epoch_key(&incarnation, row.try_get("regressions")?),
        sequence: row.try_get("sequence")?,
        subject: row.try_get("subject")?,
        server_time_ns: row.try_get("server_time_ns")?,
        rejected_at_ns: row.try_get("rejected_at_ns")?,
        headers: Headers::from_stored(row.try_get("headers")?),
        payload: row.try_get::<Option<Vec<u8>>, _>("payload")?.unwrap_or_default(),
    })
}

/// Another instance may have marked it already. The subject tells it from a letter of another database, to which a reload
/// has moved the connections in the meantime.
async fn mark_published(connections: &Connections, letter: &DeadLetter) -> Result<(), DatabaseError> {
    let mut lease = connections.lease().await?;
    sqlx::query(
        "update ledger.dead_letter set published_at = current_timestamp
        where leaf_index = $1 and dlq_subject = $2 and published_at is null",
    )
    .bind(letter.leaf_index)
    .bind(&letter.dlq_subject)
    .execute(&mut *lease)
    .await
    .map_err(DatabaseError::new)?;
    lease.keep();
    Ok(())
}
