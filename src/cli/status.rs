//! `ledgerd status`: shows a summary of the ledger, the position of each lane, and the callers that the webhooks
//! refused. What the database knows is shown without the message server, too.

use crate::command::{Failure, connect, output};
use crate::config::Config;
use crate::ingest::positions::{self, GAPS_SHOWN_MAX, Gap};
use crate::nats::definitions::Names;
use crate::postgres::reads::{self, Summary};
use crate::query::lanes::{self, LaneState};
use crate::webhook::refusal_queries::{self, Refused};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 1)?;
    let summary = reads::summary(&connections).await?;
    let refused = refusal_queries::newest(&connections, REFUSED_MAX).await?;
    let positions = positions::of_stream(&connections, &config.nats.stream).await?;
    let gaps = positions::gaps_of_stream(&connections, &config.nats.stream, GAPS_SHOWN_MAX).await?;
    let mut lanes = LaneState::all(&config.lanes, &positions);
    // What the database knows is worth telling without the stream.
    let asked = ask_the_stream(config, &mut lanes).await;
    let status = Status { summary: &summary, lanes: &lanes, gaps: &gaps, refused: &refused };
    if as_json {
        output::json(&status.to_json(config.stall_tell_after, asked.as_ref().err()));
    } else {
        status.lines(config.stall_tell_after).iter().for_each(output::line);
        tell_refused(&refused);
    }
    asked
}

async fn ask_the_stream(config: &Config, lanes: &mut [LaneState]) -> Result<(), Failure> {
    let api = connect::nats(config).await?;
    Ok(lanes::ask(&api, &Names::from(&config.nats), &config.lanes, lanes).await?)
}

struct Status<'a> {
    summary: &'a Summary,
    lanes: &'a [LaneState],
    gaps: &'a [Gap],
    refused: &'a [Refused],
}

impl Status<'_> {
    fn to_json(&self, tell_after: Duration, without_stream: Option<&Failure>) -> Value {
        let Self { summary, lanes, gaps, refused } = self;
        let lane = |lane: &LaneState| {
            let stream = lane.stream.as_ref();
            json!({
                "lane": lane.lane, "lag": stream.and_then(|it| it.waiting), "position": lane.position, "owner": lane.owner,
                "suspect_after": lane.suspect_after,
                "oldest_waits_seconds": stream.and_then(|it| it.oldest_waits_seconds).map(|waits| Duration::from_secs_f64(waits).as_secs()),
                "stalled": lane.stands_still(tell_after),
            })
        };
        json!({
            "tree_size": summary.tree_size, "root": summary.root, "recorded": summary.recorded,
            "duplicates": summary.duplicates, "rejected": summary.rejected, "unpublished_dead_letters": summary.unpublished,
            "last_commit": summary.last_commit, "epochs": summary.epochs,
            "lanes": lanes.iter().map(lane).collect::<Vec<_>>(), "refused": refused_json(refused),
            "gaps": gaps.iter().map(Gap::to_json).collect::<Vec<_>>(),
            "stream_not_asked": without_stream.map(|failure| &failure.what),
        })
    }

    fn lines(&self, tell_after: Duration) -> Vec<String> {
        let Self { summary, lanes, gaps, .. } = self;
        let (rejected, unpublished) = (summary.rejected, summary.unpublished);
        let mut lines = vec![
            format!("messages in custody   {:>12}", summary.tree_size),
            format!("  recorded            {:>12}", summary.recorded),
            format!("  duplicates          {:>12}", summary.duplicates),
            format!("  rejected            {rejected:>12}   ({unpublished} not published yet)"),
            format!("last commit           {}", summary.last_commit.as_deref().unwrap_or("none")),
            format!("tree root             {}", summary.root),
        ];
        let [name, lag, position, oldest, owner] = ["lane", "lag", "position", "oldest waits", "owner"];
        lines.push(format!("\n{name:<8}{lag:>12}{position:>14}{oldest:>15}  {owner}"));
        for LaneState { lane, position, owner, stream, .. } in *lanes {
            let lag = stream.as_ref().and_then(|stream| stream.waiting);
            let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
            let waits = stream.as_ref().and_then(|stream| stream.oldest_waits_seconds);
            let waits = waits.map_or_else(String::new, in_seconds);
            let owner = owner.as_deref().unwrap_or("nobody");
            lines.push(format!("{lane:<8}{lag:>12}{position:>14}{waits:>15}  {owner}"));
        }
        let stalled = lanes.iter().filter(|lane| lane.stands_still(tell_after));
        let says =
            |lane: &LaneState| format!("{} stands still: messages wait, and none was stored for a while", lane.lane);
        lines.extend(stalled.map(says));
        lines.extend(gaps.iter().map(Gap::to_string));
        lines
    }
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

fn in_seconds(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs_f64(seconds.floor())).to_string()
}
