//! How far is everything acknowledged? The lowest of the lanes decides.

use super::super::Failure;
use crate::config::Config;
use crate::domain::message::Message;
use crate::domain::subject::{Lane, Subject};
use crate::nats::api::{Api, ApiError};
use crate::nats::holdings::Holdings;

/// What the consumers have acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    /// Everything up to here is acknowledged, on every served lane.
    pub(super) sequence: i64,
    /// The lane whose next message is above it; `None` where nothing waits.
    pub(super) held_back_by: Option<Lane>,
    /// Lanes that somebody reads: those of the configuration, and all that have a consumer.
    pub(super) served: Vec<Lane>,
}

impl Floor {
    /// Asks each lane's consumer. Its own floor may lie far below the lane's next message.
    pub(super) async fn ask(config: &Config, api: &Api, holdings: &Holdings) -> Result<Self, Failure> {
        let mut floor = Self { sequence: holdings.last, held_back_by: None, served: Vec::new() };
        for lane in Lane::ALL {
            let acknowledged = match api.consumer_info(&config.nats.stream, lane).await {
                Ok(info) => i64::try_from(info.ack_floor.stream_sequence).unwrap_or(i64::MAX - 1),
                // Nobody has acknowledged anything of it.
                Err(ApiError::ConsumerNotFound) if config.lanes.contains(&lane) => 0,
                Err(ApiError::ConsumerNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            floor.served.push(lane);
            let next = api.next_of_lane(&holdings.incarnation, lane, acknowledged + 1).await?;
            if let Some(next) = next.filter(|next| *next <= floor.sequence) {
                floor.sequence = next - 1;
                floor.held_back_by = Some(lane);
            }
        }
        Ok(floor)
    }

    /// Whether a message must be in the ledger once it is acknowledged.
    pub(super) fn serves(&self, message: &Message) -> bool {
        Subject::parse(&message.subject).is_some_and(|subject| self.served.contains(&subject.lane))
    }
}
