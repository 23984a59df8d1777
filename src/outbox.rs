//! The outbox: publishes rejects and alerts from the database on their subjects. Each is published first, and marked
//! afterwards. After a kill in between it is published again, and the server refuses the second copy.

pub mod queue;

use crate::health::{Dependency, Pulse};
use crate::metrics::{Counter, Gauge};
use crate::retry::Backoff;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub trait OutboxQueue {
    /// A reject, or an alert.
    type Letter: Numbered + Send + Sync;

    /// Letters that are not marked and come after the number `after`, the oldest first: a page of them, bounded in number and bytes.
    fn waiting(&self, after: i64) -> impl Future<Output = Result<Vec<Self::Letter>, String>> + Send;

    /// How many letters are not marked.
    fn backlog(&self) -> impl Future<Output = Result<i64, String>> + Send;

    /// Marks letters as published, once and for all. Another that has come to stand at the place of one stays unmarked.
    fn mark(&self, letters: &[&Self::Letter]) -> impl Future<Output = Result<(), String>> + Send;
}

/// A letter with a number, by which letters are in order.
pub trait Numbered {
    fn number(&self) -> i64;
}

pub trait Sink<L> {
    /// Publishes letters side by side, and says of each whether it arrived. Of one that did, exactly one message is on its subject,
    /// however often this is called.
    fn deliver(&self, letters: &[L]) -> impl Future<Output = Vec<Result<(), Undelivered>>> + Send;
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

/// What the outbox needs besides its queue and its sink.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Its name, for the dependencies.
    pub name: &'a str,
    /// Notified when letters were committed.
    pub wake: &'a Notify,
    /// Told when the queue cannot be read.
    pub queue_health: &'a Dependency,
    /// Told when letters cannot be published.
    pub delivery_health: &'a Dependency,
    pub pulse: &'a Pulse,
    /// Counts what was published.
    pub published: &'a Counter,
    /// Shows how many are not.
    pub waiting: &'a Gauge,
    /// Cancelled when the daemon is to stop.
    pub stop: &'a CancellationToken,
}

/// Another instance may have left letters behind.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until told to stop.
pub async fn run<Q: OutboxQueue, D: Sink<Q::Letter>>(queue: &Q, delivery: &D, outbox: Outbox<'_>) {
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
                    () = outbox.wake.notified() => {}
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
async fn round<Q: OutboxQueue, D: Sink<Q::Letter>>(queue: &Q, delivery: &D, outbox: &Outbox<'_>) -> Round {
    let (mut refused, mut published, mut after) = (None, false, -1);
    loop {
        outbox.pulse.beat();
        let letters = match next_page(queue, outbox, after).await {
            Ok(letters) => letters,
            Err(why) => {
                outbox.queue_health.down(outbox.name, &why);
                return Round::Failed;
            }
        };
        outbox.queue_health.up(outbox.name);
        let Some(last) = letters.last() else { break };
        after = last.number();
        outbox.pulse.beat();
        let delivered = delivery.deliver(&letters).await;
        outbox.pulse.beat();
        let arrived: Vec<&Q::Letter> =
            letters.iter().zip(&delivered).filter(|(_, result)| result.is_ok()).map(|(letter, _)| letter).collect();
        if !arrived.is_empty() {
            if let Err(why) = queue.mark(&arrived).await {
                outbox.queue_health.down(outbox.name, &why);
                return Round::Failed;
            }
            outbox.published.inc_by(arrived.len() as u64);
            published = true;
        }
        for undelivered in delivered.into_iter().filter_map(Result::err) {
            match undelivered {
                Undelivered::Away(why) => {
                    outbox.delivery_health.down(outbox.name, &why);
                    return Round::Failed;
                }
                Undelivered::Refused(why) => refused = Some(why),
            }
        }
    }
    if let Some(why) = refused {
        outbox.delivery_health.down(outbox.name, &why);
        return Round::Failed;
    }
    outbox.delivery_health.up(outbox.name);
    if published { Round::Published } else { Round::Empty }
}

async fn next_page<Q: OutboxQueue>(queue: &Q, outbox: &Outbox<'_>, after: i64) -> Result<Vec<Q::Letter>, String> {
    outbox.waiting.set(queue.backlog().await?);
    queue.waiting(after).await
}
