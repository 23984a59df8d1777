//! Group commit: combines batches that wait for a connection at the same time, as far as they may share a transaction.

use crate::ingest::commit::has_event_at_most;
use crate::ingest::lifecycle::{Judged, References, StoreError, Tally};
use crate::ingest::position::Order;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Rows of one transaction at most, unless a single batch has more.
const GROUP_ROWS_MAX: usize = 1_000;
/// And bytes of their payloads.
const GROUP_BYTES_MAX: usize = 1024 * 1024;

/// Batches that wait for a connection.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue(Mutex<Waiters>);

#[derive(Debug, Default)]
struct Waiters {
    joined: u64,
    waiting: VecDeque<QueuedBatch>,
}

#[derive(Debug)]
pub(crate) struct QueuedBatch {
    number: u64,
    pub(crate) rows: Arc<Vec<Judged>>,
    pub(crate) references: References,
    bytes: usize,
    answer: oneshot::Sender<GroupAnswer>,
}

/// What became of a batch that waited.
#[derive(Debug)]
pub(crate) enum GroupAnswer {
    /// Its commit was made, or failed for a reason of its own.
    Settled(Result<Tally, StoreError>),
    /// It was committed with others, and that failed: it is unknown whether it was stored, and by itself it may fare better.
    Alone,
}

impl QueuedBatch {
    /// Gives the rows back, and says what became of them.
    pub(crate) fn answer(self, answer: GroupAnswer) {
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
        let follows = |one: &Self| matches!(one.rows.first().map(|row| row.order), Some(Order::Next { .. }));
        self.references == other.references
            && follows(self)
            && follows(other)
            && self.has_events_alone()
            && other.has_events_alone()
            && incarnation(self) == incarnation(other)
    }

    fn has_events_alone(&self) -> bool {
        self.rows.iter().all(has_event_at_most)
    }
}

impl CommitQueue {
    /// Waits in the queue, until the entry is dropped or withdrawn, or the rows are taken along by somebody.
    pub(crate) fn join(&self, rows: &Arc<Vec<Judged>>, references: References) -> QueueEntry<'_> {
        let (sender, answer) = oneshot::channel();
        let bytes = rows.iter().map(|row| row.message.payload.len()).sum();
        let mut waiters = self.lock();
        waiters.joined += 1;
        let number = waiters.joined;
        waiters.waiting.push_back(QueuedBatch { number, rows: rows.clone(), references, bytes, answer: sender });
        QueueEntry { queue: self, number, answer }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.0.lock()
    }
}

/// An entry of the queue.
#[derive(Debug)]
pub(crate) struct QueueEntry<'a> {
    queue: &'a CommitQueue,
    number: u64,
    answer: oneshot::Receiver<GroupAnswer>,
}

impl QueueEntry<'_> {
    /// What became of the rows.
    pub(crate) async fn answer(&mut self) -> GroupAnswer {
        // Whoever took them along may have been cut short.
        (&mut self.answer).await.unwrap_or(GroupAnswer::Alone)
    }

    /// Takes the rows out of the queue, and all that may go with them. Empty if somebody has taken them already.
    pub(crate) fn take_group(&self) -> Vec<QueuedBatch> {
        let mut waiters = self.queue.lock();
        let Some(at) = waiters.waiting.iter().position(|one| one.number == self.number) else { return Vec::new() };
        let Some(first) = waiters.waiting.remove(at) else { return Vec::new() };
        let (mut rows, mut bytes) = (first.rows.len(), first.bytes);
        let mut group = vec![first];
        for one in std::mem::take(&mut waiters.waiting) {
            let has_room = rows + one.rows.len() <= GROUP_ROWS_MAX && bytes + one.bytes <= GROUP_BYTES_MAX;
            if has_room && group[0].goes_with(&one) {
                rows += one.rows.len();
                bytes += one.bytes;
                group.push(one);
            } else {
                waiters.waiting.push_back(one);
            }
        }
        group
    }

    /// Leaves the queue; returns false if the rows were taken along already.
    pub(crate) fn withdraw(&self) -> bool {
        let mut waiters = self.queue.lock();
        let before = waiters.waiting.len();
        waiters.waiting.retain(|one| one.number != self.number);
        waiters.waiting.len() < before
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::position::Claim;
    use crate::record::lane::Lane;
    use crate::record::message::{Headers, Incarnation, Message};
    use crate::record::reject::{Reason, Rejection};
    use crate::record::verdict::Verdict;
    use bytes::Bytes;

    fn batch(created_ns: i64, rows: usize, payload_bytes: usize) -> Arc<Vec<Judged>> {
        let message = Message {
            incarnation: Incarnation { stream: "LEDGER".into(), created_ns },
            sequence: 1,
            subject: "ledger.EXEC.BRM-CTO".to_owned(),
            server_time_ns: 1,
            headers: Headers::NONE,
            payload: Bytes::from(vec![b'x'; payload_bytes]),
        };
        let rejection = Rejection::new(Reason::MalformedJson, "not JSON");
        let claim = Claim { lane: Lane::Exec, epoch: 1, regressions: 0, fence: 1 };
        let order = Order::Next { claim, after: 0 };
        Arc::new(vec![Judged { message, order, verdict: Verdict::Reject { rejection, record_id: None } }; rows])
    }

    /// How many batches go with the first, which has one row of one byte.
    fn grouped(others: &[Arc<Vec<Judged>>]) -> usize {
        let queue = CommitQueue::default();
        let first = queue.join(&batch(1, 1, 1), References::MayFollow);
        let _others: Vec<_> = others.iter().map(|rows| queue.join(rows, References::MayFollow)).collect();
        first.take_group().len() - 1
    }

    #[test]
    fn a_group_is_bounded_in_rows_and_bytes_and_of_one_incarnation() {
        assert_eq!(grouped(&[batch(1, 1, 1), batch(1, 998, 1)]), 2);
        assert_eq!(grouped(&[batch(1, 999, 1), batch(1, 1, 1)]), 1);
        assert_eq!(grouped(&[batch(1, 1, 1024 * 1024), batch(1, 1, 1024)]), 1);
        assert_eq!(grouped(&[batch(2, 1, 1)]), 0);
    }

    #[tokio::test]
    async fn who_is_taken_along_and_hears_nothing_commits_alone() {
        let queue = CommitQueue::default();
        let first = queue.join(&batch(1, 1, 1), References::MayFollow);
        let mut second = queue.join(&batch(1, 1, 1), References::MayFollow);
        drop(first.take_group());
        assert!(second.take_group().is_empty() && !second.withdraw());
        assert!(matches!(second.answer().await, GroupAnswer::Alone));
    }
}
