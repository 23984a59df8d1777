//! The life cycle of a message, one type per state: `Delivery → Batch → Durable`.
//!
//! The right to acknowledge (the ticket) stays private from the first state to the last, and only a commit releases it.
//! So an early acknowledgement does not compile. The first block does: the names of the others are real.
//!
//! ```
//! use ledgerd::ingest::lifecycle::{Batch, Delivery, Durable, Source, Tally};
//! ```
//! ```compile_fail
//! # use ledgerd::ingest::lifecycle::{Batch, Source};
//! async fn too_early<S: Source>(batch: Batch<S::Ticket>, source: &mut S) {
//!     batch.acknowledge(source).await; // a batch has no such method
//! }
//! ```
//! ```compile_fail
//! # use ledgerd::ingest::lifecycle::{Delivery, Source};
//! async fn out_of_the_box<S: Source>(delivery: Delivery<S::Ticket>, source: &mut S) {
//!     source.acknowledge(delivery.ticket).await; // the field is private
//! }
//! ```
//! ```compile_fail
//! # use ledgerd::ingest::lifecycle::{Durable, Tally};
//! fn forged<T>(tickets: Vec<T>) -> Durable<T> {
//!     Durable { tickets, tally: Tally::default() } // so are these
//! }
//! ```

use crate::ingest::position::Order;
use crate::record::message::Message;
use crate::record::receipt::Asked;
use crate::record::reject::{Reason, Rejection};
use crate::record::rules::Rules;
use crate::record::verdict::Verdict;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

pub trait Source {
    /// The right to acknowledge everything up to one message. Dropping it acknowledges nothing.
    type Ticket: Send;

    /// Waits for one message, then gives all that are ready. `None` once the source was told to stop; never empty.
    fn take(&mut self) -> impl Future<Output = Option<Vec<Delivery<Self::Ticket>>>> + Send;

    /// Whether every record that was published before this sequence, and that the records of this source refer to, has
    /// reached its durable end.
    ///
    /// # Errors
    /// A sentence that says why it is not known.
    fn references_settled(&self, sequence: i64) -> impl Future<Output = Result<bool, String>> + Send;

    /// Whether every such record that can still be stored is. Less than [`Self::references_settled`]: what a stream has lost before
    /// anybody stored it may have been one, and nobody can wait for it.
    ///
    /// # Errors
    /// A sentence that says why it is not known.
    fn references_stored(&self, sequence: i64) -> impl Future<Output = Result<bool, String>> + Send;

    /// Acknowledges everything up to the ticket's message. A failure is not reported: the position in the store is the truth.
    fn acknowledge(&mut self, ticket: Self::Ticket) -> impl Future<Output = ()> + Send;

    /// What was taken does not follow on the position that the store has. Gives up what was taken, and reads again from there.
    fn rewind(&mut self, why: &str);
}

/// Where messages are kept for ever.
pub trait Store {
    /// Stores all rows, records and rejects alike, in one transaction, durably, and moves the positions of their lanes. Rows
    /// that are stored already are recognised by their order, so the same rows may be committed again.
    ///
    /// # Errors
    /// After an error it is unknown whether the rows were stored. The remedy says what to do; committing them again is
    /// always safe.
    fn commit(
        &self,
        rows: &Arc<Vec<Judged>>,
        references: References,
    ) -> impl Future<Output = Result<Tally, StoreError>> + Send;
}

/// Who tells publishers what became of their messages.
pub trait ReceiptNotifier {
    /// Tells those who ask. It comes to an end soon, whether they heard it or not: the ledger waits for it.
    fn notify(&self, asked: &[Asked]) -> impl Future<Output = ()> + Send;
}

/// Whether the records that others refer to may still be on their way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// A reference that leads nowhere may lead somewhere soon.
    MayFollow,
    /// A reference that leads nowhere is the record's own fault.
    Settled,
}

/// A message and its verdict.
#[derive(Clone, Debug)]
pub struct Judged {
    pub message: Message,
    pub order: Order,
    pub verdict: Verdict,
}

/// The world failed, and this is the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The store is unwell or away: the same rows again, soon.
    Retry,
    /// Some row is unacceptable to a store that takes others. When it stands alone, this is its rejection.
    Isolate(Rejection),
    /// The rows are too many for the time that a statement has: half of them, soon.
    Halve,
    /// A record refers to one that may be on its way on another lane: the same rows again, once that lane has settled what
    /// was published before.
    AwaitReferences,
    /// The rows do not follow on the stored position: another instance has the lane, or the database went back. They are given
    /// up, and the lane is read again from the stored position.
    Rewind,
    /// Only an operator can mend it: the same rows again, slowly, and loudly.
    Operator,
}

/// A commit that failed, or whose outcome is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    pub remedy: Remedy,
    /// What happened, and what an operator can do about it.
    pub what: String,
}

/// What a commit did with its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub recorded: usize,
    /// The same record under another sequence.
    pub duplicates: usize,
    /// Dead letters, by reason.
    pub rejected: BTreeMap<Reason, usize>,
    /// Messages that an earlier commit stored.
    pub known: usize,
}

impl Tally {
    /// All messages that the commit accounts for.
    pub fn total(&self) -> usize {
        self.recorded + self.duplicates + self.known + self.rejected.values().sum::<usize>()
    }
}

/// A message, and the right to acknowledge it.
#[derive(Debug)]
pub struct Delivery<T> {
    message: Message,
    order: Order,
    ticket: T,
}

impl<T> Delivery<T> {
    /// Binds the ticket to its message.
    pub fn new(message: Message, order: Order, ticket: T) -> Self {
        Self { message, order, ticket }
    }
}

/// Judged messages that are not durable yet.
#[derive(Debug)]
pub struct Batch<T> {
    /// Shared with the store, which may commit them together with those of others.
    rows: Arc<Vec<Judged>>,
    tickets: Vec<T>,
    references: References,
}

/// Messages that are durable, and may be acknowledged.
#[derive(Debug)]
#[must_use = "durable messages are to be acknowledged"]
pub struct Durable<T> {
    tickets: Vec<T>,
    tally: Tally,
    asked: Vec<Asked>,
}

/// A batch that is not known to be durable: it comes back whole.
#[derive(Debug)]
pub struct Uncommitted<T> {
    pub batch: Batch<T>,
    pub error: StoreError,
}

impl<T> Batch<T> {
    /// Judges every delivery. Each becomes a record or a reject.
    pub fn judge(deliveries: Vec<Delivery<T>>, rules: &Rules) -> Self {
        let mut rows = Vec::with_capacity(deliveries.len());
        let mut tickets = Vec::with_capacity(deliveries.len());
        for Delivery { message, order, ticket } in deliveries {
            let verdict = rules.judge(&message);
            rows.push(Judged { message, order, verdict });
            tickets.push(ticket);
        }
        Self { rows: Arc::new(rows), tickets, references: References::MayFollow }
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Makes the batch durable.
    pub async fn commit<S: Store>(self, store: &S) -> Result<Durable<T>, Uncommitted<T>> {
        match store.commit(&self.rows, self.references).await {
            Ok(tally) => {
                assert_eq!(tally.total(), self.rows.len(), "a commit accounts for each of its rows");
                let asked = self.rows.iter().filter_map(|row| Asked::of(&row.message)).collect();
                Ok(Durable { tickets: self.tickets, tally, asked })
            }
            Err(error) => Err(Uncommitted { batch: self, error }),
        }
    }

    /// The last sequence of those whose rows depend on records that were published before, and may be on their way.
    pub fn last_follower(&self) -> Option<i64> {
        let follows = |row: &&Judged| matches!(&row.verdict, Verdict::Record(record) if record.follows_from_others());
        let followers = self.rows.iter().filter(follows);
        followers.map(|row| row.message.sequence).max().filter(|_| self.references == References::MayFollow)
    }

    /// The last sequence among its messages.
    pub fn last_sequence(&self) -> i64 {
        self.rows.iter().map(|row| row.message.sequence).max().unwrap_or(0)
    }

    /// What its records refer to is stored, or will never be.
    #[must_use]
    pub fn with_settled_references(self) -> Self {
        Self { references: References::Settled, ..self }
    }

    /// Halves the batch, so that the unacceptable row ends up alone; there it becomes a reject. At most 3n − 1 commits
    /// settle n rows.
    pub fn isolate(mut self, rejection: &Rejection) -> Vec<Self> {
        if let [Judged { verdict, .. }] = Arc::make_mut(&mut self.rows).as_mut_slice() {
            let record_id = verdict.record_id().map(str::to_owned);
            *verdict = Verdict::Reject { rejection: rejection.clone(), record_id };
        }
        self.halve()
    }

    /// Two batches of half the rows, the later one first; a single row stays whole.
    pub fn halve(mut self) -> Vec<Self> {
        if self.rows.len() < 2 {
            return vec![self];
        }
        let middle = self.rows.len() / 2;
        let second = Self {
            rows: Arc::new(Arc::make_mut(&mut self.rows).split_off(middle)),
            tickets: self.tickets.split_off(middle),
            references: self.references,
        };
        vec![second, self]
    }
}

impl<T: Send> Durable<T> {
    /// Tells those who ask, acknowledges, and says what was stored. In this order: what is not acknowledged when the process is
    /// killed is read again by the lane's next owner, who tells it then.
    pub async fn acknowledge<S: Source<Ticket = T>, C: ReceiptNotifier>(self, source: &mut S, notifier: &C) -> Tally {
        if !self.asked.is_empty() {
            notifier.notify(&self.asked).await;
        }
        // Messages are acknowledged in their order, so the last ticket speaks for all.
        if let Some(last) = self.tickets.into_iter().next_back() {
            source.acknowledge(last).await;
        }
        self.tally
    }
}

impl Durable<()> {
    /// What was stored, for messages that no source waits for.
    pub fn settled(self) -> Tally {
        self.tally
    }
}
