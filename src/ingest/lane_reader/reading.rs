//! Reads a lane between two interruptions: pulls messages, and hands them over to the pipeline.

use crate::health::Pulse;
use crate::ingest::binding::{Binder, Interrupt};
use crate::ingest::handover::{Handed, ReadProgress, Ticket, Way};
use crate::ingest::lane_reader::{LaneReader, ReaderState};
use crate::ingest::lifecycle::Delivery;
use crate::ingest::position::{Order, Positions};
use crate::ingest::pull::{Broken, Puller};
use crate::record::message::{Headers, Incarnation, Message, storable_subject};
use crate::retry::Backoff;
use async_nats::{HeaderMap, Subject, jetstream};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::{self, Permit};
use tokio::time::{Instant, sleep, sleep_until};

/// The consumer, the stream and the claim are looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A consumer that has nothing is asked no oftener than this.
const NOTHING_INTERVAL: Duration = Duration::from_millis(50);

/// A batch is taken by a pipeline, or waits for it in this channel.
pub(crate) type BatchPermit<'a> = Permit<'a, Handed>;

/// A reader between two interruptions.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a, P> {
    pub(crate) reader: &'a LaneReader<P>,
    pub(crate) progress: &'a ReadProgress,
    pub(crate) batches: &'a mpsc::Sender<Handed>,
    pub(crate) pulse: &'a Pulse,
}

/// Nothing but an interruption ends the reading.
pub(crate) enum Never {}

impl<P: Positions + Sync> Reading<'_, P> {
    pub(crate) fn binder(&self) -> Binder<'_, P> {
        let LaneReader { lane, api, names, positions, metrics, .. } = self.reader;
        Binder { lane: *lane, api, names, positions, metrics }
    }

    pub(crate) async fn read(&self, state: &mut ReaderState, backoff: &mut Backoff) -> Result<Never, Interrupt> {
        if state.connection.is_none() {
            let LaneReader { link, lane, .. } = self.reader;
            let connected = link.connect_for(lane.prefix(), None).await;
            state.connection = Some(connected.map_err(|error| Interrupt::Nats(error.to_string()))?);
        }
        if state.cursor.is_none() {
            // Read before the claim: a rewind from here on is one of this claim.
            state.generation = self.progress.generation.load(Ordering::Acquire);
            let (cursor, late) = self.binder().claim().await?;
            self.progress.begin_at(cursor.taken);
            tracing::info!(
                lane = self.reader.lane.prefix(),
                position = cursor.taken,
                "{}: owned, from position {} on",
                self.reader.lane,
                cursor.taken
            );
            state.cursor = Some(cursor);
            state.late = late.into();
            self.is_well(backoff);
        }
        loop {
            self.check_generation(state)?;
            if let Some(range) = state.late.front().copied() {
                self.read_late(state, range).await?;
            } else if state.around.is_wanted() {
                self.read_around(state).await?;
            } else {
                self.pull_on(state, backoff).await?;
            }
        }
    }

    fn is_well(&self, backoff: &mut Backoff) {
        let LaneReader { lane, positions, health, .. } = self.reader;
        positions.is_alive(*lane);
        health.nats.up(lane.prefix());
        health.postgres.up(&self.reader.position_name());
        backoff.reset();
    }

    fn check_generation(&self, state: &ReaderState) -> Result<(), Interrupt> {
        if self.reader.stop.is_cancelled() {
            return Err(Interrupt::Stopped);
        }
        if state.generation != self.progress.generation.load(Ordering::Acquire) {
            return Err(Interrupt::Void);
        }
        Ok(())
    }

    /// Waits for a place for the next batch, and looks after the lane meanwhile. Nothing is pulled that has no place yet: what is in
    /// flight is in memory.
    pub(crate) async fn place(
        &self,
        state: &mut ReaderState,
        looked: &mut Instant,
    ) -> Result<BatchPermit<'_>, Interrupt> {
        loop {
            self.pulse.rest();
            tokio::select! {
                biased;
                () = self.reader.stop.cancelled() => return Err(Interrupt::Stopped),
                () = self.progress.rewound.notified() => self.check_generation(state)?,
                place = self.batches.reserve() => {
                    self.pulse.beat();
                    return place.map_err(|_| Interrupt::Stopped);
                }
                () = sleep_until(*looked + LOOK_INTERVAL) => {
                    self.pulse.beat();
                    *looked = Instant::now();
                    self.look(state).await?;
                }
            }
        }
    }

    pub(crate) fn delivery(&self, generation: u64, message: Message, order: Order, way: Way) -> Delivery<Ticket> {
        let handed = self.progress.handed.fetch_add(1, Ordering::Relaxed) + 1;
        let ticket = Ticket { way, sequence: message.sequence, handed, generation };
        Delivery::new(message, order, ticket)
    }

    /// Pulls until something is wrong. What one pull brings is one batch.
    async fn pull_on(&self, state: &mut ReaderState, backoff: &mut Backoff) -> Result<(), Interrupt> {
        let LaneReader { names, limits, stop, .. } = self.reader;
        let (Some(connection), Some(cursor)) = (state.connection.clone(), state.cursor.clone()) else {
            return Err(Interrupt::Void);
        };
        let before = state.consumer.take();
        let created_before = before.as_ref().map(|consumer| consumer.created_ns);
        self.binder().check_stream(&cursor).await?;
        let consumer = match self.binder().consumer(&cursor, before).await {
            Err(Interrupt::Silent(why)) => {
                // The stream has a leader, and the consumer has none, or cannot be made: as after the death of a server.
                let lane = self.reader.lane;
                tracing::warn!(lane = lane.prefix(), "{lane}: {why}; the lane is read without a consumer for a while");
                state.around.read_without_consumer();
                return Ok(());
            }
            consumer => consumer?,
        };
        if created_before.is_some_and(|created| created != consumer.created_ns) {
            // What it delivered did not arrive.
            state.around.note_failure(cursor.taken, false);
            if state.around.is_wanted() {
                return Ok(());
            }
        }
        let name = consumer.name.clone();
        state.consumer = Some(consumer);
        let mut connected = connection.connected.clone();
        connected.mark_unchanged();
        let mut puller =
            Puller::new(connection.client.clone(), &names.ledger, &name, connection.connected.clone()).await?;
        let mut looked = Instant::now();
        loop {
            self.check_generation(state)?;
            let place = self.place(state, &mut looked).await?;
            let asked = Instant::now();
            let brought = puller.pull(*limits, stop).await?;
            self.pulse.beat();
            if brought.messages.is_empty() {
                drop(place);
                self.pause_after_nothing(asked).await;
            } else {
                let taken = self.accept(state, brought.messages).await?;
                if !taken.deliveries.is_empty() {
                    state.around.all_is_well();
                }
                hand_over(state, place, taken.deliveries);
                if let Some(interrupt) = taken.interrupt {
                    return Err(interrupt);
                }
            }
            if connected.has_changed().unwrap_or(false) {
                // What was on its way is lost: bind again, and see.
                return Ok(());
            }
            if brought.is_answered {
                self.is_well(backoff);
            }
            if looked.elapsed() >= LOOK_INTERVAL {
                looked = Instant::now();
                self.look(state).await?;
            }
        }
    }

    /// Where another instance waits for the next message already, the server says at once that there is none for this one.
    async fn pause_after_nothing(&self, asked: Instant) {
        if asked.elapsed() < NOTHING_INTERVAL {
            tokio::select! {
                () = sleep(NOTHING_INTERVAL) => {}
                () = self.reader.stop.cancelled() => {}
            }
        }
    }

    /// Takes delivered messages as far as their delivery numbers follow on each other. The first deliveries of a consumer may
    /// be those of another one, in a stream that was made anew; from the second on, its number would tell.
    async fn accept(
        &self,
        state: &mut ReaderState,
        pulled: Vec<async_nats::Message>,
    ) -> Result<PulledBatch, Interrupt> {
        let LaneReader { lane, api, names, .. } = self.reader;
        let generation = state.generation;
        let (Some(cursor), Some(consumer)) = (&mut state.cursor, &mut state.consumer) else {
            return Err(Interrupt::Void);
        };
        if consumer.deliveries == 0 && api.incarnation(&names.ledger).await? != cursor.incarnation {
            return Err(Interrupt::StreamChanged);
        }
        let mut taken = PulledBatch { deliveries: Vec::with_capacity(pulled.len()), interrupt: None };
        for message in pulled {
            let message = jetstream::Message { message, context: api.context().clone() };
            let Some(Delivered { mut message, reply, number, is_partial }) = delivered(message, &cursor.incarnation)
            else {
                continue;
            };
            if number != consumer.deliveries + 1 {
                let (expected, consumer) = (consumer.deliveries + 1, &consumer.name);
                taken.interrupt = Some(Interrupt::Remake(format!(
                    "the consumer {consumer} delivered number {number} where {expected} follows: deliveries were lost on the way"
                )));
                break;
            }
            consumer.deliveries = number;
            if message.sequence <= cursor.taken {
                continue;
            }
            if is_partial {
                message = api.next_message(&cursor.incarnation, *lane, message.sequence).await?;
            }
            let (sequence, server_time_ns) = (message.sequence, message.server_time_ns);
            let order = Order::Next { claim: cursor.claim, after: cursor.taken };
            taken.deliveries.push(self.delivery(generation, message, order, Way::Delivered(reply)));
            cursor.taken = sequence;
            cursor.last = Some((sequence, server_time_ns));
        }
        Ok(taken)
    }
}

/// Hands messages over, if there are any.
pub(crate) fn hand_over(state: &ReaderState, place: BatchPermit<'_>, deliveries: Vec<Delivery<Ticket>>) {
    if !deliveries.is_empty() {
        place.send(Handed { generation: state.generation, deliveries });
    }
}

struct PulledBatch {
    deliveries: Vec<Delivery<Ticket>>,
    /// Why the rest was not taken.
    interrupt: Option<Interrupt>,
}

impl From<Broken> for Interrupt {
    fn from(Broken(why): Broken) -> Self {
        Interrupt::Nats(why)
    }
}

/// A message as the consumer delivers it.
struct Delivered {
    message: Message,
    reply: Subject,
    /// The consumer's own number of the delivery.
    number: u64,
    /// The stream has more of it: the client keeps nothing of a status line but its meaning, and a consumer that somebody has set to
    /// `headers_only` leaves out the payload.
    is_partial: bool,
}

/// Takes a delivered message apart. One without a JetStream reply subject is none.
fn delivered(message: jetstream::Message, incarnation: &Incarnation) -> Option<Delivered> {
    let info = message.info().ok()?;
    let number = info.consumer_sequence;
    let sequence = i64::try_from(info.stream_sequence).ok()?;
    let server_time_ns = i64::try_from(info.published.unix_timestamp_nanos()).ok()?;
    let message = message.message;
    let has_size = |headers: &HeaderMap| headers.get("Nats-Msg-Size").is_some();
    let is_partial = message.status.is_some() || message.headers.as_ref().is_some_and(has_size);
    let headers = match &message.headers {
        None => Headers::NONE,
        Some(headers) => Headers::from_pairs(
            headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str()))),
        ),
    };
    let read = Message {
        incarnation: incarnation.clone(),
        sequence,
        subject: storable_subject(&message.subject),
        server_time_ns,
        headers,
        payload: message.payload,
    };
    Some(Delivered { message: read, number, reply: message.reply?, is_partial })
}
