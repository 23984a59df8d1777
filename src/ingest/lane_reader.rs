//! The reader of a lane. It claims the lane, binds its consumer at the lane's position, and hands over batches in the
//! order of the stream.

mod direct;
mod look;
mod reading;

use crate::health::Health;
use crate::health::stalls::{self, Sight};
use crate::ingest::around::Around;
use crate::ingest::binding::{Consumer, Cursor, Interrupt, LateRange};
use crate::ingest::handover::{Handed, ReadProgress};
use crate::ingest::lane_reader::reading::Reading;
use crate::ingest::position::Positions;
use crate::ingest::pull::PullLimits;
use crate::metrics::LaneMetrics;
use crate::nats::api::Api;
use crate::nats::client::{Connection, Link};
use crate::nats::definitions::Names;
use crate::record::lane::Lane;
use crate::retry::Backoff;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What a lane's reader works with.
#[derive(Debug)]
pub struct LaneReader<P> {
    pub lane: Lane,
    /// The names of the stream and of the consumers.
    pub names: Arc<Names>,
    /// Requests, over the connection that all lanes share.
    pub api: Api,
    /// Makes the lane's own connection: a header that ends a client ends this lane's alone.
    pub link: Arc<Link>,
    pub positions: Arc<P>,
    /// The bounds of one batch.
    pub limits: PullLimits,
    /// Told what the lane waits for.
    pub health: Arc<Health>,
    pub metrics: LaneMetrics,
    /// Cancelled when all lanes are to stop; by a lane itself when it finds that the shared client has ended.
    pub stop: CancellationToken,
}

/// A lane that another instance owns is asked for again this often.
const STANDBY_INTERVAL: Duration = Duration::from_millis(500);
/// What is in flight is looked at this often, where nothing can be read before it is stored.
const IN_FLIGHT_INTERVAL: Duration = Duration::from_millis(20);

/// What a reader knows between two interruptions.
#[derive(Debug, Default)]
pub(crate) struct ReaderState {
    pub(crate) connection: Option<Connection>,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) consumer: Option<Consumer>,
    pub(crate) late: VecDeque<LateRange>,
    /// The last message of a suspect range that was handed over: when it is stored, the suspicion ends.
    pub(crate) suspicion_ends_with: Option<i64>,
    pub(crate) around: Around,
    pub(crate) generation: u64,
}

impl<P: Positions + Sync> LaneReader<P> {
    pub(crate) async fn run(self, batches: mpsc::Sender<Handed>, progress: Arc<ReadProgress>) {
        let pulse = self.health.pulse(&format!("the reader of {}", self.lane));
        let (mut state, mut backoff) = (ReaderState::default(), Backoff::for_dependency());
        loop {
            pulse.beat();
            let reading = Reading { reader: &self, progress: &progress, batches: &batches, pulse: &pulse };
            let interrupt = Box::pin(reading.read(&mut state, &mut backoff)).await;
            let Err(interrupt) = interrupt;
            if interrupt == Interrupt::Stopped || self.stop.is_cancelled() {
                return pulse.rest();
            }
            let wait = self.learn(&mut state, interrupt, &progress, &mut backoff).await;
            pulse.beat();
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Who waits for the database beside the lane's pipeline.
    pub(crate) fn position_name(&self) -> String {
        format!("the position of {}", self.lane)
    }

    /// How the lane looks is its owner's to say.
    fn show_nothing(&self) {
        let LaneMetrics { lag, oldest_unstored, in_flight, .. } = &self.metrics;
        lag.set(0);
        oldest_unstored.set(0.0);
        in_flight.set(0);
        let progress = stalls::LaneProgress { position: 0, stored: self.metrics.settled() };
        self.health.observe(self.lane.prefix(), Sight { progress, waiting: None });
    }

    /// Waits until what was taken is stored, or given up.
    async fn await_in_flight(&self, state: &ReaderState, progress: &ReadProgress) {
        let Some(cursor) = &state.cursor else { return };
        let is_waiting = || {
            progress.generation.load(Ordering::Acquire) == state.generation
                && progress.durable.load(Ordering::Acquire) < cursor.taken
        };
        while is_waiting() && !self.stop.is_cancelled() {
            self.positions.is_alive(self.lane);
            sleep(IN_FLIGHT_INTERVAL).await;
        }
    }

    /// Prepares for the next try, and says how long to wait for it.
    async fn learn(
        &self,
        state: &mut ReaderState,
        interrupt: Interrupt,
        progress: &ReadProgress,
        backoff: &mut Backoff,
    ) -> Duration {
        let (lane, name) = (self.lane, self.lane.prefix());
        if !matches!(interrupt, Interrupt::Nats(_) | Interrupt::Silent(_)) {
            self.health.nats.up(name);
        }
        match interrupt {
            Interrupt::Stopped => Duration::ZERO,
            Interrupt::Foreign => {
                state.forget_position();
                self.show_nothing();
                self.health.postgres.up(&self.position_name());
                STANDBY_INTERVAL
            }
            Interrupt::Void => {
                // What waits in the channel is of a claim that is void.
                if state.generation == progress.generation.load(Ordering::Acquire) {
                    progress.generation.fetch_add(1, Ordering::AcqRel);
                }
                state.forget_position();
                Duration::ZERO
            }
            Interrupt::StreamChanged => {
                tracing::warn!(lane = name, "{lane}: the stream is another one, or holds other messages than before");
                self.await_in_flight(state, progress).await;
                state.forget_position();
                Duration::ZERO
            }
            Interrupt::Remake(why) => {
                tracing::warn!(lane = name, "{lane}: {why}; the consumer is made anew from the lane's position");
                if let Some(cursor) = &state.cursor {
                    state.around.note_failure(cursor.taken, false);
                }
                state.consumer = None;
                backoff.next_wait()
            }
            Interrupt::Postgres(why) => {
                self.health.postgres.down(&self.position_name(), &format!("lane {lane}: {why}"));
                backoff.next_wait()
            }
            Interrupt::Nats(why) | Interrupt::Silent(why) => {
                let is_dead = state.end_dead_connection().await;
                if let (Some(cursor), Some(_)) = (&state.cursor, &state.consumer) {
                    state.around.note_failure(cursor.taken, is_dead);
                }
                if is_dead {
                    // Nobody but this lane is concerned, and it reads around what ended the client.
                    return Duration::ZERO;
                }
                self.health.nats.down(name, &format!("lane {lane}: {why}"));
                if self.api.is_dead().await {
                    self.stop.cancel();
                }
                backoff.next_wait()
            }
        }
    }
}

impl ReaderState {
    fn forget_position(&mut self) {
        self.cursor = None;
        self.consumer = None;
        self.late.clear();
        self.suspicion_ends_with = None;
    }

    /// Whether the lane's client has ended, as it does on some malformed headers. Then the next try makes another one.
    async fn end_dead_connection(&mut self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let is_dead = connection.is_dead().await;
        if is_dead {
            self.connection = None;
        }
        is_dead
    }
}
