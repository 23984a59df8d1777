//! `ledgerd status`: what the ledger holds, and how far each lane has come.

use super::{Failure, connect, output};
use crate::config::Config;
use crate::nats::api::{Api, ApiError};
use crate::postgres::reads;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 1)?;
    let summary = reads::summary(&connections).await?;
    let api = connect::nats(config).await?;
    let lanes = lanes(config, &api).await?;
    if as_json {
        let lanes: Vec<Value> = lanes
            .iter()
            .map(|lane| {
                json!({
                    "lane": lane.name, "lag": lane.lag, "unacknowledged": lane.unacknowledged, "acknowledged_to": lane.floor,
                    "oldest_waits_seconds": lane.waits.map(|waits| waits.as_secs()),
                    "stalled": lane.is_stalled(config.stall_tell_after),
                })
            })
            .collect();
        output::json(&json!({
            "tree_size": summary.tree_size, "root": summary.root, "recorded": summary.recorded,
            "duplicates": summary.duplicates, "rejected": summary.rejected, "unpublished_dead_letters": summary.unpublished,
            "last_commit": summary.last_commit, "epochs": summary.epochs, "lanes": lanes,
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
    let titles = ["lane", "lag", "unacknowledged", "acknowledged to", "oldest waits"];
    let [name, lag, unacknowledged, floor, oldest] = titles;
    output::line(format_args!("\n{name:<8}{lag:>12}{unacknowledged:>16}{floor:>18}{oldest:>15}"));
    for LaneStatus { name, lag, unacknowledged, floor, waits, .. } in &lanes {
        let waits = waits.map_or_else(String::new, in_seconds);
        output::line(format_args!("{name:<8}{lag:>12}{unacknowledged:>16}{floor:>18}{waits:>15}"));
    }
    for lane in lanes.iter().filter(|lane| lane.is_stalled(config.stall_tell_after)) {
        let silent = lane.silent.map_or_else(|| "ever".to_owned(), |silent| format!("for {}", in_seconds(silent)));
        output::line(format_args!("{} stands still: messages wait, and nothing was acknowledged {silent}", lane.name));
    }
    Ok(())
}

fn in_seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

struct LaneStatus {
    name: &'static str,
    lag: u64,
    unacknowledged: usize,
    floor: u64,
    /// How long the oldest message above the floor has been waiting, whether the consumer knows of it or not.
    waits: Option<Duration>,
    /// The time since the last acknowledgement.
    silent: Option<Duration>,
}

impl LaneStatus {
    fn is_stalled(&self, tell_after: Duration) -> bool {
        self.waits.is_some_and(|waits| waits >= tell_after) && self.silent.is_none_or(|silent| silent >= tell_after)
    }
}

async fn lanes(config: &Config, api: &Api) -> Result<Vec<LaneStatus>, Failure> {
    let incarnation = api.incarnation(&config.nats.stream).await?;
    let since = |then_ns: i128| {
        let elapsed_ns = i128::from(crate::clock::unix_ns()) - then_ns;
        Duration::from_nanos(u64::try_from(elapsed_ns).unwrap_or(0))
    };
    let mut lanes = Vec::new();
    for &lane in &config.lanes {
        let info = api.consumer_info(&config.nats.stream, lane).await?;
        let floor = info.ack_floor.stream_sequence;
        let above = i64::try_from(floor).unwrap_or(i64::MAX - 1) + 1;
        let waits = match api.next_message(&incarnation, lane, above).await {
            Ok(oldest) => Some(since(oldest.server_time_ns.into())),
            Err(ApiError::MessageNotFound) => None,
            Err(error) => return Err(error.into()),
        };
        lanes.push(LaneStatus {
            name: lane.prefix(),
            lag: info.num_pending,
            unacknowledged: info.num_ack_pending,
            floor,
            waits,
            silent: info.ack_floor.last_active.map(|at| since(at.unix_timestamp_nanos())),
        });
    }
    Ok(lanes)
}
