//! Coverage of a stream: the sequences in custody and the missing ones, by epoch and sequence. This includes the proofs
//! that nothing is missing.

use crate::ingest::epochs;
use crate::ingest::lifecycle::{Judged, References, Remedy, Store, StoreError, Tally};
use crate::ingest::position::SequenceMatch;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::leaf::payload_sha256;
use crate::record::message::{Incarnation, Message};
use crate::record::sequences::{Span, Spans};
use crate::record::verdict::Verdict;
use sqlx::{FromRow, PgConnection};
use std::sync::Arc;

/// One epoch of a stream, and how far it was proven.
#[derive(Clone, Debug, FromRow)]
pub struct CoveredEpoch {
    /// As the database numbers it.
    #[sqlx(rename = "epoch")]
    pub number: i32,
    /// When the stream was made.
    pub stream_created_ns: i64,
    /// How often that incarnation went back.
    pub regressions: i32,
    /// The first sequence that custody has of it.
    pub first: Option<i64>,
    pub last: Option<i64>,
    /// Everything up to this sequence is proven.
    pub proven: Option<i64>,
}

/// What became of every sequence of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub epoch: i32,
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

/// Sequences of one statement.
const PAGE: i64 = 100_000;

/// All epochs of a stream, the oldest first.
pub async fn epochs(connections: &Connections, stream: &str) -> Result<Vec<CoveredEpoch>, DatabaseError> {
    connections
        .run("reading the epochs", async |connection| {
            let epochs = sqlx::query_as(
                "select p.epoch, p.stream_created_ns, p.regressions,
                covered.first, covered.last,
                (select max(last_sequence) from ledger.reconciled as r where r.epoch = p.epoch) as proven
            from ledger.epoch as p
            cross join lateral (
                select min(lowest.first_sequence) as first, max(highest.last_sequence) as last
                from ledger.layers_of(p.epoch) as known
                cross join lateral (
                    select first_sequence from ledger.batch as b
                    where b.epoch = p.epoch and b.lane = known.lane and b.layer = known.layer
                    order by first_sequence limit 1
                ) as lowest
                cross join lateral (
                    select last_sequence from ledger.batch as b
                    where b.epoch = p.epoch and b.lane = known.lane and b.layer = known.layer
                    order by first_sequence desc limit 1
                ) as highest
            ) as covered
            where p.stream = $1
            order by p.epoch",
            )
            .bind(stream)
            .fetch_all(&mut *connection)
            .await?;
            Ok(epochs)
        })
        .await
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
                let page = first_page(span);
                missing.add_all(&missing_of(connections, epoch, page).await?);
                looked(page.last());
                rest = Span::new(page.last() + 1, span.last());
            }
        }
        gaps = missing;
    }
    Ok(gaps)
}

/// The beginning of a range, as much as one statement looks at.
fn first_page(span: Span) -> Span {
    Span::new(span.first(), span.last().min(span.first().saturating_add(PAGE - 1))).unwrap_or(span)
}

/// What an epoch lacks of a range.
async fn missing_of(connections: &Connections, epoch: i32, span: Span) -> Result<Spans, DatabaseError> {
    connections
        .run("looking for gaps", async |connection| {
            let (last, firsts, lasts): (Option<i64>, Vec<i64>, Vec<i64>) = sqlx::query_as(
                "with
            covered as (
                select covered.sequence
                from ledger.batches_of_epoch($1, $2, $3) as place (first_leaf)
                cross join lateral (
                    select sequences from ledger.batch where batch.first_leaf = place.first_leaf offset 0
                ) as batch
                cross join lateral unnest(batch.sequences) as covered (sequence)
                where covered.sequence between $2 and $3
            ),
            neighbours as (
                select sequence, lag(sequence, 1, $2 - 1) over (order by sequence) as before
                from covered
            )
            select max(sequence),
                coalesce(array_agg(before + 1 order by sequence) filter (where sequence > before + 1), '{}'),
                coalesce(array_agg(sequence - 1 order by sequence) filter (where sequence > before + 1), '{}')
            from neighbours",
            )
            .bind(epoch)
            .bind(span.first())
            .bind(span.last())
            .fetch_one(&mut *connection)
            .await?;
            let mut missing: Spans =
                firsts.into_iter().zip(lasts).filter_map(|(first, last)| Span::new(first, last)).collect();
            if let Some(tail) = Span::new(last.map_or(span.first(), |last| last + 1), span.last()) {
                missing.add(tail);
            }
            Ok(missing)
        })
        .await
}

/// The highest sequence up to this one that one of these epochs has.
pub async fn highest(connections: &Connections, epochs: &[i32], through: i64) -> Result<Option<i64>, DatabaseError> {
    connections.run("looking for the last entry", async |connection| {
        let highest = sqlx::query_scalar(
            "select max(covered.sequence)
            from unnest($1::integer[]) as wanted (epoch)
            cross join lateral ledger.layers_of(wanted.epoch) as known
            cross join lateral (
                select sequences from ledger.batch as b
                where b.epoch = wanted.epoch and b.lane = known.lane and b.layer = known.layer and b.first_sequence <= $2
                order by first_sequence desc limit 1
            ) as last
            cross join lateral unnest(last.sequences) as covered (sequence)
            where covered.sequence <= $2",
        )
        .bind(epochs)
        .bind(through)
        .fetch_one(&mut *connection)
        .await?;
        Ok(highest)
    }).await
}

/// Compares a message with what these epochs have of its sequence.
pub async fn compare(
    connections: &Connections,
    epochs: &[i32],
    message: &Message,
) -> Result<SequenceMatch, DatabaseError> {
    connections
        .run("comparing a message", async |connection| {
            let same: Option<bool> = sqlx::query_scalar(
                "select bool_or(entry.server_time_ns = $3 and coalesce(entry.payload_sha256 = $4, false))
            from unnest($1::integer[]) as wanted (epoch)
            cross join lateral ledger.entry_by_sequence(wanted.epoch, $2) as entry",
            )
            .bind(epochs)
            .bind(message.sequence)
            .bind(message.server_time_ns)
            .bind(&payload_sha256(message)[..])
            .fetch_one(&mut *connection)
            .await?;
            Ok(match same {
                Some(true) => SequenceMatch::Same,
                Some(false) => SequenceMatch::Other,
                None => SequenceMatch::Nothing,
            })
        })
        .await
}

/// Whether one of these epochs has each of these messages.
pub async fn are_covered(
    connections: &Connections,
    epochs: &[i32],
    messages: &[Message],
) -> Result<Vec<bool>, DatabaseError> {
    connections
        .run("comparing messages", async |connection| {
            let messages: Vec<&Message> = messages.iter().collect();
            let covered = known(connection, epochs, &messages).await?;
            Ok(covered)
        })
        .await
}

async fn known(connection: &mut PgConnection, epochs: &[i32], messages: &[&Message]) -> Result<Vec<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "with covered as (
            select entry.sequence, entry.server_time_ns, entry.payload_sha256
            from unnest($1::integer[]) as wanted (epoch)
            cross join lateral ledger.batches_holding(wanted.epoch, $2) as place (first_leaf)
            cross join lateral (select * from ledger.entry where entry.first_leaf = place.first_leaf offset 0) as entry
            where entry.sequence in (select unnest($2)) and entry.payload_sha256 is not null
        )
        select (sequence, server_time_ns, payload_sha256) in (select sequence, server_time_ns, payload_sha256 from covered)
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
    connections
        .run("keeping a proof", async |connection| {
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
            .execute(&mut *connection)
            .await?;
            Ok(())
        })
        .await
}

/// Whether a registry is empty without which every use of a tool would be rejected.
pub async fn is_a_registry_empty(connections: &Connections) -> Result<bool, DatabaseError> {
    connections
        .run("looking into the registries", async |connection| {
            let is_empty = sqlx::query_scalar(
                "select not exists (select from ledger.known_agent) or not exists (select from ledger.known_tool)",
            )
            .fetch_one(&mut *connection)
            .await?;
            Ok(is_empty)
        })
        .await
}

/// A store that only looks: what it would do with a message is said, and nothing is done.
#[derive(Debug)]
pub struct DryRun(pub Connections);

impl Store for DryRun {
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

impl DryRun {
    /// Whether each of these messages is stored.
    async fn known(&self, incarnation: &Incarnation, rows: &[Judged]) -> Result<Vec<bool>, DatabaseError> {
        self.0
            .run("looking for messages", async |connection| {
                let epochs = epochs::known(connection, incarnation).await?;
                let epochs: Vec<i32> = epochs.iter().map(|epoch| epoch.number).collect();
                let messages: Vec<&Message> = rows.iter().map(|row| &row.message).collect();
                let known = known(connection, &epochs, &messages).await?;
                Ok(known)
            })
            .await
    }
}
