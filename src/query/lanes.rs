//! The lanes: their owners and positions in the database, and what waits for them in the stream.

use crate::ingest::positions::{LanePosition, SILENCE_MAX};
use crate::nats::api::{Api, ApiError};
use crate::nats::definitions::Names;
use crate::record::lane::Lane;
use futures_util::future::try_join_all;
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// A lane, as far as it is known.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct LaneState {
    pub lane: String,
    /// The instance that reads it; null: nobody does.
    pub owner: Option<String>,
    /// How long the owner has shown no sign of life, in seconds.
    pub silent_seconds: Option<f64>,
    /// Everything up to this sequence is stored.
    pub position: i64,
    /// What is above this sequence may have been passed over.
    pub suspect_after: Option<i64>,
    /// What the stream says of it; null: the stream was not asked, or did not answer.
    pub stream: Option<LaneInStream>,
}

/// What the stream says of a lane.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct LaneInStream {
    /// Messages that the lane's consumer has not delivered; null: there is no consumer.
    pub waiting: Option<u64>,
    /// How long the oldest message above the position has been waiting, in seconds, whether the consumer knows of it or not.
    pub oldest_waits_seconds: Option<f64>,
    /// Since the last acknowledgement, in seconds.
    pub unacknowledged_seconds: Option<f64>,
}

impl LaneState {
    /// The lanes that are served, those included that have no position yet.
    pub(crate) fn all(lanes: &[Lane], positions: &[LanePosition]) -> Vec<Self> {
        let of = |lane: &Lane| {
            let known = positions.iter().find(|position| position.lane == lane.prefix());
            Self {
                lane: lane.prefix().to_owned(),
                owner: known.and_then(|position| position.owner.clone()),
                silent_seconds: known.map(|position| position.silent_s),
                position: known.map_or(0, |position| position.sequence),
                suspect_after: known.and_then(|position| position.suspect_after),
                stream: None,
            }
        };
        lanes.iter().map(of).collect()
    }

    /// Whether an instance reads it, as far as the database can see.
    pub(crate) fn is_owned(&self) -> bool {
        let is_alive = self.silent_seconds.is_some_and(|silent| silent <= SILENCE_MAX.as_secs_f64());
        self.owner.is_some() && is_alive
    }

    /// Whether messages wait, and none was stored for this long.
    pub(crate) fn stands_still(&self, tell_after: Duration) -> bool {
        let Some(stream) = &self.stream else { return false };
        let bound = tell_after.as_secs_f64();
        stream.oldest_waits_seconds.is_some_and(|waits| waits >= bound)
            && stream.unacknowledged_seconds.is_none_or(|silent| silent >= bound)
    }
}

/// Asks the stream about all of these lanes at a time.
pub(crate) async fn ask(api: &Api, names: &Names, lanes: &[Lane], known: &mut [LaneState]) -> Result<(), ApiError> {
    let incarnation = api.incarnation(&names.ledger).await?;
    let since = |then_ns: i128| {
        let elapsed_ns = i128::from(crate::clock::unix_ns()) - then_ns;
        Duration::from_nanos(u64::try_from(elapsed_ns).unwrap_or(0)).as_secs_f64()
    };
    let asking = lanes.iter().zip(known.iter()).map(async |(&lane, state)| {
        let consumer = match api.consumer_info(&names.ledger, &names.consumer(lane)).await {
            Ok(info) => Some(info),
            Err(ApiError::ConsumerNotFound) => None,
            Err(error) => return Err(error),
        };
        let oldest_waits_seconds = match api.next_message(&incarnation, lane, state.position + 1).await {
            Ok(oldest) => Some(since(oldest.server_time_ns.into())),
            Err(ApiError::MessageNotFound) => None,
            Err(error) => return Err(error),
        };
        let acknowledged_at = consumer.as_ref().and_then(|info| info.ack_floor.last_active);
        Ok(LaneInStream {
            waiting: consumer.as_ref().map(|info| info.num_pending),
            oldest_waits_seconds,
            unacknowledged_seconds: acknowledged_at.map(|at| since(at.unix_timestamp_nanos())),
        })
    });
    let answers = try_join_all(asking).await?;
    known.iter_mut().zip(answers).for_each(|(state, answer)| state.stream = Some(answer));
    Ok(())
}
