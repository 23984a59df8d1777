//! Which sequences of a stream does custody hold, and which are missing? Questions by epoch and sequence, and the proofs that
//! nothing is missing.

use super::connections::Connections;
use super::epochs;
use super::remedy::DatabaseError;
use crate::domain::leaf::payload_sha256;
use crate::domain::message::{Incarnation, Message};
use crate::domain::rules::Verdict;
use crate::domain::sequences::{Span, Spans};
use crate::lifecycle::{Judged, References, Remedy, Store, StoreError, Tally};
use sqlx::{FromRow, PgConnection};
use std::sync::Arc;

/// One epoch of a stream, and how far it was proven.
#[derive(Clone, Debug, FromRow)]
pub struct HeldEpoch {
    /// As the database numbers it.
    #[sqlx(rename = "epoch")]
    pub number: i32,
    /// When the stream was made.
    pub stream_created_ns: i64,
    /// How often that incarnation went back.
    pub regressions: i32,
    /// The first sequence that custody has of it.
    pub first: Option<i64>,
    /// The last.
    pub last: Option<i64>,
    /// Everything up to this sequence is proven.
    pub proven: Option<i64>,
}

/// What became of every sequence of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The epoch.
    pub epoch: i32,
    /// The range.
    pub span: Span,
    /// Sequences with an entry in custody.
    pub entries: i64,
    /// Sequences that the stream has lost at its beginning.
    pub expired: i64,
    /// Sequences that were removed from between others.
    pub deleted: i64,
    /// Sequences of messages on no served lane.
    pub on_no_lane: i64,
}

/// Sequences of one statement: a page of the key's index.
const PAGE: i64 = 100_000;

/// All epochs of a stream, the oldest first.
pub async fn epochs(connections: &Connections, stream: &str) -> Result<Vec<HeldEpoch>, DatabaseError> {
    let reading = async {
        let mut lease = connections.lease().await?;
        let epochs = sqlx::query_as(
            "select p.epoch, p.stream_created_ns, p.regressions,
                (select min(sequence) from ledger.entry as e where e.epoch = p.epoch) as first,
                (select max(sequence) from ledger.entry as e where e.epoch = p.epoch) as last,
                (select max(last_sequence) from ledger.reconciled as r where r.epoch = p.epoch) as proven
            from ledger.epoch as p
            where p.stream = $1
            order by p.epoch",
        )
        .bind(stream)
        .fetch_all(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(epochs)
    };
    connections.bounded("reading the epochs", reading).await
}

/// The sequences of a range that none of these epochs has. `looked` hears how far it has come.
pub async fn gaps(
    connections: &Connections,
    epochs: &[i32],
    span: Span,
    mut looked: impl FnMut(i64),
) -> Result<Spans, DatabaseError> {
    let mut gaps: Spans = [span].into_iter().collect();
    for &epoch in epochs {
        let mut missing = Spans::default();
        for gap in gaps.iter() {
            let mut rest = Some(gap);
            while let Some(span) = rest {
                let page = page(connections, epoch, span).await?;
                looked(page.last);
                missing.add_all(&page.missing);
                rest = Span::new(page.last + 1, span.last());
            }
        }
        gaps = missing;
    }
    Ok(gaps)
}

struct Page {
    last: i64,
    missing: Spans,
}

/// What an epoch lacks from the beginning of a range on, up to its end or that of the page.
async fn page(connections: &Connections, epoch: i32, span: Span) -> Result<Page, DatabaseError> {
    let reading = async {
        let mut lease = connections.lease().await?;
        let (count, last, firsts, lasts): (i64, Option<i64>, Vec<i64>, Vec<i64>) = sqlx::query_as(
            "with
            page as (
                select sequence
                from ledger.entry
                where epoch = $1 and sequence between $2 and $3
                order by sequence
                limit $4
            ),
            neighbours as (
                select sequence, lag(sequence, 1, $2 - 1) over (order by sequence) as before
                from page
            )
            select count(*), max(sequence),
                coalesce(array_agg(before + 1 order by sequence) filter (where sequence > before + 1), '{}'),
                coalesce(array_agg(sequence - 1 order by sequence) filter (where sequence > before + 1), '{}')
            from neighbours",
        )
        .bind(epoch)
        .bind(span.first())
        .bind(span.last())
        .bind(PAGE)
        .fetch_one(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        let mut missing: Spans =
            firsts.into_iter().zip(lasts).filter_map(|(first, last)| Span::new(first, last)).collect();
        // A full page says nothing of what comes after it.
        let last = last.filter(|_| count == PAGE).unwrap_or_else(|| {
            let after = last.map_or(span.first(), |last| last + 1);
            if let Some(tail) = Span::new(after, span.last()) {
                missing.add(tail);
            }
            span.last()
        });
        Ok(Page { last, missing })
    };
    connections.bounded("looking for gaps", reading).await
}

/// The highest sequence up to this one that one of these epochs has.
pub async fn highest(connections: &Connections, epochs: &[i32], through: i64) -> Result<Option<i64>, DatabaseError> {
    let reading = async {
        let mut lease = connections.lease().await?;
        let highest = sqlx::query_scalar(
            "select max(highest)
            from unnest($1::integer[]) as wanted (epoch)
            cross join lateral (
                select max(sequence) as highest from ledger.entry as e where e.epoch = wanted.epoch and e.sequence <= $2
            ) as found",
        )
        .bind(epochs)
        .bind(through)
        .fetch_one(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(highest)
    };
    connections.bounded("looking for the last entry", reading).await
}

/// What custody says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It has this very message.
    Same,
    /// It has another one of this sequence.
    Other,
    /// It has none of this sequence.
    Nothing,
}

/// Compares a message with what these epochs have of its sequence.
pub async fn compare(connections: &Connections, epochs: &[i32], message: &Message) -> Result<Held, DatabaseError> {
    let reading = async {
        let mut lease = connections.lease().await?;
        let same: Option<bool> = sqlx::query_scalar(
            "select bool_or(server_time_ns = $3 and payload_sha256 = $4)
            from ledger.entry
            where epoch = any($1) and sequence = $2",
        )
        .bind(epochs)
        .bind(message.sequence)
        .bind(message.server_time_ns)
        .bind(&payload_sha256(message)[..])
        .fetch_one(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(match same {
            Some(true) => Held::Same,
            Some(false) => Held::Other,
            None => Held::Nothing,
        })
    };
    connections.bounded("comparing a message", reading).await
}

/// Whether one of these epochs has each of these messages.
pub async fn are_held(
    connections: &Connections,
    epochs: &[i32],
    messages: &[Message],
) -> Result<Vec<bool>, DatabaseError> {
    let reading = async {
        let mut lease = connections.lease().await?;
        let messages: Vec<&Message> = messages.iter().collect();
        let held = known(&mut lease, epochs, &messages).await.map_err(DatabaseError::new)?;
        lease.keep();
        Ok(held)
    };
    connections.bounded("comparing messages", reading).await
}

async fn known(connection: &mut PgConnection, epochs: &[i32], messages: &[&Message]) -> Result<Vec<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (
            select
            from ledger.entry as e
            where e.epoch = any($1) and e.sequence = read.sequence and e.server_time_ns = read.server_time_ns
                and e.payload_sha256 = read.payload_sha256
        )
        from unnest($2::bigint[], $3::bigint[], $4::bytea[])
            with ordinality as read (sequence, server_time_ns, payload_sha256, position)
        order by position",
    )
    .bind(epochs)
    .bind(messages.iter().map(|message| message.sequence).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.server_time_ns).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| payload_sha256(message).to_vec()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
}

/// Keeps a proof. The same range may be proven again.
pub async fn keep(connections: &Connections, proof: &Proof) -> Result<(), DatabaseError> {
    let writing = async {
        let mut lease = connections.lease().await?;
        sqlx::query(
            "insert into ledger.reconciled
                (epoch, first_sequence, last_sequence, entries, expired, deleted, on_no_lane)
            values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (epoch, last_sequence) do nothing",
        )
        .bind(proof.epoch)
        .bind(proof.span.first())
        .bind(proof.span.last())
        .bind(proof.entries)
        .bind(proof.expired)
        .bind(proof.deleted)
        .bind(proof.on_no_lane)
        .execute(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(())
    };
    connections.bounded("keeping a proof", writing).await
}

/// Whether a registry is empty without which every use of a tool would be rejected.
pub async fn is_a_registry_empty(connections: &Connections) -> Result<bool, DatabaseError> {
    let reading = async {
        let mut lease = connections.lease().await?;
        let is_empty = sqlx::query_scalar(
            "select not exists (select from ledger.known_agent) or not exists (select from ledger.known_tool)",
        )
        .fetch_one(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(is_empty)
    };
    connections.bounded("looking into the registries", reading).await
}

/// A store that only looks: what it would do with a message is said, and nothing is done.
#[derive(Debug)]
pub struct OnlyLooking(pub Connections);

impl Store for OnlyLooking {
    async fn commit(&self, rows: &Arc<Vec<Judged>>, _: References) -> Result<Tally, StoreError> {
        let Some(first) = rows.first() else { return Ok(Tally::default()) };
        let known = self.known(&first.message.incarnation, rows).await;
        let known = known.map_err(|error| StoreError { remedy: Remedy::Retry, what: error.to_string() })?;
        let mut tally = Tally::default();
        for (row, is_known) in rows.iter().zip(known) {
            match &row.verdict {
                _ if is_known => tally.known += 1,
                Verdict::Record(_) => tally.recorded += 1,
                Verdict::Reject { rejection, .. } => *tally.rejected.entry(rejection.reason()).or_default() += 1,
            }
        }
        Ok(tally)
    }
}

impl OnlyLooking {
    /// Whether each of these messages is stored.
    async fn known(&self, incarnation: &Incarnation, rows: &[Judged]) -> Result<Vec<bool>, DatabaseError> {
        let reading = async {
            let mut lease = self.0.lease().await?;
            let epochs = epochs::known(&mut lease, incarnation).await.map_err(DatabaseError::new)?;
            let epochs: Vec<i32> = epochs.iter().map(|epoch| epoch.number).collect();
            let messages: Vec<&Message> = rows.iter().map(|row| &row.message).collect();
            let known = known(&mut lease, &epochs, &messages).await.map_err(DatabaseError::new)?;
            lease.keep();
            Ok(known)
        };
        self.0.bounded("looking for messages", reading).await
    }
}
