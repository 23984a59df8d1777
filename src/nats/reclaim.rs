//! What of a message that was delivered and never arrived? It was on its way when a connection broke or a daemon died; or
//! its header block is one that makes every client library drop the connection, again and again. Such messages are read from
//! the stream itself, headers and all, and take the usual way. Reading one that somebody else holds does no harm: whoever
//! commits second finds it known.

use super::api::{Api, ApiError};
use super::definitions;
use super::lease::Held;
use crate::domain::message::{Incarnation, Message};
use crate::domain::subject::Lane;
use crate::health::stalls::{Progress, Sight, Waiting};
use std::time::Duration;
use tokio::time::Instant;

/// What a consumer said when it was last asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    /// Messages that were not delivered yet.
    pub(super) undelivered: u64,
    /// Messages that were delivered and not acknowledged.
    pub(super) pending: usize,
    /// Everything up to this sequence is acknowledged.
    pub(super) floor: i64,
    /// Everything up to this sequence was delivered.
    pub(super) delivered: i64,
    /// The first message above the floor, and how long it has been waiting in the stream.
    pub(super) oldest: Option<i64>,
    pub(super) oldest_age: Duration,
    /// When the server last took an acknowledgement.
    pub(super) acknowledged_ns: Option<i128>,
    /// Somebody has paused the consumer.
    pub(super) is_paused: bool,
    /// The last sequence of the whole stream.
    pub(super) end: i64,
}

/// Asks a lane's consumer. One that was changed so that messages can be lost is an error.
///
/// `clear_to`: an earlier survey found that above the floor nothing of the lane stands before this sequence, so that this
/// one needs to look only at what is new.
pub(super) async fn survey(
    api: &Api,
    incarnation: &Incarnation,
    lane: Lane,
    clear_to: i64,
) -> Result<Survey, ApiError> {
    let info = api.consumer_info(&incarnation.stream, lane).await?;
    if let Some(danger) = definitions::consumer_danger(lane, &info.config) {
        return Err(ApiError::Danger(danger));
    }
    // Asked for after the consumer: the floor is not beyond this end unless something is wrong.
    let stream = api.stream_info(&incarnation.stream).await?;
    let sequence = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX - 1);
    let mut survey = Survey {
        undelivered: info.num_pending,
        pending: info.num_ack_pending,
        floor: sequence(info.ack_floor.stream_sequence),
        delivered: sequence(info.delivered.stream_sequence),
        oldest: None,
        oldest_age: Duration::ZERO,
        acknowledged_ns: info.ack_floor.last_active.map(async_nats::datetime::DateTime::unix_timestamp_nanos),
        is_paused: info.paused,
        end: sequence(stream.state.last_sequence),
    };
    // A consumer may know of nothing because it is wrong, so the stream itself is asked as well.
    let knows_of_none = survey.pending == 0 && survey.undelivered == 0;
    let from = if knows_of_none { survey.floor.max(clear_to) } else { survey.floor } + 1;
    if from <= survey.end {
        match api.next_message(incarnation, lane, from).await {
            Ok(oldest) => {
                survey.oldest = Some(oldest.sequence);
                survey.oldest_age = age(oldest.server_time_ns);
            }
            Err(ApiError::MessageNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(survey)
}

impl Survey {
    /// How the lane looks, for whoever watches whether it stands still.
    pub(super) fn sight(&self, lane: Lane, stored: u64) -> Sight {
        let progress = Progress { floor: self.floor, acknowledged_ns: self.acknowledged_ns, stored };
        let what = self.what_waits(lane);
        Sight { progress, waiting: what.map(|what| Waiting { what, on_purpose: self.is_paused }) }
    }

    /// Whether the stream holds messages of the lane that the consumer does not know of.
    fn is_unknown(&self) -> bool {
        self.oldest.is_some() && self.undelivered == 0 && self.pending == 0
    }

    fn what_waits(&self, lane: Lane) -> Option<String> {
        let Self { undelivered, pending, floor, oldest, end, .. } = self;
        let consumer = lane.consumer();
        if floor > end {
            return Some(beyond_the_end(lane, *floor, *end));
        }
        let oldest = (*oldest)?;
        Some(if self.is_paused {
            format!("the consumer {consumer} is paused; messages wait from sequence {oldest} on")
        } else if self.is_unknown() {
            format!("sequence {oldest} waits in the stream, and the consumer {consumer} does not know of it")
        } else {
            format!(
                "{undelivered} messages are not delivered and {pending} not acknowledged, from sequence {oldest} on"
            )
        })
    }
}

/// What is wrong with a consumer whose floor the stream has not come to.
pub(super) fn beyond_the_end(lane: Lane, floor: i64, end: i64) -> String {
    format!(
        "the consumer {} has come to sequence {floor}, and the stream ends at {end}: was an older copy of the stream restored? \
         Delete the consumer, and it is made anew",
        lane.consumer()
    )
}

fn age(server_time_ns: i64) -> Duration {
    crate::clock::since_1970().saturating_sub(Duration::from_nanos(u64::try_from(server_time_ns).unwrap_or(0)))
}

/// Decides when to reclaim, and remembers how far it has come.
#[derive(Debug)]
pub(super) struct Reclaim {
    /// The floor, and since when it has stood still.
    floor: i64,
    since: Instant,
    patience: Duration,
    /// What was delivered over an earlier connection, and may have been lost with it.
    after_reconnect: bool,
    rest: Option<Rest>,
    /// What is above this sequence is still to be looked at, for the consumer may have passed over it.
    doubted_above: Option<i64>,
    doubt_read: Option<DoubtRead>,
    /// What is above the floor and not above this is of other lanes.
    clear_to: i64,
}

impl Reclaim {
    /// `patience`: how long a floor may stand still while messages are pending. Longer than the server waits before it
    /// delivers again.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            floor: -1,
            since: Instant::now(),
            patience,
            after_reconnect: true,
            rest: None,
            doubted_above: None,
            doubt_read: None,
            clear_to: 0,
        }
    }

    /// The connection was made anew.
    pub(super) fn reconnected(&mut self) {
        self.after_reconnect = true;
    }

    /// Whether reclaiming goes before pulling.
    pub(super) fn is_urgent(&self) -> bool {
        self.after_reconnect || self.rest.is_some()
    }

    /// Whether the consumer must be asked before anything can be read.
    pub(super) fn wants_survey(&self) -> bool {
        self.after_reconnect
    }

    /// From where on the next survey looks.
    pub(super) fn clear_to(&self) -> i64 {
        self.clear_to
    }

    /// The consumer was wrong for a while, and may have passed over messages above this sequence. They are read once.
    pub(super) fn doubt(&mut self, above: i64) {
        let is_being_read = self.rest.is_some_and(|rest| rest.why == Why::Doubted) || self.doubt_read.is_some();
        if !is_being_read {
            self.doubted_above = Some(above);
        }
    }

    /// How far what is in doubt was read, if any of it was.
    pub(super) fn doubt_read(&self) -> Option<DoubtRead> {
        self.doubt_read
    }

    /// Nothing is in doubt any more.
    pub(super) fn doubt_is_over(&mut self) {
        self.doubt_read = None;
    }

    /// Takes in what the consumer said. A floor below what this process holds is not stuck: it waits for the store. Messages
    /// that the consumer does not know of are waited for as long as those that nobody acknowledges.
    pub(super) fn consider(&mut self, survey: &Survey, held: &Held) {
        self.clear_to = if survey.oldest.is_none() { survey.end } else { self.clear_to.min(survey.end) };
        let is_ours = survey.oldest.is_some_and(|sequence| held.contains(sequence));
        let is_unknown = survey.is_unknown();
        let is_owed = survey.pending > 0 || is_unknown;
        if survey.floor != self.floor || !is_owed || is_ours {
            self.floor = survey.floor;
            self.since = Instant::now();
        }
        let is_stuck = self.since.elapsed() > self.patience;
        if is_owed && (is_stuck || (self.after_reconnect && !is_unknown)) && self.rest.is_none() {
            self.rest = Some(if is_unknown {
                Rest { next: survey.floor.max(self.clear_to) + 1, last: survey.end, why: Why::Unknown }
            } else {
                Rest { next: survey.floor + 1, last: survey.delivered, why: Why::Pending }
            });
            self.since = Instant::now();
        }
        self.after_reconnect = false;
        if let Some(above) = self.doubted_above.take() {
            // It has passed over nothing that it has not come to; that it brings by itself.
            self.rest = Some(Rest { next: above + 1, last: survey.delivered, why: Why::Doubted });
        }
    }

    /// Reads the next of what is to be reclaimed; `None` when there is nothing more.
    pub(super) async fn next(
        &mut self,
        api: &Api,
        incarnation: &Incarnation,
        lane: Lane,
    ) -> Result<Option<Message>, ApiError> {
        let Some(Rest { next, last, why }) = self.rest else { return Ok(None) };
        match api.next_message(incarnation, lane, next).await {
            Ok(message) if message.sequence <= last => {
                self.rest = Some(Rest { next: message.sequence + 1, last, why });
                if why == Why::Doubted {
                    self.doubt_read = Some(DoubtRead { up_to: message.sequence, is_all: false });
                }
                Ok(Some(message))
            }
            Ok(_) | Err(ApiError::MessageNotFound) => {
                self.rest = None;
                match why {
                    Why::Pending => {}
                    // The consumer does not know of them, and keeps its floor below them.
                    Why::Unknown => self.clear_to = self.clear_to.max(last),
                    Why::Doubted => self.doubt_read = Some(DoubtRead { up_to: last, is_all: true }),
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The sequences that are still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    next: i64,
    last: i64,
    why: Why,
}

/// How far what is in doubt was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DoubtRead {
    /// The last sequence.
    pub(super) up_to: i64,
    /// Whether nothing in doubt comes after it.
    pub(super) is_all: bool,
}

/// Why messages are read from the stream itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// They were delivered, and nobody has acknowledged them.
    Pending,
    /// The consumer does not know of them.
    Unknown,
    /// The consumer was wrong for a while, and may have passed over them.
    Doubted,
}

/// The subject on which the server takes the acknowledgement of a delivered message. An explicit acknowledgement counts by
/// its stream sequence alone.
pub(super) fn ack_subject(lane: Lane, message: &Message) -> String {
    let Message { incarnation, sequence, server_time_ns, .. } = message;
    format!("$JS.ACK.{}.{}.1.{sequence}.1.{server_time_ns}.0", incarnation.stream, lane.consumer())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing of the lane stands in the stream unless it is pending.
    fn survey(floor: i64, pending: usize) -> Survey {
        let oldest = (pending > 0).then_some(floor + 1);
        Survey { oldest, ..unknown(floor, pending) }
    }

    fn unknown(floor: i64, pending: usize) -> Survey {
        Survey {
            undelivered: 0,
            pending,
            floor,
            delivered: 9,
            oldest: Some(floor + 1),
            oldest_age: Duration::ZERO,
            acknowledged_ns: None,
            is_paused: false,
            end: 9,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_that_stands_still_while_messages_are_pending_is_reclaimed_from() {
        let patience = Duration::from_secs(30);
        let mut reclaim = Reclaim::new(patience);
        reclaim.consider(&survey(3, 0), &Held::default());
        assert_eq!(reclaim.rest, None, "nothing is pending after the first connection");
        reclaim.consider(&survey(3, 2), &Held::default());
        tokio::time::advance(patience).await;
        reclaim.consider(&survey(4, 1), &Held::default());
        assert_eq!(reclaim.rest, None, "the floor has moved");
        tokio::time::advance(patience + Duration::from_secs(1)).await;
        reclaim.consider(&survey(4, 1), &Held::default());
        assert_eq!(reclaim.rest, Some(Rest { next: 5, last: 9, why: Why::Pending }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_consumer_does_not_know_of_is_read_after_a_while_and_once() {
        let patience = Duration::from_secs(30);
        let mut reclaim = Reclaim::new(patience);
        reclaim.consider(&unknown(3, 0), &Held::default());
        assert_eq!(reclaim.rest, None, "it may just have come");
        tokio::time::advance(patience + Duration::from_secs(1)).await;
        reclaim.consider(&unknown(3, 0), &Held::default());
        assert_eq!(reclaim.rest, Some(Rest { next: 4, last: 9, why: Why::Unknown }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_wrong_consumer_may_have_passed_over_is_read_at_once() {
        let mut reclaim = Reclaim::new(Duration::from_secs(30));
        reclaim.doubt(3);
        reclaim.consider(&survey(5, 0), &Held::default());
        assert_eq!(reclaim.rest, Some(Rest { next: 4, last: 9, why: Why::Doubted }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_pending_before_a_new_connection_is_reclaimed_at_once() {
        let mut reclaim = Reclaim::new(Duration::from_secs(30));
        reclaim.consider(&survey(3, 2), &Held::default());
        assert_eq!(reclaim.rest, Some(Rest { next: 4, last: 9, why: Why::Pending }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_process_holds_is_not_reclaimed_however_long_the_store_is_away() {
        let patience = Duration::from_secs(30);
        let mut reclaim = Reclaim::new(patience);
        let held = Held::default();
        reclaim.consider(&survey(3, 0), &held);
        let token = held.hold(vec![4]);
        tokio::time::advance(patience * 2).await;
        reclaim.consider(&survey(3, 1), &held);
        assert_eq!(reclaim.rest, None);
        drop(token);
        tokio::time::advance(patience * 2).await;
        reclaim.consider(&survey(3, 1), &held);
        assert_eq!(reclaim.rest, Some(Rest { next: 4, last: 9, why: Why::Pending }));
    }
}
