//! Whether all is well, in one sentence; and what somebody must do where it is not.

use crate::config::Config;
use crate::ingest::positions;
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::query::activity::{self, HOURS, LaneRate, Quarter};
use crate::query::cards::{self, Card};
use crate::query::checkpoints::{self, NewestCheckpoint};
use crate::query::facts::{Extent, Facts, extent};
use crate::query::glance::{grouped, short_duration};
use crate::query::lanes::LaneState;
use crate::query::runs::{self, CheckRuns};
use crate::query::spending::{self, Spending};
use crate::query::stream::{StreamAnswer, StreamView};
use crate::query::troubles;
use serde::Serialize;
use utoipa::ToSchema;

/// The state of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct Now {
    /// Whether nobody has to do anything.
    pub is_well: bool,
    pub sentence: String,
    /// What somebody must do, the most pressing first.
    pub cards: Vec<Card>,
    pub extent: Extent,
    pub lanes: Vec<LaneNow>,
    /// Why the stream said nothing of the lanes; null: it did.
    pub stream_unknown: Option<String>,
    /// The last 24 hours, the newest last.
    pub quarters: Vec<Quarter>,
    pub spending: Vec<Spending>,
    pub checkpoint: Option<NewestCheckpoint>,
    /// How many witnesses are configured.
    pub witnesses: usize,
    pub runs: CheckRuns,
}

/// A lane, and how much it stores.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct LaneNow {
    #[serde(flatten)]
    pub state: LaneState,
    #[serde(flatten)]
    pub rate: LaneRate,
}

impl Reader {
    pub(crate) async fn now(&self, config: &Config, stream: &StreamView) -> Result<Now, DatabaseError> {
        let positions = positions::of_stream(&self.0, &config.nats.stream).await?;
        let mut lanes = LaneState::all(&config.lanes, &positions);
        let asking = self.0.run("reading the state of the ledger", async |connection| {
            Ok((
                extent(connection, &config.nats.stream).await?,
                spending::today(connection, &config.budget.shared_groups).await?,
                checkpoints::newest(connection).await?,
                runs::newest(connection).await?,
                troubles::read(connection).await?,
                activity::quarters(connection).await?,
                activity::lanes(connection).await?,
            ))
        });
        let (stream, asked) = tokio::join!(stream.tell(&mut lanes), asking);
        let (extent, spending, checkpoints, runs, troubles, quarters, mut rates) = asked?;
        let checkpoint = checkpoints.into_iter().next();
        let facts = Facts { extent, lanes, stream, spending, checkpoint, runs, troubles };
        let cards = cards::of(config, &facts);
        let sentence = sentence(&facts, config, cards.len());
        let Facts { extent, lanes, stream, spending, checkpoint, runs, .. } = facts;
        let at_rest = || LaneRate { per_minute: 0.0, hours: vec![0.0; HOURS] };
        let lanes = lanes
            .into_iter()
            .map(|state| LaneNow { rate: rates.remove(&state.lane).unwrap_or_else(at_rest), state })
            .collect();
        Ok(Now {
            is_well: cards.is_empty(),
            sentence,
            cards,
            extent,
            lanes,
            stream_unknown: match stream {
                StreamAnswer::Told => None,
                StreamAnswer::NotConfigured => Some("nats.url is not set for the console".to_owned()),
                StreamAnswer::Silent(why) => Some(why),
            },
            quarters,
            spending,
            checkpoint,
            witnesses: config.checkpoint.witnesses.len(),
            runs,
        })
    }
}

/// `All 15 lanes keep up. 200,374 entries; the newest 2 s ago; signed 3 s ago.`
fn sentence(facts: &Facts, config: &Config, cards: usize) -> String {
    let (all, unowned) = (facts.lanes.len(), facts.lanes.iter().filter(|lane| !lane.is_owned()).count());
    let still = facts.lanes.iter().filter(|lane| lane.stands_still(config.stall_tell_after)).count();
    let lanes = match (unowned, still) {
        (0, 0) if all == 1 => "The one lane keeps up.".to_owned(),
        (0, 0) => format!("All {all} lanes keep up."),
        (unowned, _) if unowned == all => "No lane is read.".to_owned(),
        (0, still) => format!("{still} of {all} lanes stand still."),
        (unowned, _) => format!("{unowned} of {all} lanes are not read."),
    };
    let mut parts = vec![match facts.extent.entries {
        1 => "1 entry".to_owned(),
        entries => format!("{} entries", grouped(entries)),
    }];
    parts.extend(facts.extent.newest_seconds.map(|ago| format!("the newest {} ago", short_duration(ago))));
    parts.push(match &facts.checkpoint {
        Some(checkpoint) => format!("signed {} ago", short_duration(checkpoint.ago_seconds)),
        None => "not signed".to_owned(),
    });
    let to_do = match cards {
        0 => String::new(),
        1 => " One thing is to be done.".to_owned(),
        many => format!(" {many} things are to be done."),
    };
    format!("{lanes} {}.{to_do}", parts.join("; "))
}
