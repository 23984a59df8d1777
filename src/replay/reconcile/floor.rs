//! The floor: the sequence up to which every lane is stored. The lowest lane determines it.

use crate::command::{Exit, Failure};
use crate::config::Config;
use crate::ingest::position::Positions as _;
use crate::ingest::positions::LanePositions;
use crate::nats::api::Api;
use crate::nats::stream_state::StreamState;
use crate::record::lane::Lane;
use crate::record::message::Message;
use crate::record::subject::Subject;

/// What the positions of the lanes say.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    /// Everything up to here is stored, on every served lane.
    pub(crate) sequence: i64,
    /// The lane whose next message is above it; `None` where nothing waits.
    pub(crate) held_back_by: Option<Lane>,
    /// Lanes that somebody reads: those of the configuration, and all that were ever stored.
    pub(crate) served: Vec<Lane>,
}

impl Floor {
    /// Reads each lane's position. It may lie far below the lane's next message.
    pub(crate) async fn read(
        config: &Config,
        api: &Api,
        positions: &LanePositions,
        stream_state: &StreamState,
    ) -> Result<Self, Failure> {
        let mut floor = Self { sequence: stream_state.last, held_back_by: None, served: Vec::new() };
        for lane in Lane::all() {
            let position = positions.reliable_position(&stream_state.incarnation, lane).await;
            let position = position.map_err(|why| Failure::new(Exit::Unavailable, format!("PostgreSQL: {why}")))?;
            if position == 0 && !config.lanes.contains(&lane) {
                continue;
            }
            floor.served.push(lane);
            let next = api.next_of_lane(&stream_state.incarnation, lane, position + 1).await?;
            if let Some(next) = next.filter(|next| *next <= floor.sequence) {
                floor.sequence = next - 1;
                floor.held_back_by = Some(lane);
            }
        }
        Ok(floor)
    }

    /// Whether a message must be in the ledger once its lane is stored so far.
    pub(crate) fn serves(&self, message: &Message) -> bool {
        Subject::parse(&message.subject).is_some_and(|subject| self.served.contains(&subject.lane))
    }
}
