//! What of a message that was delivered and never arrived? It was on its way when a connection broke or a daemon died; or
//! its header block is one that makes every client library drop the connection, again and again. Such messages are read from
//! the stream itself, headers and all, and take the usual way. Reading one that somebody else holds does no harm: whoever
//! commits second finds it known.

use super::api::{Api, ApiError};
use super::pull::PullLimits;
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
    /// How long the first message above the floor has been waiting in the stream.
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
        oldest_age: Duration::ZERO,
    };
    if survey.pending > 0 || survey.undelivered > 0 {
        match api.next_message(incarnation, lane, survey.floor + 1).await {
            Ok(oldest) => survey.oldest_age = age(oldest.server_time_ns),
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
    /// The sequences that are still to be read.
    rest: Option<(i64, i64)>,
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

    /// Takes in what the consumer said.
    pub(super) fn consider(&mut self, survey: &Survey) {
        if survey.floor != self.floor || survey.pending == 0 {
            self.floor = survey.floor;
            self.since = Instant::now();
        }
        let is_stuck = self.since.elapsed() > self.patience;
        if survey.pending > 0 && (is_stuck || self.after_reconnect) && self.rest.is_none() {
            self.rest = Some((survey.floor + 1, survey.delivered));
            self.since = Instant::now();
        }
        self.after_reconnect = false;
    }

    /// Reads the next part of what is to be reclaimed; empty when there is nothing.
    pub(super) async fn read(
        &mut self,
        api: &Api,
        incarnation: &Incarnation,
        lane: Lane,
        limits: PullLimits,
    ) -> Result<Vec<Message>, ApiError> {
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        while let Some((next, last)) = self.rest {
            if messages.len() >= limits.messages_max || bytes >= limits.bytes_max {
                break;
            }
            match api.next_message(incarnation, lane, next).await {
                Ok(message) if message.sequence <= last => {
                    self.rest = Some((message.sequence + 1, last));
                    bytes += message.payload.len() + message.headers.as_bytes().map_or(0, <[u8]>::len);
                    messages.push(message);
                }
                Ok(_) | Err(ApiError::MessageNotFound) => self.rest = None,
                Err(error) => return Err(error),
            }
        }
        Ok(messages)
    }
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
        Survey { undelivered: 0, pending, floor, delivered: 9, oldest_age: Duration::ZERO }
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_that_stands_still_while_messages_are_pending_is_reclaimed_from() {
        let patience = Duration::from_secs(30);
        let mut reclaim = Reclaim::new(patience);
        reclaim.consider(&survey(3, 0));
        assert_eq!(reclaim.rest, None, "nothing is pending after the first connection");
        reclaim.consider(&survey(3, 2));
        tokio::time::advance(patience).await;
        reclaim.consider(&survey(4, 1));
        assert_eq!(reclaim.rest, None, "the floor has moved");
        tokio::time::advance(patience + Duration::from_secs(1)).await;
        reclaim.consider(&survey(4, 1));
        assert_eq!(reclaim.rest, Some((5, 9)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_pending_before_a_new_connection_is_reclaimed_at_once() {
        let mut reclaim = Reclaim::new(Duration::from_secs(30));
        reclaim.consider(&survey(3, 2));
        assert_eq!(reclaim.rest, Some((4, 9)));
    }
}
