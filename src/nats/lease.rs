//! Who tells the server that a held message is still being worked on? A lease does, until it is dropped.

use crate::metrics::Gauge;
use async_nats::{Client, Subject};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// The server waits for `ack_wait`; it is told this many times within it, so that one lost word does no harm.
const WORDS_PER_ACK_WAIT: u32 = 3;

/// The sequences of a lane that this process holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    sequences: Arc<Mutex<HashSet<i64>>>,
    count: Gauge,
}

impl Held {
    pub(super) fn counted_by(count: Gauge) -> Self {
        Self { sequences: Arc::default(), count }
    }

    pub(super) fn contains(&self, sequence: i64) -> bool {
        self.lock().contains(&sequence)
    }

    /// Held until the token is dropped.
    pub(super) fn hold(&self, sequence: i64) -> HeldToken {
        self.lock().insert(sequence);
        self.count.inc();
        HeldToken { held: self.clone(), sequence }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sequence that is held.
#[derive(Debug)]
pub(super) struct HeldToken {
    held: Held,
    sequence: i64,
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        self.held.lock().remove(&self.sequence);
        self.held.count.dec();
    }
}

/// Extends the acknowledgement deadline of messages for as long as it lives.
#[derive(Debug)]
pub(super) struct Lease(JoinHandle<()>);

impl Lease {
    pub(super) fn new(client: Client, replies: Vec<Subject>, ack_wait: Duration) -> Self {
        let pace = ack_wait / WORDS_PER_ACK_WAIT;
        Self(tokio::spawn(async move {
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                for reply in &replies {
                    // While disconnected a publish may wait for ever. The deadline passes, and the message comes again.
                    let _ = timeout(pace, client.publish(reply.clone(), IN_PROGRESS)).await;
                }
            }
        }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}
