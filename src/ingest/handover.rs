//! The handover from a lane's reader to its pipeline: the messages, and the progress of both sides.

use crate::ingest::lifecycle::Delivery;
use async_nats::Subject;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::sync::Notify;

/// The right to acknowledge a lane's messages, up to this one.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) way: Way,
    pub(crate) sequence: i64,
    /// How many messages were handed over with it and before.
    pub(crate) handed: u64,
    /// Of which reading it is.
    pub(crate) generation: u64,
}

/// How a message was read.
#[derive(Debug)]
pub(crate) enum Way {
    /// By the consumer, whose server takes the acknowledgement on this subject.
    Delivered(Subject),
    /// In its order, through the stream's own API. The next consumer begins behind it.
    Around,
    /// Out of order, through the stream's own API.
    Late,
}

/// Messages that are handed over together, unless the reading was begun again since.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) generation: u64,
    pub(crate) deliveries: Vec<Delivery<Ticket>>,
}

/// How far a lane has come, as its reader and its pipeline tell each other.
#[derive(Debug, Default)]
pub(crate) struct ReadProgress {
    /// Everything up to this sequence is stored.
    pub(crate) durable: AtomicI64,
    /// The last message whose acknowledgement was sent.
    pub(crate) acknowledged: AtomicI64,
    /// The last message out of order that is stored.
    pub(crate) late: AtomicI64,
    /// Counts the messages that were handed over.
    pub(crate) handed: AtomicU64,
    /// Counts how often the reading was begun again.
    pub(crate) generation: AtomicU64,
    /// Told when it is.
    pub(crate) rewound: Notify,
}

impl ReadProgress {
    /// The reading begins again behind this sequence.
    pub(crate) fn begin_at(&self, position: i64) {
        self.durable.store(position, Ordering::Release);
        self.late.store(0, Ordering::Release);
    }

    pub(crate) fn is_of(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }
}
