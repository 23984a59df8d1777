//! The ingest loop: takes messages, validates them, commits them, and acknowledges them. It is the core of the daemon.
//! One instance runs for each lane.

use crate::health::{Dependency, Pulse};
use crate::ingest::lifecycle::{Batch, ReceiptNotifier, Remedy, Source, Store, Tally, Uncommitted};
use crate::metrics::LaneMetrics;
use crate::record::rules::Rules;
use crate::retry::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a lane needs besides its source, its store and its notifier.
#[derive(Debug)]
pub struct LaneContext<'a> {
    pub name: &'a str,
    /// The rules in force; a reload replaces them between two batches.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// Told when the store fails, and when it is back.
    pub store_health: &'a Dependency,
    pub pulse: &'a Pulse,
    pub metrics: &'a LaneMetrics,
    /// Cancelled when the daemon is to stop.
    pub stop: &'a CancellationToken,
}

/// Runs until the source is told to stop and what is in flight is settled. If the store fails then, what is in flight stays
/// in the stream, and is read again.
pub async fn run<S: Source, D: Store, C: ReceiptNotifier>(
    mut source: S,
    store: &D,
    notifier: &C,
    lane: LaneContext<'_>,
) {
    // It may have ended while it waited, and be running again.
    lane.store_health.forget(lane.name);
    loop {
        lane.pulse.rest();
        let Some(deliveries) = source.take().await else { break };
        lane.metrics.received.inc_by(deliveries.len() as u64);
        let rules = lane.rules.borrow().clone();
        let batch = Batch::judge(deliveries, &rules);
        settle(batch, &mut source, store, notifier, &lane).await;
    }
}

/// Brings each message of a batch to its durable end, however long the store is away.
async fn settle<S: Source, D: Store, C: ReceiptNotifier>(
    batch: Batch<S::Ticket>,
    source: &mut S,
    store: &D,
    notifier: &C,
    lane: &LaneContext<'_>,
) {
    let mut patience = RetryWaits::new();
    let mut pending = vec![batch];
    if let Awaited::Stopped = await_predecessors(&pending[0], source, lane).await {
        return tell_abandoned(lane, &pending, "what they follow from");
    }
    while let Some(batch) = pending.pop() {
        lane.pulse.beat();
        let (messages, started) = (batch.len(), Instant::now());
        match batch.commit(store).await {
            Ok(durable) => {
                lane.metrics.observe_commit(messages, started.elapsed());
                lane.store_health.up(lane.name);
                patience = RetryWaits::new();
                lane.pulse.beat();
                let tally = durable.acknowledge(source, notifier).await;
                lane.metrics.count(&tally);
                tell_rejects(lane.name, &tally);
            }
            Err(Uncommitted { batch, error }) => match error.remedy {
                Remedy::Rewind => {
                    lane.store_health.up(lane.name);
                    return source.rewind(&error.what);
                }
                Remedy::Isolate(rejection) => pending.extend(batch.isolate(&rejection)),
                // Those that refer to nothing go on; the others wait, alone.
                Remedy::AwaitReferences if batch.len() > 1 => pending.extend(batch.halve()),
                Remedy::AwaitReferences => match await_references(&batch, source, lane, &error.what).await {
                    Awaited::Settled => pending.push(batch.with_settled_references()),
                    Awaited::Stopped => {
                        pending.push(batch);
                        return tell_abandoned(lane, &pending, "what they refer to");
                    }
                },
                Remedy::Retry | Remedy::Halve | Remedy::Operator => {
                    lane.store_health.down(lane.name, &error.what);
                    if error.remedy == Remedy::Halve {
                        pending.extend(batch.halve());
                    } else {
                        pending.push(batch);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(patience.next_wait(&error.remedy)) => {}
                        () = lane.stop.cancelled() => return tell_abandoned(lane, &pending, lane.store_health.name()),
                    }
                }
            },
        }
    }
}

enum Awaited {
    Settled,
    Stopped,
}

/// Waits until what the batch follows from is stored: a rate that was published before a usage is in force for it, also if its own
/// lane is slower.
async fn await_predecessors<S: Source>(batch: &Batch<S::Ticket>, source: &S, lane: &LaneContext<'_>) -> Awaited {
    let Some(sequence) = batch.last_follower() else { return Awaited::Settled };
    let stored = || source.references_stored(sequence);
    let wait = Wait { before: "charging usage at its rates", quiet: PREDECESSORS_WAIT_QUIET };
    await_another_lane(stored, wait, || PREDECESSORS_INTERVAL, lane).await
}

/// Waits until what the batch refers to has been stored, if it was published at all. The other lane may wait for an operator.
async fn await_references<S: Source>(
    batch: &Batch<S::Ticket>,
    source: &S,
    lane: &LaneContext<'_>,
    what: &str,
) -> Awaited {
    let mut backoff = Backoff::for_dependency();
    let settled = || source.references_settled(batch.last_sequence());
    await_another_lane(settled, Wait { before: what, quiet: Duration::ZERO }, || backoff.next_wait(), lane).await
}

/// A wait for another lane.
struct Wait<'a> {
    before: &'a str,
    /// So long it is nobody's concern, unless it is not known whether there is anything to wait for.
    quiet: Duration,
}

/// Lanes run side by side, and the other one is a few commits behind at most, as a rule.
const PREDECESSORS_INTERVAL: Duration = Duration::from_millis(50);
/// From here on it is more than a backlog that one lane works off faster than another.
const PREDECESSORS_WAIT_QUIET: Duration = Duration::from_secs(10);

async fn await_another_lane<F: Future<Output = Result<bool, String>>>(
    is_done: impl Fn() -> F,
    Wait { before, quiet }: Wait<'_>,
    mut next_wait: impl FnMut() -> Duration,
    lane: &LaneContext<'_>,
) -> Awaited {
    let started = Instant::now();
    loop {
        lane.pulse.beat();
        let (why, quiet) = match is_done().await {
            Ok(true) => {
                lane.store_health.up(lane.name);
                return Awaited::Settled;
            }
            Ok(false) => ("older messages of the lane that it needs are not stored yet".to_owned(), quiet),
            Err(why) => (why, Duration::ZERO),
        };
        if started.elapsed() >= quiet {
            lane.store_health.down(lane.name, &format!("{} waits before {before}: {why}", lane.name));
        }
        tokio::select! {
            () = tokio::time::sleep(next_wait()) => {}
            () = lane.stop.cancelled() => return Awaited::Stopped,
        }
    }
}

fn tell_rejects(lane: &str, tally: &Tally) {
    for (reason, count) in &tally.rejected {
        tracing::info!(lane, reason = reason.code(), count, "{lane}: {count} rejected, {reason}");
    }
}

fn tell_abandoned<T>(lane: &LaneContext<'_>, pending: &[Batch<T>], missing: &str) {
    let messages: usize = pending.iter().map(Batch::len).sum();
    let name = lane.name;
    tracing::warn!(
        lane = name,
        messages,
        "{name}: stopping without {missing}; {messages} messages stay in the stream and are read again"
    );
}

/// How long the next try can wait: each remedy has its own pace.
struct RetryWaits {
    retry: Backoff,
    operator: Backoff,
}

impl RetryWaits {
    fn new() -> Self {
        Self { retry: Backoff::for_dependency(), operator: Backoff::for_operator() }
    }

    fn next_wait(&mut self, remedy: &Remedy) -> Duration {
        match remedy {
            Remedy::Operator => self.operator.next_wait(),
            Remedy::Retry | Remedy::Halve | Remedy::Isolate(_) | Remedy::AwaitReferences | Remedy::Rewind => {
                self.retry.next_wait()
            }
        }
    }
}
