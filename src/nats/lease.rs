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

    /// The lowest of them.
    pub(super) fn first(&self) -> Option<i64> {
        self.lock().iter().min().copied()
    }

    /// Held until the token is dropped.
    pub(super) fn hold(&self, sequences: Vec<i64>) -> HeldToken {
        self.lock().extend(&sequences);
        self.count.inc_by(count_of(&sequences));
        HeldToken { held: self.clone(), sequences }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sequences that are held.
#[derive(Debug)]
pub(super) struct HeldToken {
    held: Held,
    sequences: Vec<i64>,
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        for sequence in &self.sequences {
            held.remove(sequence);
        }
        self.held.count.dec_by(count_of(&self.sequences));
    }
}

fn count_of(sequences: &[i64]) -> i64 {
    i64::try_from(sequences.len()).expect("there is memory for far fewer")
}

/// Holds the messages of a pull, and extends their acknowledgement deadlines, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lease {
    words: JoinHandle<()>,
    _held: HeldToken,
}

impl Lease {
    /// `messages`: the sequence and the acknowledgement's subject of each.
    pub(super) fn new(client: Client, messages: Vec<(i64, Subject)>, ack_wait: Duration, held: &Held) -> Self {
        let (sequences, replies): (Vec<i64>, Vec<Subject>) = messages.into_iter().unzip();
        let pace = ack_wait / WORDS_PER_ACK_WAIT;
        let words = tokio::spawn(async move {
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
        });
        Self { words, _held: held.hold(sequences) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.words.abort();
    }
}
