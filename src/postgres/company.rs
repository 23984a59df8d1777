//! Who commits together? Batches that wait for a connection at the same time, as far as they may share a transaction.

use crate::domain::rules::Verdict;
use crate::domain::subject::Table;
use crate::lifecycle::{Judged, References, StoreError, Tally};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Rows of one transaction at most, unless a single batch has more.
const PARTY_ROWS_MAX: usize = 1_000;
/// And bytes of their payloads.
const PARTY_BYTES_MAX: usize = 1024 * 1024;

/// Batches that wait for a connection.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    joined: u64,
    waiting: VecDeque<Waiting>,
}

/// A batch that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    number: u64,
    pub(super) rows: Arc<Vec<Judged>>,
    pub(super) references: References,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

/// What became of a batch that waited.
#[derive(Debug)]
pub(super) enum Answer {
    /// Its commit was made, or failed for a reason of its own.
    Settled(Result<Tally, StoreError>),
    /// It was committed with others, and that failed: it is unknown whether it was stored, and by itself it may fare better.
    Alone,
}

impl Waiting {
    /// Gives the rows back, and says what became of them.
    pub(super) fn answer(self, answer: Answer) {
        let Self { rows, answer: caller, .. } = self;
        // Before its owner hears of it, who then need not copy them to change them.
        drop(rows);
        // Who does not wait any more learns it from a redelivery.
        let _ = caller.send(answer);
    }

    /// Whether both may be in one transaction. Usage and metrics may not: in one transaction usage is written first, and refers to
    /// metrics that it would not find.
    fn goes_with(&self, other: &Self) -> bool {
        let incarnation = |one: &Self| one.rows.first().map(|row| row.message.incarnation.clone());
        self.has_events_alone() && other.has_events_alone() && incarnation(self) == incarnation(other)
    }

    fn has_events_alone(&self) -> bool {
        self.rows.iter().all(|row| match &row.verdict {
            Verdict::Record(record) => record.table() == Table::AuditEvents,
            Verdict::Reject { .. } => true,
        })
    }
}

impl Queue {
    /// Waits in line, until the place is dropped or withdrawn, or the rows are taken along by somebody.
    pub(super) fn join(&self, rows: &Arc<Vec<Judged>>, references: References) -> Place<'_> {
        let (sender, answer) = oneshot::channel();
        let bytes = rows.iter().map(|row| row.message.payload.len()).sum();
        let mut line = self.lock();
        line.joined += 1;
        let number = line.joined;
        line.waiting.push_back(Waiting { number, rows: rows.clone(), references, bytes, answer: sender });
        Place { queue: self, number, answer }
    }

    /// The first in line, and all that may go with it. Empty if nobody waits.
    pub(super) fn next_party(&self) -> Vec<Waiting> {
        let mut line = self.lock();
        let Some(first) = line.waiting.pop_front() else { return Vec::new() };
        let (mut rows, mut bytes) = (first.rows.len(), first.bytes);
        let mut party = vec![first];
        for one in std::mem::take(&mut line.waiting) {
            let has_room = rows + one.rows.len() <= PARTY_ROWS_MAX && bytes + one.bytes <= PARTY_BYTES_MAX;
            if has_room && one.references == party[0].references && party[0].goes_with(&one) {
                rows += one.rows.len();
                bytes += one.bytes;
                party.push(one);
            } else {
                line.waiting.push_back(one);
            }
        }
        party
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Place<'_> {
    /// What became of the rows.
    pub(super) async fn answer(&mut self) -> Answer {
        // Whoever took them along may have been cut short.
        (&mut self.answer).await.unwrap_or(Answer::Alone)
    }

    /// Leaves the line; says no if the rows were taken along already.
    pub(super) fn withdraw(&self) -> bool {
        let mut line = self.queue.lock();
        let before = line.waiting.len();
        line.waiting.retain(|one| one.number != self.number);
        line.waiting.len() < before
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}
