//! `ledgerd status`: shows a summary of the ledger, the position of each lane, and the callers that the webhooks
//! refused.

use crate::command::{Failure, connect, output};
use crate::config::Config;
use crate::ingest::positions::{GAPS_SHOWN_MAX, Gap, LanePositions};
use crate::nats::api::{Api, ApiError};
use crate::nats::definitions::Names;
use crate::postgres::reads;
use crate::webhook::refusal_queries::{self, Refused};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 1)?;
    let summary = reads::summary(&connections).await?;
    let refused = refusal_queries::newest(&connections, REFUSED_MAX).await?;
    let api = connect::nats(config).await?;
    let positions = connect::positions(config)?;
    let lanes = lanes(config, &api, &positions).await?;
    let gaps = positions.gaps(&config.nats.stream, GAPS_SHOWN_MAX).await?;
    if as_json {
        let lanes: Vec<Value> = lanes
            .iter()
            .map(|lane| {
                json!({
                    "lane": lane.name, "lag": lane.lag, "position": lane.position, "owner": lane.owner,
                    "suspect_after": lane.suspect_after,
                    "oldest_waits_seconds": lane.waits.map(|waits| waits.as_secs()),
                    "stalled": lane.is_stalled(config.stall_tell_after),
                })
            })
            .collect();
        output::json(&json!({
            "tree_size": summary.tree_size, "root": summary.root, "recorded": summary.recorded,
            "duplicates": summary.duplicates, "rejected": summary.rejected, "unpublished_dead_letters": summary.unpublished,
            "last_commit": summary.last_commit, "epochs": summary.epochs, "lanes": lanes, "refused": refused_json(&refused),
            "gaps": gaps.iter().map(Gap::to_json).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    output::line(format_args!("messages in custody   {:>12}", summary.tree_size));
    output::line(format_args!("  recorded            {:>12}", summary.recorded));
    output::line(format_args!("  duplicates          {:>12}", summary.duplicates));
    output::line(format_args!(
        "  rejected            {:>12}   ({} not published yet)",
        summary.rejected, summary.unpublished
    ));
    output::line(format_args!("last commit           {}", summary.last_commit.as_deref().unwrap_or("none")));
    output::line(format_args!("tree root             {}", summary.root));
    let [name, lag, position, oldest, owner] = ["lane", "lag", "position", "oldest waits", "owner"];
    output::line(format_args!("\n{name:<8}{lag:>12}{position:>14}{oldest:>15}  {owner}"));
    for LaneStatus { name, lag, position, waits, owner, .. } in &lanes {
        let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
        let waits = waits.map_or_else(String::new, in_seconds);
        output::line(format_args!(
            "{name:<8}{lag:>12}{position:>14}{waits:>15}  {}",
            owner.as_deref().unwrap_or("nobody")
        ));
    }
    for lane in lanes.iter().filter(|lane| lane.is_stalled(config.stall_tell_after)) {
        output::line(format_args!("{} stands still: messages wait, and none was stored for a while", lane.name));
    }
    gaps.iter().for_each(output::line);
    tell_refused(&refused);
    Ok(())
}

/// Callers of the webhooks that were refused, the newest of them.
const REFUSED_MAX: i64 = 10;

fn tell_refused(refused: &[Refused]) {
    if refused.is_empty() {
        return;
    }
    output::line(format_args!("\nrefused by the webhooks (docs/runbook.md#ledgerdwebhookrefusals)"));
    let [last, status, webhook, calls, since, caller] = ["last", "status", "webhook", "calls", "since", "caller"];
    output::line(format_args!("{last:<22}{status:<8}{webhook:<9}{calls:>9}  {since:<22}{caller}"));
    for Refused { status, webhook, address, calls, first_at, last_at } in refused {
        output::line(format_args!("{last_at:<22}{status:<8}{webhook:<9}{calls:>9}  {first_at:<22}{address}"));
    }
}

fn refused_json(refused: &[Refused]) -> Value {
    let one = |it: &Refused| {
        json!({
            "status": it.status, "webhook": it.webhook, "caller": it.address, "calls": it.calls, "first_at": it.first_at,
            "last_at": it.last_at,
        })
    };
    refused.iter().map(one).collect()
}

fn in_seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

struct LaneStatus {
    name: &'static str,
    /// Messages that the lane's consumer has not delivered; `None` where there is no consumer.
    lag: Option<u64>,
    /// Everything up to this sequence is stored.
    position: i64,
    owner: Option<String>,
    suspect_after: Option<i64>,
    /// How long the oldest message above the position has been waiting, whether the consumer knows of it or not.
    waits: Option<Duration>,
    /// The time since the last acknowledgement.
    silent: Option<Duration>,
}

impl LaneStatus {
    fn is_stalled(&self, tell_after: Duration) -> bool {
        self.waits.is_some_and(|waits| waits >= tell_after) && self.silent.is_none_or(|silent| silent >= tell_after)
    }
}

async fn lanes(config: &Config, api: &Api, positions: &LanePositions) -> Result<Vec<LaneStatus>, Failure> {
    let stream = &config.nats.stream;
    let names = Names::from(&config.nats);
    let incarnation = api.incarnation(stream).await?;
    let stored = positions.all(stream).await?;
    let since = |then_ns: i128| {
        let elapsed_ns = i128::from(crate::clock::unix_ns()) - then_ns;
        Duration::from_nanos(u64::try_from(elapsed_ns).unwrap_or(0))
    };
    let mut lanes = Vec::new();
    for &lane in &config.lanes {
        let stored = stored.iter().find(|stored| stored.lane == lane.prefix());
        let position = stored.map_or(0, |stored| stored.sequence);
        let consumer = match api.consumer_info(stream, &names.consumer(lane)).await {
            Ok(info) => Some(info),
            Err(ApiError::ConsumerNotFound) => None,
            Err(error) => return Err(error.into()),
        };
        let waits = match api.next_message(&incarnation, lane, position + 1).await {
            Ok(oldest) => Some(since(oldest.server_time_ns.into())),
            Err(ApiError::MessageNotFound) => None,
            Err(error) => return Err(error.into()),
        };
        lanes.push(LaneStatus {
            name: lane.prefix(),
            lag: consumer.as_ref().map(|info| info.num_pending),
            position,
            owner: stored.and_then(|stored| stored.owner.clone()),
            suspect_after: stored.and_then(|stored| stored.suspect_after),
            waits,
            silent: consumer.and_then(|info| info.ack_floor.last_active).map(|at| since(at.unix_timestamp_nanos())),
        });
    }
    Ok(lanes)
}
