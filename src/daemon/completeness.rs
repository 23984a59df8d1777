//! Checks periodically that the ledger is complete. Every sequence that all lanes have passed must be in custody,
//! removed by the stream, or on no lane.
//!
//! A position covers only what a consumer delivered. The stream may hold messages that no filter delivers, such as one
//! on a subject with the byte 0x7F. These messages are read by sequence here, and stored like any other.

use crate::command::{Failure, connect};
use crate::daemon::Daemon;
use crate::ingest::coverage;
use crate::ingest::lifecycle::ReceiptNotifier;
use crate::ingest::position::Positions as _;
use crate::nats::api::Api;
use crate::nats::stream_state::StreamState;
use crate::postgres::connections::Connections;
use crate::record::lane::Lane;
use crate::record::sequences::{Span, Spans};
use crate::replay::command::engine::Job;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What a lane passes is counted within this time and a little more.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// Sequences of one count at most: a backlog is counted in parts.
const COUNT_MAX: i64 = 1_000_000;

impl Daemon {
    /// Counts until told to stop.
    pub(crate) async fn count(&self, api: &Api, notifier: &impl ReceiptNotifier, stop: &CancellationToken) {
        let mut ticks = interval(COUNT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let counting = Box::pin(self.count_once(api, notifier, stop));
            match stop.run_until_cancelled(counting).await {
                Some(Err(failure)) => self.health.completeness.down(COUNT, &failure.what),
                Some(Ok(())) => self.health.completeness.up(COUNT),
                None => return,
            }
        }
    }

    async fn count_once(
        &self,
        api: &Api,
        notifier: &impl ReceiptNotifier,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let stream = &self.config.nats.stream;
        if !self.positions.is_counting(stream).await? {
            return Ok(());
        }
        let custody = self.positions.connections();
        let stream_state = api.stream_state(stream).await?;
        let mut epochs = coverage::epochs(custody, stream).await?;
        epochs.retain(|epoch| epoch.stream_created_ns == stream_state.incarnation.created_ns);
        let Some(newest) = epochs.iter().max_by_key(|epoch| epoch.regressions) else { return Ok(()) };
        let epoch = newest.number;
        let (closed, lanes) = self.closed(&stream_state).await?;
        let counted = self.positions.counted(epoch).await?;
        let Some(span) = Span::new(counted + 1, closed.min(counted + COUNT_MAX)) else { return Ok(()) };
        let numbers: Vec<i32> = epochs.iter().map(|epoch| epoch.number).collect();
        let missing = missing(custody, &numbers, span, &stream_state).await?;
        if !missing.is_empty() {
            self.store_missing(api, notifier, &stream_state, lanes, missing, stop).await?;
        }
        self.positions.keep_counted(epoch, span.last()).await?;
        Ok(())
    }

    /// The sequence that all lanes have passed, and the lanes.
    async fn closed(&self, stream_state: &StreamState) -> Result<(i64, Vec<Lane>), Failure> {
        let (mut closed, mut lanes) = (stream_state.last, Vec::new());
        for lane in Lane::all() {
            let position = self.positions.reliable_position(&stream_state.incarnation, lane).await;
            let position = position.map_err(|why| Failure::new(crate::command::Exit::Unavailable, why))?;
            if position > 0 || self.lanes.iter().any(|(own, _)| *own == lane) {
                lanes.push(lane);
                closed = closed.min(position);
            }
        }
        Ok((closed, lanes))
    }

    async fn store_missing(
        &self,
        api: &Api,
        notifier: &impl ReceiptNotifier,
        stream_state: &StreamState,
        lanes: Vec<Lane>,
        missing: Spans,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let custody = connect::database(&self.config, 1)?;
        let (first, count) = (missing.first().map_or(0, Span::first), missing.count());
        let job = Job { config: &self.config, api, stream_state, lanes, spans: missing, rates_are_complete: false };
        let replayed = job.run_with(&self.ledger, notifier, &custody, stop, false).await?;
        if let Some(unfinished) = replayed.unfinished {
            return Err(Failure::new(crate::command::Exit::Failed, unfinished.why));
        }
        let (stored, rejected) = (replayed.stored + replayed.duplicates, replayed.rejected());
        if stored + rejected > 0 {
            tracing::warn!(
                first,
                count,
                stored,
                rejected,
                "{count} sequences from {first} on were passed over by their lanes' consumers; read by sequence, {stored} became rows \
                 and {rejected} dead letters"
            );
            self.ledger.dead_letters_waiting.notify_one();
        }
        Ok(())
    }
}

const COUNT: &str = "the count";

/// The sequences that custody lacks, though the stream has not removed them.
async fn missing(
    custody: &Connections,
    epochs: &[i32],
    span: Span,
    stream_state: &StreamState,
) -> Result<Spans, Failure> {
    let mut missing = Spans::default();
    for gap in coverage::gaps(custody, epochs, span, |_| ()).await?.iter() {
        missing.add_all(&stream_state.remaining(gap));
    }
    Ok(missing)
}
