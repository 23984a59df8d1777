//! Is everything of a lane settled that was published before a message? Asked by lanes that refer to records of another.

use super::api::{Api, ApiError, sequence_of};
use super::definitions;
use super::doubts::Doubts;
use super::reclaim::beyond_the_end;
use crate::domain::subject::Lane;

/// Whether everything that was published to the lane before this sequence has reached its durable end.
///
/// # Errors
/// A sentence that says why it is not known. A consumer that is wrong, or was, may count what it has passed over as done.
pub(super) async fn is_settled(
    api: &Api,
    doubts: &Doubts,
    stream: &str,
    lane: Lane,
    sequence: i64,
) -> Result<bool, String> {
    let known = |error: ApiError| error.to_string();
    let floor = match api.consumer_info(stream, lane).await {
        Ok(info) => {
            if let Some(danger) = definitions::consumer_danger(lane, &info.config) {
                doubts.is_wrong(lane);
                return Err(danger);
            }
            sequence_of(info.ack_floor.stream_sequence)
        }
        // Nobody serves that lane: nothing of it is settled.
        Err(ApiError::ConsumerNotFound) => 0,
        Err(error) => return Err(known(error)),
    };
    // Asked for after the consumer: the floor is not beyond this end unless something is wrong.
    let (incarnation, end) = api.incarnation_and_end(stream).await.map_err(known)?;
    if floor > end {
        return Err(beyond_the_end(lane, floor, end));
    }
    if doubts.above(lane, &incarnation).is_some_and(|above| above < sequence) {
        return Ok(false);
    }
    if floor >= sequence {
        return Ok(true);
    }
    // What is not acknowledged is not settled; the first of that lane above the floor is the oldest such message.
    match api.next_message(&incarnation, lane, floor + 1).await {
        Ok(oldest) => Ok(oldest.sequence > sequence),
        Err(ApiError::MessageNotFound) => Ok(true),
        Err(error) => Err(known(error)),
    }
}
