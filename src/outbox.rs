//! How do rejects and alerts get from the database to their subjects? Each is published, and then marked; a kill in between
//! publishes again, and the server refuses the second copy.

use crate::health::{Dependency, Pulse};
use crate::metrics::Counter;
use crate::retry::Backoff;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The letters that wait.
pub trait Queue {
    /// A reject, or an alert.
    type Letter: Send + Sync;

    /// The numbers of letters that are not marked and come after `after`, the oldest first, at most `limit`.
    fn waiting(&self, after: i64, limit: i64) -> impl Future<Output = Result<Vec<i64>, String>> + Send;

    /// One letter, whole.
    fn read(&self, number: i64) -> impl Future<Output = Result<Self::Letter, String>> + Send;

    /// Marks a letter as published, once and for all. Another that has come to stand at its place stays unmarked.
    fn mark(&self, letter: &Self::Letter) -> impl Future<Output = Result<(), String>> + Send;
}

/// Where they go.
pub trait Sink<L> {
    /// Publishes a letter; once this returned, exactly one message is on its subject, however often it is called.
    fn deliver(&self, letter: &L) -> impl Future<Output = Result<(), Undelivered>> + Send;
}

/// A letter that did not reach its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody answered: the others would fare no better.
    Away(String),
    /// This one was refused; another may pass.
    Refused(String),
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Undelivered::Away(what) | Undelivered::Refused(what)) = self;
        f.write_str(what)
    }
}

/// What the outbox needs besides its doors.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Its name, for the dependencies.
    pub name: &'a str,
    /// Rung when letters were committed.
    pub rung: &'a Notify,
    /// Told when the queue cannot be read.
    pub queue_health: &'a Dependency,
    /// Told when letters cannot be published.
    pub delivery_health: &'a Dependency,
    /// Its sign of life.
    pub pulse: &'a Pulse,
    /// Counts what was published.
    pub published: &'a Counter,
    /// Cancelled when the daemon is to stop.
    pub stop: &'a CancellationToken,
}

/// Letters that are looked up at a time.
const PAGE_MAX: i64 = 100;
/// Another instance may have left letters behind.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until told to stop.
pub async fn run<Q: Queue, D: Sink<Q::Letter>>(queue: &Q, delivery: &D, outbox: Outbox<'_>) {
    let mut backoff = Backoff::for_dependency();
    loop {
        outbox.pulse.beat();
        let round = tokio::select! {
            round = round(queue, delivery, &outbox) => round,
            // Whatever was published and not marked is recognised by the next one.
            () = outbox.stop.cancelled() => break,
        };
        outbox.pulse.beat();
        match round {
            Round::Published => backoff.reset(),
            Round::Empty => {
                backoff.reset();
                tokio::select! {
                    () = outbox.rung.notified() => {}
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                    () = outbox.stop.cancelled() => {}
                }
            }
            Round::Failed => tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = outbox.stop.cancelled() => {}
            },
        }
        if outbox.stop.is_cancelled() {
            break;
        }
    }
    outbox.pulse.rest();
}

enum Round {
    Empty,
    Published,
    Failed,
}

/// Goes once through all letters that wait. One that is refused does not hold up those after it.
async fn round<Q: Queue, D: Sink<Q::Letter>>(queue: &Q, delivery: &D, outbox: &Outbox<'_>) -> Round {
    let mut undelivered = None;
    let mut published = false;
    let mut after = -1;
    loop {
        let numbers = match queue.waiting(after, PAGE_MAX).await {
            Ok(numbers) => numbers,
            Err(why) => {
                outbox.queue_health.down(outbox.name, &why);
                return Round::Failed;
            }
        };
        outbox.queue_health.up(outbox.name);
        let Some(&last) = numbers.last() else { break };
        after = last;
        for number in numbers {
            outbox.pulse.beat();
            match publish_one(queue, delivery, outbox, number).await {
                Ok(()) => {
                    published = true;
                    outbox.published.inc();
                }
                Err(Failed::Queue(why)) => {
                    outbox.queue_health.down(outbox.name, &why);
                    return Round::Failed;
                }
                Err(Failed::Delivery(Undelivered::Away(why))) => {
                    outbox.delivery_health.down(outbox.name, &why);
                    return Round::Failed;
                }
                Err(Failed::Delivery(Undelivered::Refused(why))) => undelivered = Some(why),
            }
        }
    }
    if let Some(why) = undelivered {
        outbox.delivery_health.down(outbox.name, &why);
        return Round::Failed;
    }
    outbox.delivery_health.up(outbox.name);
    if published { Round::Published } else { Round::Empty }
}

enum Failed {
    Queue(String),
    Delivery(Undelivered),
}

async fn publish_one<Q: Queue, D: Sink<Q::Letter>>(
    queue: &Q,
    delivery: &D,
    outbox: &Outbox<'_>,
    number: i64,
) -> Result<(), Failed> {
    let letter = queue.read(number).await.map_err(Failed::Queue)?;
    outbox.pulse.beat();
    delivery.deliver(&letter).await.map_err(Failed::Delivery)?;
    outbox.pulse.beat();
    queue.mark(&letter).await.map_err(Failed::Queue)
}
