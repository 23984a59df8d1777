//! What of a message that the client cannot receive? Some header blocks make every client library drop the connection, and
//! the server delivers the message again and again. The sign is an acknowledgement floor that stands still while messages
//! are pending. Then what lies above the floor is read from the stream itself, headers and all, and takes the usual way.

use super::api::{Api, ApiError};
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
    /// How long the first message above the floor has been waiting in the stream.
    pub(super) oldest_age: Duration,
}

/// Asks a lane's consumer.
pub(super) async fn survey(api: &Api, incarnation: &Incarnation, lane: Lane) -> Result<Survey, ApiError> {
    let info = api.consumer_info(&incarnation.stream, lane).await?;
    let floor = i64::try_from(info.ack_floor.stream_sequence).unwrap_or(i64::MAX - 1);
    let mut survey =
        Survey { undelivered: info.num_pending, pending: info.num_ack_pending, floor, oldest_age: Duration::ZERO };
    if survey.pending > 0 || survey.undelivered > 0 {
        match api.next_message(incarnation, lane, floor + 1).await {
            Ok(oldest) => survey.oldest_age = age(oldest.server_time_ns),
            Err(ApiError::MessageNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(survey)
}

fn age(server_time_ns: i64) -> Duration {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since_1970.saturating_sub(Duration::from_nanos(u64::try_from(server_time_ns).unwrap_or(0)))
}

/// Watches whether the floor stands still.
#[derive(Debug)]
pub(super) struct FloorWatch {
    floor: i64,
    since: Instant,
    patience: Duration,
}

impl FloorWatch {
    /// `patience`: how long a floor may stand still. Longer than the server waits before it delivers again.
    pub(super) fn new(patience: Duration) -> Self {
        Self { floor: -1, since: Instant::now(), patience }
    }

    /// Whether messages are pending and the floor has stood still for too long.
    pub(super) fn is_stuck(&mut self, survey: &Survey) -> bool {
        if survey.floor != self.floor || survey.pending == 0 {
            self.floor = survey.floor;
            self.since = Instant::now();
        }
        survey.pending > 0 && self.since.elapsed() > self.patience
    }
}

/// Reads what lies above the floor: at most `messages_max` messages and about `bytes_max` bytes.
pub(super) async fn above_floor(
    api: &Api,
    incarnation: &Incarnation,
    lane: Lane,
    survey: &Survey,
    messages_max: usize,
    bytes_max: usize,
) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> = Vec::new();
    let mut bytes = 0;
    let mut next = survey.floor + 1;
    while messages.len() < messages_max.min(survey.pending) && bytes < bytes_max {
        match api.next_message(incarnation, lane, next).await {
            Ok(message) => {
                next = message.sequence + 1;
                bytes += message.payload.len();
                messages.push(message);
            }
            Err(ApiError::MessageNotFound) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(messages)
}

/// The subject on which the server takes the acknowledgement of a delivered message. An explicit acknowledgement counts by
/// its stream sequence alone.
pub(super) fn ack_subject(lane: Lane, message: &Message) -> String {
    let Message { incarnation, sequence, server_time_ns, .. } = message;
    format!("$JS.ACK.{}.{}.1.{sequence}.1.{server_time_ns}.0", incarnation.stream, lane.consumer())
}
