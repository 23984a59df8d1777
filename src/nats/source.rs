//! Where does a lane's next batch come from? A task of its own pulls ahead while the batch before is being committed.

use super::api::{Api, ApiError, ConsumerChange, sequence_of};
use super::definitions;
use super::doubts::Doubts;
use super::floor;
use super::lease::{Held, Lease};
use super::pull::{Broken, PullLimits, Puller};
use super::reclaim::{self, DoubtRead, Reclaim};
use crate::domain::message::{Headers, Incarnation, Message, storable_subject};
use crate::domain::subject::Lane;
use crate::health::{Health, Pulse};
use crate::lifecycle::{Delivery, Source};
use crate::metrics::LaneMetrics;
use crate::retry::Backoff;
use async_nats::jetstream;
use async_nats::{Client, HeaderMap, Request, Subject};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The right to acknowledge a message of a lane.
#[derive(Debug)]
pub struct Ticket {
    reply: Subject,
    /// Keeps the deadlines of the whole pull extended, and its messages from being reclaimed, until its last message is settled.
    _lease: Arc<Lease>,
}

/// A lane's consumer, as a source of batches.
#[derive(Debug)]
pub struct LaneSource {
    batches: mpsc::Receiver<Vec<Delivery<Ticket>>>,
    lane: Lane,
    stream: String,
    api: Api,
    client: Client,
    doubts: Arc<Doubts>,
    metrics: LaneMetrics,
}

/// What a lane's puller works with.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The lane.
    pub lane: Lane,
    /// The stream's name.
    pub stream: String,
    /// The server.
    pub api: Api,
    /// The bounds of one pull.
    pub limits: PullLimits,
    /// Counts how often the connection was made anew.
    pub reconnected: watch::Receiver<u64>,
    /// Told what the lane waits for.
    pub health: Arc<Health>,
    /// How far the consumers can be believed.
    pub doubts: Arc<Doubts>,
    /// The lane's counters.
    pub metrics: LaneMetrics,
    /// Cancelled when all lanes are to stop; by a lane itself when it finds that the client has ended.
    pub stop: CancellationToken,
}

/// How long all acknowledgements of a batch may take; after that the messages come again, and are known.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// The consumer is asked about its lag and its floor this often.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);
/// A consumer that has nothing is asked no oftener than this.
const NOTHING_INTERVAL: Duration = Duration::from_millis(50);

const ACK: Bytes = Bytes::from_static(b"+ACK");

impl Source for LaneSource {
    type Ticket = Ticket;

    async fn take(&mut self) -> Option<Vec<Delivery<Ticket>>> {
        self.batches.recv().await
    }

    async fn references_settled(&self, sequence: i64) -> Result<bool, String> {
        let Some(lane) = self.lane.refers_to() else { return Ok(true) };
        floor::is_settled(&self.api, &self.doubts, &self.stream, lane, sequence).await
    }

    async fn references_stored(&self, sequence: i64) -> Result<bool, String> {
        self.references_settled(sequence).await
    }

    async fn acknowledge(&mut self, tickets: Vec<Ticket>) {
        // Acknowledgements on one connection are processed in order, so the answer to the last one speaks for all.
        // `double_ack` would take "no such consumer" for a yes.
        let messages = tickets.len();
        let acknowledging = async {
            let mut tickets = tickets;
            let last = tickets.pop()?;
            for ticket in tickets {
                self.client.publish(ticket.reply, ACK).await.ok()?;
            }
            self.client.send_request(last.reply, Request::new().payload(ACK)).await.ok()
        };
        if !matches!(timeout(ACK_TIMEOUT, acknowledging).await, Ok(Some(_))) {
            self.metrics.acks_unconfirmed.inc_by(messages as u64);
            tracing::debug!(messages, "acknowledgements were not confirmed: the messages come again, and are known");
        }
    }
}

impl LaneSource {
    /// Starts pulling.
    pub fn start(feed: Feed) -> Self {
        // One batch may wait here, or be on its way, while the one before it is being committed.
        let (sender, batches) = mpsc::channel(1);
        let source = Self {
            batches,
            lane: feed.lane,
            stream: feed.stream.clone(),
            api: feed.api.clone(),
            client: feed.api.client().clone(),
            doubts: feed.doubts.clone(),
            metrics: feed.metrics.clone(),
        };
        tokio::spawn(feed.run(sender));
        source
    }
}

/// A consumer that is there and as it must be.
struct Bound {
    held: Held,
    incarnation: Incarnation,
    ack_wait: Duration,
    puller: Puller,
    reclaim: Reclaim,
}

impl Feed {
    async fn run(self, batches: mpsc::Sender<Vec<Delivery<Ticket>>>) {
        let pulse = self.health.pulse(&format!("the puller of {}", self.lane));
        let mut backoff = Backoff::for_dependency();
        while !self.stop.is_cancelled() {
            pulse.beat();
            let times_connected = *self.reconnected.borrow();
            let why = match self.bind().await {
                Ok(mut bound) => {
                    let why = self.keep_pulling(&mut bound, &batches, &pulse, &mut backoff).await;
                    let Err(Broken(why)) = why else { return pulse.rest() };
                    why
                }
                Err(error) => error.to_string(),
            };
            if *self.reconnected.borrow() != times_connected {
                // It failed with the connection before, which has told that already.
                continue;
            }
            self.health.nats.down(self.lane.prefix(), &format!("lane {}: {why}", self.lane));
            if self.api.is_dead().await {
                self.stop.cancel();
                return pulse.rest();
            }
            pulse.beat();
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = self.stop.cancelled() => {}
            }
        }
        pulse.rest();
    }

    /// Finds the stream and the lane's consumer. A consumer that was deleted is made anew: it reads the lane from the start,
    /// and what is stored already is known.
    async fn bind(&self) -> Result<Bound, ApiError> {
        let incarnation = self.api.incarnation(&self.stream).await?;
        let consumer = match self.api.consumer_info(&self.stream, self.lane).await {
            Err(ApiError::ConsumerNotFound) => {
                let made = self
                    .api
                    .change_consumer(&self.stream, &definitions::consumer(self.lane), ConsumerChange::Create)
                    .await?;
                tracing::warn!(
                    lane = self.lane.prefix(),
                    "the consumer {} did not exist and was made from nats/; the lane is read from the start of the stream, \
                     and what is stored already is recognised",
                    made.name
                );
                made
            }
            consumer => consumer?,
        };
        if let Some(danger) = definitions::consumer_danger(self.lane, &consumer.config) {
            self.doubts.is_wrong(self.lane);
            return Err(ApiError::Danger(danger));
        }
        self.doubts.is_right(self.lane, &incarnation, sequence_of(consumer.ack_floor.stream_sequence));
        let puller = Puller::new(self.api.client().clone(), &self.stream, self.lane, self.reconnected.clone())
            .await
            .map_err(|Broken(why)| ApiError::Silent(why))?;
        Ok(Bound {
            held: Held::counted_by(self.metrics.held.clone()),
            incarnation,
            ack_wait: consumer.config.ack_wait,
            puller,
            reclaim: Reclaim::new(consumer.config.ack_wait + SURVEY_INTERVAL),
        })
    }

    /// Pulls until told to stop, or until something is wrong with the consumer.
    async fn keep_pulling(
        &self,
        bound: &mut Bound,
        batches: &mpsc::Sender<Vec<Delivery<Ticket>>>,
        pulse: &Pulse,
        backoff: &mut Backoff,
    ) -> Result<(), Broken> {
        let mut reconnected = self.reconnected.clone();
        reconnected.mark_unchanged();
        let mut surveyed = Instant::now();
        while !self.stop.is_cancelled() {
            let Some(place) = self.await_place(bound, batches, pulse, &mut surveyed).await? else { return Ok(()) };
            pulse.beat();
            self.settle_doubt(bound);
            let taken = if bound.reclaim.is_urgent() {
                self.reclaim(bound, pulse).await?
            } else {
                let asked = Instant::now();
                let pulled = bound.puller.pull(self.limits, &self.stop).await?;
                if pulled.is_empty() {
                    self.pause_after_nothing(asked).await;
                }
                self.read_all(pulled, &bound.incarnation).await?
            };
            if reconnected.has_changed().unwrap_or(false) {
                reconnected.mark_unchanged();
                bound.reclaim.reconnected();
            }
            if surveyed.elapsed() >= SURVEY_INTERVAL {
                surveyed = Instant::now();
                pulse.beat();
                self.survey(bound).await?;
            }
            pulse.beat();
            // A stream that was made anew between two pulls has new sequences under the old names. What was pulled is of
            // this incarnation only if it was the stream's before the pull and still is.
            let now = self.api.incarnation(&self.stream).await?;
            if now != bound.incarnation {
                return Err(Broken(format!("the stream was made anew: it is now {now}")));
            }
            self.health.nats.up(self.lane.prefix());
            backoff.reset();
            if taken.is_empty() {
                continue;
            }
            place.send(self.lease(taken, bound.ack_wait, &bound.held));
        }
        Ok(())
    }

    /// Waits for a place for the next batch, and looks after the consumer meanwhile. Nothing is pulled that has no place yet: what is
    /// held, is held in memory. `None`: nobody takes batches any more.
    async fn await_place<'a>(
        &self,
        bound: &mut Bound,
        batches: &'a mpsc::Sender<Vec<Delivery<Ticket>>>,
        pulse: &Pulse,
        surveyed: &mut Instant,
    ) -> Result<Option<mpsc::Permit<'a, Vec<Delivery<Ticket>>>>, Broken> {
        loop {
            pulse.rest();
            tokio::select! {
                biased;
                place = batches.reserve() => return Ok(place.ok()),
                () = sleep_until(*surveyed + SURVEY_INTERVAL) => {
                    *surveyed = Instant::now();
                    pulse.beat();
                    self.survey(bound).await?;
                }
            }
        }
    }

    /// Where another instance waits for the next message already, the server says at once that there is none for this one.
    async fn pause_after_nothing(&self, asked: Instant) {
        if asked.elapsed() < NOTHING_INTERVAL {
            tokio::select! {
                () = tokio::time::sleep(NOTHING_INTERVAL) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Looks after the lag, and whether there is something to reclaim.
    async fn survey(&self, bound: &mut Bound) -> Result<(), Broken> {
        let survey = reclaim::survey(&self.api, &bound.incarnation, self.lane, bound.reclaim.clear_to()).await;
        if let Err(ApiError::Danger(_)) = &survey {
            self.doubts.is_wrong(self.lane);
        }
        let survey = survey?;
        self.doubts.is_right(self.lane, &bound.incarnation, survey.floor);
        if let Some(above) = self.doubts.above(self.lane, &bound.incarnation) {
            bound.reclaim.doubt(above);
        }
        self.metrics.lag.set(i64::try_from(survey.undelivered).unwrap_or(i64::MAX));
        self.metrics.oldest_unacknowledged.set(survey.oldest_age.as_secs_f64());
        bound.reclaim.consider(&survey, &bound.held);
        let sight = survey.sight(self.lane, self.metrics.settled());
        self.health.observe(self.lane.prefix(), sight);
        Ok(())
    }

    /// What was in doubt, was read, and is not held any more, is stored.
    fn settle_doubt(&self, bound: &mut Bound) {
        let Some(DoubtRead { up_to, is_all }) = bound.reclaim.doubt_read() else { return };
        let settled = bound.held.first().map_or(up_to, |waiting| up_to.min(waiting - 1));
        if self.stop.is_cancelled() {
            // What is let go of at a stop was perhaps given up.
            return;
        }
        if is_all && settled == up_to {
            self.doubts.dispelled(self.lane);
            bound.reclaim.doubt_is_over();
        } else {
            self.doubts.settled(self.lane, settled);
        }
    }

    /// Takes over what the server delivered and nobody received.
    async fn reclaim(&self, bound: &mut Bound, pulse: &Pulse) -> Result<Vec<(Message, Subject)>, Broken> {
        if bound.reclaim.wants_survey() {
            self.survey(bound).await?;
        }
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        while messages.len() < self.limits.messages_max && bytes < self.limits.bytes_max {
            pulse.beat();
            let Some(message) = bound.reclaim.next(&self.api, &bound.incarnation, self.lane).await? else { break };
            if !bound.held.contains(message.sequence) {
                bytes += message.payload.len() + message.headers.as_bytes().map_or(0, <[u8]>::len);
                messages.push(message);
            }
        }
        if let (Some(first), Some(last)) = (messages.first(), messages.last()) {
            tracing::info!(
                lane = self.lane.prefix(),
                messages = messages.len(),
                "{}: {} messages from sequence {} to {} did not come through the consumer; read from the stream itself",
                self.lane,
                messages.len(),
                first.sequence,
                last.sequence
            );
            self.metrics.reclaimed.inc_by(messages.len() as u64);
        }
        let with_reply = |message: Message| {
            let reply = reclaim::ack_subject(self.lane, &message).into();
            (message, reply)
        };
        Ok(messages.into_iter().map(with_reply).collect())
    }

    fn lease(&self, taken: Vec<(Message, Subject)>, ack_wait: Duration, held: &Held) -> Vec<Delivery<Ticket>> {
        let held_messages = taken.iter().map(|(message, reply)| (message.sequence, reply.clone())).collect();
        let lease = Arc::new(Lease::new(self.api.client().clone(), held_messages, ack_wait, held));
        taken
            .into_iter()
            .map(|(message, reply)| Delivery::new(message, Ticket { reply, _lease: lease.clone() }))
            .collect()
    }

    /// Takes delivered messages apart. One without a JetStream reply subject is none, and is left out.
    async fn read_all(
        &self,
        pulled: Vec<async_nats::Message>,
        incarnation: &Incarnation,
    ) -> Result<Vec<(Message, Subject)>, Broken> {
        let mut taken = Vec::with_capacity(pulled.len());
        for message in pulled {
            // The client keeps nothing of a status line but its meaning, and a consumer that somebody has set to `headers_only`
            // leaves out the payload; the stream has the bytes.
            let has_size = |headers: &HeaderMap| headers.get("Nats-Msg-Size").is_some();
            let is_partial = message.status.is_some() || message.headers.as_ref().is_some_and(has_size);
            let Some((mut read, reply)) = self.read(message, incarnation) else { continue };
            if is_partial {
                read = self.api.next_message(incarnation, self.lane, read.sequence).await?;
            }
            taken.push((read, reply));
        }
        Ok(taken)
    }

    fn read(&self, message: async_nats::Message, incarnation: &Incarnation) -> Option<(Message, Subject)> {
        let message = jetstream::Message { message, context: self.api.context().clone() };
        let info = message.info().ok()?;
        let sequence = i64::try_from(info.stream_sequence).ok()?;
        let server_time_ns = i64::try_from(info.published.unix_timestamp_nanos()).ok()?;
        let message = message.message;
        let headers = match &message.headers {
            None => Headers::NONE,
            Some(headers) => Headers::from_pairs(
                headers
                    .iter()
                    .flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str()))),
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
        Some((read, message.reply?))
    }
}
