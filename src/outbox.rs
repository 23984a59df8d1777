//! How do rejects get from the database to their subject? Each is published, and then marked; a kill in between publishes
//! again, and the server refuses the second copy.

use crate::domain::dead_letter::DeadLetter;
use crate::health::{Dependency, Pulse};
use crate::retry::Backoff;
use prometheus_client::metrics::counter::Counter;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The rejects that wait.
pub trait Queue {
    /// The leaves of rejects that are not marked, the oldest first, at most `limit`.
    fn waiting(&self, limit: i64) -> impl Future<Output = Result<Vec<i64>, String>> + Send;

    /// One reject, whole.
    fn read(&self, leaf_index: i64) -> impl Future<Output = Result<DeadLetter, String>> + Send;

    /// Marks a reject as published, once and for all.
    fn mark(&self, leaf_index: i64) -> impl Future<Output = Result<(), String>> + Send;
}

/// Where they go.
pub trait Delivery {
    /// Publishes a reject; once this returned, exactly one message is on its subject, however often it is called.
    fn deliver(&self, letter: &DeadLetter) -> impl Future<Output = Result<(), String>> + Send;
}

/// What the outbox needs besides its doors.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Rung when rejects were committed.
    pub rung: &'a Notify,
    /// Told when rejects cannot be published.
    pub health: &'a Dependency,
    /// Its sign of life.
    pub pulse: &'a Pulse,
    /// Counts what was published.
    pub published: &'a Counter,
    /// Cancelled when the daemon is to stop.
    pub stop: &'a CancellationToken,
}

/// Rejects handled in one round.
const ROUND_MAX: i64 = 100;
/// Another instance may have left rejects behind.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until told to stop.
pub async fn run<Q: Queue, D: Delivery>(queue: &Q, delivery: &D, outbox: Outbox<'_>) {
    let mut backoff = Backoff::for_dependency();
    loop {
        outbox.pulse.beat();
        let wait = match round(queue, delivery, &outbox).await {
            Ok(published) => {
                outbox.health.up("outbox");
                backoff.reset();
                if published > 0 { Duration::ZERO } else { LOOK_INTERVAL }
            }
            Err(why) => {
                outbox.health.down("outbox", &why);
                backoff.next_wait()
            }
        };
        outbox.pulse.beat();
        tokio::select! {
            () = outbox.rung.notified(), if wait == LOOK_INTERVAL => {}
            () = tokio::time::sleep(wait) => {}
            () = outbox.stop.cancelled() => break,
        }
    }
    outbox.pulse.rest();
}

async fn round<Q: Queue, D: Delivery>(queue: &Q, delivery: &D, outbox: &Outbox<'_>) -> Result<usize, String> {
    let leaves = queue.waiting(ROUND_MAX).await?;
    for leaf_index in &leaves {
        outbox.pulse.beat();
        let letter = queue.read(*leaf_index).await?;
        delivery.deliver(&letter).await?;
        queue.mark(*leaf_index).await?;
        outbox.published.inc();
    }
    Ok(leaves.len())
}
