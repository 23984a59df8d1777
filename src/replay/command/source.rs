//! The source of replayed messages. A separate task reads ahead of the commits, and hands over batches in the order of
//! the stream.

use crate::health::Health;
use crate::ingest::lifecycle::{Delivery, Source};
use crate::ingest::position::Order;
use crate::nats::api::{Api, ApiError};
use crate::record::lane::Lane;
use crate::record::message::{Incarnation, Message};
use crate::record::sequences::Spans;
use crate::record::subject::Subject;
use crate::replay::command::references::{ReferencesAnswer, Referred};
use crate::replay::reader::{MessageReader, Window};
use crate::retry::Backoff;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Why a replay cannot go on.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    pub(crate) why: String,
    /// The stream is another one now, and its sequences are those of other messages.
    pub(crate) is_for_ever: bool,
}

impl Obstacle {
    fn new(why: String) -> Self {
        Self { why, is_for_ever: false }
    }

    fn for_ever(why: String) -> Self {
        Self { why, is_for_ever: true }
    }
}

/// How far a replay has come, and why it ended.
#[derive(Debug)]
pub(crate) struct Course {
    /// Everything up to this sequence is durable.
    settled: AtomicI64,
    /// All that was handed over was taken.
    drained: AtomicBool,
    /// Everything was handed over.
    complete: AtomicBool,
    /// Why it cannot go on.
    obstacle: Mutex<Option<Obstacle>>,
    /// Where the stream had nothing.
    absent: Mutex<Spans>,
}

impl Course {
    pub(crate) fn new(before: i64) -> Self {
        Self {
            settled: AtomicI64::new(before),
            drained: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            obstacle: Mutex::default(),
            absent: Mutex::default(),
        }
    }

    pub(crate) fn settled(&self) -> i64 {
        self.settled.load(Ordering::Relaxed)
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed) && self.complete.load(Ordering::Relaxed)
    }

    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle.lock().clone()
    }

    pub(crate) fn absent(&self) -> Spans {
        self.absent.lock().clone()
    }

    fn note_absent(&self, absent: &Spans) {
        self.absent.lock().add_all(absent);
    }

    fn cannot_go_on(&self, why: Obstacle) {
        self.obstacle.lock().get_or_insert(why);
    }
}

/// The bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// Messages of one commit; everything up to `through` is in it or was looked at before.
#[derive(Debug)]
struct ReplayedBatch {
    messages: Vec<Message>,
    through: i64,
}

/// What the reading task works with.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) reader: MessageReader,
    pub(crate) api: Api,
    pub(crate) incarnation: Incarnation,
    pub(crate) limits: BatchLimits,
    pub(crate) health: Arc<Health>,
    pub(crate) course: Arc<Course>,
    pub(crate) stop: CancellationToken,
}

/// Who waits while the server is away.
pub(crate) const NAME: &str = "replay";

impl Feed {
    async fn run(mut self, batches: mpsc::Sender<ReplayedBatch>) {
        match self.hand_over_all(&batches).await {
            Ok(()) => self.course.complete.store(true, Ordering::Relaxed),
            Err(why) => self.course.cannot_go_on(why),
        }
    }

    async fn hand_over_all(&mut self, batches: &mpsc::Sender<ReplayedBatch>) -> Result<(), Obstacle> {
        let mut queue = VecDeque::new();
        let (mut through, mut is_end) = (self.course.settled(), false);
        while !is_end || !queue.is_empty() {
            while !is_end && !is_enough(&queue, self.limits) {
                match self.read().await? {
                    Some(window) => {
                        through = window.through;
                        self.course.note_absent(&window.absent);
                        queue.extend(window.messages);
                    }
                    None => is_end = true,
                }
            }
            // What was read is of this incarnation only if it is the stream's now as well.
            self.same_stream().await?;
            let messages = cut(&mut queue, self.limits);
            let through = queue.front().map_or(through, |next| next.sequence - 1);
            if !messages.is_empty() && batches.send(ReplayedBatch { messages, through }).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<Window>, Obstacle> {
        let mut backoff = Backoff::for_dependency();
        loop {
            match self.reader.read().await {
                Ok(window) => {
                    self.health.nats.up(NAME);
                    return Ok(window);
                }
                Err(error) => self.wait(error, &mut backoff).await?,
            }
        }
    }

    async fn same_stream(&self) -> Result<(), Obstacle> {
        let mut backoff = Backoff::for_dependency();
        loop {
            match self.api.incarnation(&self.incarnation.stream).await {
                Ok(now) if now == self.incarnation => return Ok(()),
                Ok(now) => {
                    let why = format!("the stream was made anew: it was {}, and is {now}", self.incarnation);
                    return Err(Obstacle::for_ever(why));
                }
                Err(error) => self.wait(error, &mut backoff).await?,
            }
        }
    }

    /// Waits for a server that is away. A stream that is gone does not come back as it was.
    async fn wait(&self, error: ApiError, backoff: &mut Backoff) -> Result<(), Obstacle> {
        if error == ApiError::StreamNotFound {
            return Err(Obstacle::for_ever(format!("the stream {} is gone", self.incarnation)));
        }
        self.health.nats.down(NAME, &error.to_string());
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => Ok(()),
            () = self.stop.cancelled() => {
                Err(Obstacle::new(format!("told to stop while NATS was away: {error}")))
            }
        }
    }
}

fn is_enough(queue: &VecDeque<Message>, limits: BatchLimits) -> bool {
    queue.len() >= limits.messages_max || queue.iter().map(bytes_of).sum::<usize>() >= limits.bytes_max
}

fn bytes_of(message: &Message) -> usize {
    message.payload.len() + message.headers.as_bytes().map_or(0, <[u8]>::len)
}

/// Takes one batch from the queue. A commit writes usage before the rates that came with it, so a batch ends before a
/// message that refers to what is in it.
fn cut(queue: &mut VecDeque<Message>, limits: BatchLimits) -> Vec<Message> {
    let lane = |message: &Message| Subject::parse(&message.subject).map(|subject| subject.lane);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut lanes: Vec<Lane> = Vec::new();
    while let Some(next) = queue.front() {
        let lane = lane(next);
        let refers_to_these = lane.and_then(Lane::refers_to).is_some_and(|referred| lanes.contains(&referred));
        bytes += bytes_of(next);
        let is_full = batch.len() >= limits.messages_max || bytes > limits.bytes_max;
        if !batch.is_empty() && (refers_to_these || is_full) {
            break;
        }
        lanes.extend(lane.filter(|lane| !lanes.contains(lane)));
        batch.extend(queue.pop_front());
    }
    batch
}

/// The stream, read again, as a source of batches.
#[derive(Debug)]
pub(crate) struct ReplaySource<'a> {
    batches: mpsc::Receiver<ReplayedBatch>,
    course: Arc<Course>,
    stop: CancellationToken,
    referred: Option<Referred<'a>>,
    /// The last message of the batch that is being settled, and everything that is settled with it.
    at_work: (i64, i64),
}

impl<'a> ReplaySource<'a> {
    /// Starts reading. Without `referred`, what others refer to is taken for settled.
    pub(crate) fn start(feed: Feed, referred: Option<Referred<'a>>) -> Self {
        // One batch may wait here while the one before it is being committed.
        let (sender, batches) = mpsc::channel(1);
        let (course, stop) = (feed.course.clone(), feed.stop.clone());
        tokio::spawn(feed.run(sender));
        Self { batches, course, stop, referred, at_work: (0, 0) }
    }
}

impl Source for ReplaySource<'_> {
    /// Its sequence: nothing is acknowledged, and how far it has come is known by it.
    type Ticket = i64;

    async fn take(&mut self) -> Option<Vec<Delivery<i64>>> {
        let handed = tokio::select! {
            biased;
            // A batch may have been abandoned, and what comes after it must not be stored as if it were not.
            () = self.stop.cancelled() => return None,
            handed = self.batches.recv() => handed,
        };
        let Some(ReplayedBatch { messages, through }) = handed else {
            self.course.drained.store(true, Ordering::Relaxed);
            return None;
        };
        self.at_work = (messages.last()?.sequence, through);
        Some(
            messages
                .into_iter()
                .map(|message| {
                    let sequence = message.sequence;
                    Delivery::new(message, Order::Late, sequence)
                })
                .collect(),
        )
    }

    async fn references_settled(&self, sequence: i64) -> Result<bool, String> {
        let Some(referred) = &self.referred else { return Ok(true) };
        match referred.look(sequence).await? {
            ReferencesAnswer::Settled => Ok(true),
            ReferencesAnswer::Unsettled(why) => {
                self.course.cannot_go_on(Obstacle::new(why));
                self.stop.cancel();
                Ok(false)
            }
        }
    }

    async fn references_stored(&self, sequence: i64) -> Result<bool, String> {
        let Some(referred) = &self.referred else { return Ok(true) };
        let Some(why) = referred.look_in_stream(sequence).await? else { return Ok(true) };
        self.course.cannot_go_on(Obstacle::new(why));
        self.stop.cancel();
        Ok(false)
    }

    async fn acknowledge(&mut self, settled: i64) {
        let (last, through) = self.at_work;
        self.course.settled.store(if settled == last { through } else { settled }, Ordering::Relaxed);
    }

    fn rewind(&mut self, why: &str) {
        self.course.cannot_go_on(Obstacle::for_ever(format!("{why}: run `ledgerd reconcile --repair`")));
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::message::Headers;

    fn message(sequence: i64, lane: &str) -> Message {
        Message {
            incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 1 },
            sequence,
            subject: format!("ledger.{lane}.A"),
            server_time_ns: sequence,
            headers: Headers::NONE,
            payload: vec![b'x'; 10].into(),
        }
    }

    fn cuts(lanes: &[&str], limits: BatchLimits) -> Vec<usize> {
        let mut queue: VecDeque<_> = (1..).zip(lanes).map(|(sequence, lane)| message(sequence, lane)).collect();
        let mut cuts = Vec::new();
        while !queue.is_empty() {
            cuts.push(cut(&mut queue, limits).len());
        }
        cuts
    }

    #[test]
    fn a_batch_ends_before_usage_that_refers_to_a_metric_in_it_and_at_its_limits() {
        let wide = BatchLimits { messages_max: 100, bytes_max: 1000 };
        assert_eq!(cuts(&["EXEC", "TOKENS", "METRIC", "VOTE", "TOKENS", "TOKENS"], wide), [4, 2]);
        assert_eq!(cuts(&["EXEC"; 5], BatchLimits { messages_max: 2, ..wide }), [2, 2, 1]);
        assert_eq!(cuts(&["EXEC"; 5], BatchLimits { bytes_max: 25, ..wide }), [2, 2, 1]);
        assert_eq!(cuts(&["EXEC"; 2], BatchLimits { bytes_max: 5, ..wide }), [1, 1], "one alone may be larger");
    }
}
