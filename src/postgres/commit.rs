//! What does a commit write? One transaction: the projections, then the lock on the tree's head, then the custody entries
//! with their leaf indexes, the complete subtrees and the new head, and the dead letters.
//!
//! The head is locked as late as possible: from there to the commit, nobody else commits. A message that is stored already
//! is recognised by epoch and sequence before anything is written, so a commit whose answer was lost is simply tried again.

use super::budget::{self, Changes, News};
use super::custody::{self, Appended, Fate};
use super::epochs::{self, Epoch};
use super::failure::Failure;
use super::projection::{self, Placed};
use super::remedy::DatabaseError;
use crate::domain::budget::Budget;
use crate::domain::leaf::payload_sha256;
use crate::domain::message::Incarnation;
use crate::domain::record::Record;
use crate::domain::reject::Reason;
use crate::domain::rules::Verdict;
use crate::lifecycle::{Judged, References, Tally};
use sqlx::PgConnection;
use std::collections::HashMap;

/// What a commit did.
pub(super) struct Committed {
    /// What became of each of its rows, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// Budget alerts that it raised.
    pub(super) alerts: u64,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An earlier commit stored it.
    Known,
    Recorded,
    Duplicate,
    Rejected(Reason),
}

impl Outcome {
    fn of(fate: &Fate<'_>) -> Self {
        match fate {
            Fate::Recorded { .. } => Outcome::Recorded,
            Fate::Duplicate => Outcome::Duplicate,
            Fate::Rejected(rejection) => Outcome::Rejected(rejection.reason()),
        }
    }
}

/// Counts them.
pub(super) fn tally(outcomes: impl IntoIterator<Item = Outcome>) -> Tally {
    let mut tally = Tally::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Known => tally.known += 1,
            Outcome::Recorded => tally.recorded += 1,
            Outcome::Duplicate => tally.duplicates += 1,
            Outcome::Rejected(reason) => *tally.rejected.entry(reason).or_default() += 1,
        }
    }
    tally
}

/// Commits rows of one incarnation of a stream.
pub(super) async fn commit(
    connection: &mut PgConnection,
    rows: &[&Judged],
    references: References,
    budget: (&Budget, News),
) -> Result<Committed, Failure> {
    let Some(first) = rows.first() else { return Ok(Committed { outcomes: Vec::new(), alerts: 0 }) };
    let incarnation = &first.message.incarnation;
    debug_assert!(rows.iter().all(|row| row.message.incarnation == *incarnation), "one take has one incarnation");
    let mut committed = Committed { outcomes: vec![Outcome::Known; rows.len()], alerts: 0 };
    for positions in generations(rows) {
        let generation: Vec<&Judged> = positions.iter().map(|&position| rows[position]).collect();
        let Committed { outcomes, alerts } = commit_generation(connection, &generation, references, budget).await?;
        committed.alerts += alerts;
        for (position, outcome) in positions.into_iter().zip(outcomes) {
            committed.outcomes[position] = outcome;
        }
    }
    Ok(committed)
}

/// The positions of rows that may share a transaction. A stream that went back to an older copy of itself gives its last sequences
/// again; what was held before, and what came since, are then of two epochs, the older message of the earlier one. All other rows
/// are in the first generation, and there is hardly ever another. A message that stands twice is in once: a client that was frozen
/// for a while finds it and its redelivery in one batch.
fn generations(rows: &[&Judged]) -> Vec<Vec<usize>> {
    let mut by_sequence: Vec<usize> = (0..rows.len()).collect();
    by_sequence.sort_by_key(|&position| (rows[position].message.sequence, rows[position].message.server_time_ns));
    let mut generations = vec![Vec::with_capacity(rows.len())];
    let (mut generation, mut before) = (0, None::<usize>);
    for position in by_sequence {
        generation = match before {
            Some(before) if is_same_message(rows[before], rows[position]) => continue,
            Some(before) if rows[before].message.sequence == rows[position].message.sequence => generation + 1,
            _ => 0,
        };
        if generations.len() == generation {
            generations.push(Vec::new());
        }
        generations[generation].push(position);
        before = Some(position);
    }
    for positions in &mut generations {
        positions.sort_unstable();
    }
    generations
}

fn is_same_message(one: &Judged, other: &Judged) -> bool {
    let place = |judged: &Judged| (judged.message.sequence, judged.message.server_time_ns);
    place(one) == place(other) && one.message.payload == other.message.payload
}

/// One transaction. No two of its messages share a sequence.
async fn commit_generation(
    connection: &mut PgConnection,
    rows: &[&Judged],
    references: References,
    (budget, news): (&Budget, News),
) -> Result<Committed, Failure> {
    let incarnation = &rows[0].message.incarnation;
    loop {
        sqlx::raw_sql("begin isolation level read committed").execute(&mut *connection).await?;
        let (epoch, fresh) = match not_stored_yet(connection, incarnation, rows).await? {
            Custody::Fresh(epoch, fresh) => (epoch, fresh),
            Custody::NoEpoch => {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                epochs::of(connection, incarnation).await?;
                continue;
            }
            Custody::SequenceReused(epoch) => {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                epochs::open_after(connection, incarnation, epoch).await?;
                continue;
            }
        };
        let mut alerts = 0;
        let mut outcomes = vec![Outcome::Known; rows.len()];
        if fresh.is_empty() {
            // These rows may be on this server's disk alone, their commit having been cut short while it waited for a
            // synchronous standby. A record in the log makes this commit wait for it.
            sqlx::query("select pg_logical_emit_message(true, 'ledgerd', '')").execute(&mut *connection).await?;
        } else {
            let positions = fresh;
            let fresh: Vec<&Judged> = positions.iter().map(|&position| rows[position]).collect();
            let fates = project(connection, &fresh, references).await?;
            let head = custody::lock_head(connection).await?;
            alerts = budget::settle(connection, &changes(&fresh, &fates), budget, news).await?;
            if let Appended::EpochIsOver = custody::append(connection, head, epoch, &fresh, &fates).await? {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                continue;
            }
            for (position, fate) in positions.into_iter().zip(&fates) {
                outcomes[position] = Outcome::of(fate);
            }
        }
        // A timeout would end the wait for a synchronous standby and let the commit pass as if it had been there.
        sqlx::raw_sql("set local statement_timeout = 0; commit").execute(&mut *connection).await?;
        return Ok(Committed { outcomes, alerts });
    }
}

enum Custody {
    /// The newest epoch, and the positions of the rows that are not stored yet.
    Fresh(Epoch, Vec<usize>),
    /// The incarnation has no epoch yet.
    NoEpoch,
    /// A sequence of the newest epoch belongs to another message.
    SequenceReused(Epoch),
}

/// An epoch, and one of the messages that it has stored: sequence, time and digest.
type StoredMessage = (i32, i32, Option<i64>, Option<i64>, Option<Vec<u8>>);

/// Leaves out what earlier commits stored.
async fn not_stored_yet(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
    rows: &[&Judged],
) -> Result<Custody, sqlx::Error> {
    let sequences: Vec<i64> = rows.iter().map(|row| row.message.sequence).collect();
    // Epochs come out even if they have stored none of these. `offset 0` keeps the planner from turning the search around: a plan
    // that was made while the table was empty would read all of an epoch for ever after.
    let stored: Vec<StoredMessage> = sqlx::query_as(
        "select epoch.epoch, regressions, stored.sequence, stored.server_time_ns, stored.payload_sha256
        from ledger.epoch
        left join lateral (
            select entry.*
            from unnest($3::bigint[]) as wanted (sequence)
            cross join lateral (
                select sequence, server_time_ns, payload_sha256
                from ledger.entry
                where entry.epoch = epoch.epoch and entry.sequence = wanted.sequence
                offset 0
            ) as entry
        ) as stored on true
        where stream = $1 and stream_created_ns = $2",
    )
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .bind(&sequences)
    .fetch_all(connection)
    .await?;
    let newest = stored.iter().map(|(number, regressions, ..)| Epoch { number: *number, regressions: *regressions });
    let Some(newest) = newest.max_by_key(|epoch| epoch.regressions) else { return Ok(Custody::NoEpoch) };
    let mut by_sequence: HashMap<i64, Vec<(i32, i64, Vec<u8>)>> = HashMap::new();
    for message in stored {
        if let (epoch, _, Some(sequence), Some(time), Some(digest)) = message {
            by_sequence.entry(sequence).or_default().push((epoch, time, digest));
        }
    }
    let mut fresh = Vec::with_capacity(rows.len());
    for (position, row) in rows.iter().enumerate() {
        let Some(candidates) = by_sequence.get(&row.message.sequence) else {
            fresh.push(position);
            continue;
        };
        let digest = payload_sha256(&row.message);
        let is_same =
            |(_, time, stored): &(i32, i64, Vec<u8>)| *time == row.message.server_time_ns && stored[..] == digest;
        if candidates.iter().any(is_same) {
            continue;
        }
        if candidates.iter().any(|(epoch, ..)| *epoch == newest.number) {
            return Ok(Custody::SequenceReused(newest));
        }
        fresh.push(position);
    }
    Ok(Custody::Fresh(newest, fresh))
}

pub(super) fn records_of<'a>(rows: &[&'a Judged]) -> Vec<&'a Record> {
    rows.iter()
        .filter_map(|row| match &row.verdict {
            Verdict::Record(record) => Some(record),
            Verdict::Reject { .. } => None,
        })
        .collect()
}

/// Writes the projections, and so learns each message's fate.
pub(super) async fn project<'a>(
    connection: &mut PgConnection,
    rows: &[&'a Judged],
    references: References,
) -> Result<Vec<Fate<'a>>, Failure> {
    let placed = projection::place(connection, &records_of(rows), references).await?;
    let mut placed = placed.into_iter();
    rows.iter()
        .map(|row| match &row.verdict {
            Verdict::Reject { rejection, .. } => Ok(Fate::Rejected(std::borrow::Cow::Borrowed(rejection))),
            Verdict::Record(record) => match placed.next().expect("one place for each record") {
                Some(Placed::New(row_id)) => Ok(Fate::Recorded { row_id }),
                Some(Placed::Same) => Ok(Fate::Duplicate),
                Some(Placed::Refused(rejection)) => Ok(Fate::Rejected(std::borrow::Cow::Owned(rejection))),
                None => Err(Failure::of_custody(DatabaseError::of_the_world(format!(
                    "the row of {} came and went during the commit",
                    record.id()
                )))),
            },
        })
        .collect()
}

fn changes(rows: &[&Judged], fates: &[Fate<'_>]) -> Changes {
    let mut changes = Changes::default();
    for (row, fate) in rows.iter().zip(fates) {
        if let (Verdict::Record(record), Fate::Recorded { row_id }) = (&row.verdict, fate) {
            changes.note(record, *row_id);
        }
    }
    changes
}
