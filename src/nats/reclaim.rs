//! What of a message that was delivered and never arrived? It was on its way when a connection broke or a daemon died; or
//! its header block is one that makes every client library drop the connection, again and again. Such messages are read from
//! the stream itself, headers and all, and take the usual way. Reading one that somebody else holds does no harm: whoever
//! commits second finds it known.

use super::api::{Api, ApiError};
use super::lease::Held;
use crate::domain::message::{Incarnation, Message};
use crate::domain::subject::Lane;
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
}

/// Asks a lane's consumer.
pub(super) async fn survey(api: &Api, incarnation: &Incarnation, lane: Lane) -> Result<Survey, ApiError> {
    let info = api.consumer_info(&incarnation.stream, lane).await?;
    let sequence = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX - 1);
    let mut survey = Survey {
        undelivered: info.num_pending,
        pending: info.num_ack_pending,
        floor: sequence(info.ack_floor.stream_sequence),
        delivered: sequence(info.delivered.stream_sequence),
        oldest: None,
        oldest_age: Duration::ZERO,
    };
    if survey.pending > 0 || survey.undelivered > 0 {
        match api.next_message(incarnation, lane, survey.floor + 1).await {
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
}

impl Reclaim {
    /// `patience`: how long a floor may stand still while messages are pending. Longer than the server waits before it
    /// delivers again.
    pub(super) fn new(patience: Duration) -> Self {
        Self { floor: -1, since: Instant::now(), patience, after_reconnect: true, rest: None }
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

    /// Takes in what the consumer said. A floor below what this process holds is not stuck: it waits for the store.
    pub(super) fn consider(&mut self, survey: &Survey, held: &Held) {
        let is_ours = survey.oldest.is_some_and(|sequence| held.contains(sequence));
        if survey.floor != self.floor || survey.pending == 0 || is_ours {
            self.floor = survey.floor;
            self.since = Instant::now();
        }
        let is_stuck = self.since.elapsed() > self.patience;
        if survey.pending > 0 && (is_stuck || self.after_reconnect) && self.rest.is_none() {
            self.rest = Some(Rest { next: survey.floor + 1, last: survey.delivered });
            self.since = Instant::now();
        }
        self.after_reconnect = false;
    }

    /// Reads the next of what is to be reclaimed; `None` when there is nothing more.
    pub(super) async fn next(
        &mut self,
        api: &Api,
        incarnation: &Incarnation,
        lane: Lane,
    ) -> Result<Option<Message>, ApiError> {
        let Some(Rest { next, last }) = self.rest else { return Ok(None) };
        match api.next_message(incarnation, lane, next).await {
            Ok(message) if message.sequence <= last => {
                self.rest = Some(Rest { next: message.sequence + 1, last });
                Ok(Some(message))
            }
            Ok(_) | Err(ApiError::MessageNotFound) => {
                self.rest = None;
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

    fn survey(floor: i64, pending: usize) -> Survey {
        Survey { undelivered: 0, pending, floor, delivered: 9, oldest: Some(floor + 1), oldest_age: Duration::ZERO }
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
        assert_eq!(reclaim.rest, Some(Rest { next: 5, last: 9 }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_pending_before_a_new_connection_is_reclaimed_at_once() {
        let mut reclaim = Reclaim::new(Duration::from_secs(30));
        reclaim.consider(&survey(3, 2), &Held::default());
        assert_eq!(reclaim.rest, Some(Rest { next: 4, last: 9 }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_process_holds_is_not_reclaimed_however_long_the_store_is_away() {
        let patience = Duration::from_secs(30);
        let mut reclaim = Reclaim::new(patience);
        let held = Held::default();
        reclaim.consider(&survey(3, 0), &held);
        let token = held.hold(4);
        tokio::time::advance(patience * 2).await;
        reclaim.consider(&survey(3, 1), &held);
        assert_eq!(reclaim.rest, None);
        drop(token);
        tokio::time::advance(patience * 2).await;
        reclaim.consider(&survey(3, 1), &held);
        assert_eq!(reclaim.rest, Some(Rest { next: 4, last: 9 }));
    }
}
