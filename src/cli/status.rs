//! `ledgerd status`: what the ledger holds, and how far each lane has come.

use super::{Failure, connect, output};
use crate::config::Config;
use crate::nats::api::Api;
use crate::postgres::reads;
use serde_json::{Value, json};

pub(super) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 1)?;
    let summary = reads::summary(&connections).await?;
    let api = connect::nats(config).await?;
    let lanes = lanes(config, &api).await?;
    if as_json {
        let lanes: Vec<Value> = lanes
            .iter()
            .map(|lane| json!({ "lane": lane.name, "lag": lane.lag, "unacknowledged": lane.unacknowledged, "acknowledged_to": lane.floor }))
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
    output::line(format_args!("\n{:<8}{:>12}{:>16}{:>18}", "lane", "lag", "unacknowledged", "acknowledged to"));
    for lane in &lanes {
        output::line(format_args!("{:<8}{:>12}{:>16}{:>18}", lane.name, lane.lag, lane.unacknowledged, lane.floor));
    }
    Ok(())
}

struct LaneStatus {
    name: &'static str,
    lag: u64,
    unacknowledged: usize,
    floor: u64,
}

async fn lanes(config: &Config, api: &Api) -> Result<Vec<LaneStatus>, Failure> {
    let mut lanes = Vec::new();
    for &lane in &config.lanes {
        let info = api.consumer_info(&config.nats.stream, lane).await?;
        lanes.push(LaneStatus {
            name: lane.prefix(),
            lag: info.num_pending,
            unacknowledged: info.num_ack_pending,
            floor: info.ack_floor.stream_sequence,
        });
    }
    Ok(lanes)
}
