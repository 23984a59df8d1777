//! The screen *Now*: whether all is well in one sentence, a card for what somebody must do, and how the ledger stands.

mod charts;

use crate::console::elements::{address, empty};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::cards::Card;
use crate::query::glance::{grouped, short_duration};
use crate::query::now::{LaneNow, Now};
use crate::query::runs::CheckRun;
use crate::query::spending::Spending;
use axum::extract::State;
use charts::{meter, quarters, sparkline};
use maud::{Markup, html};

/// Nothing to do, something to do, something broken or lost.
fn colour(now: &Now) -> &'static str {
    match (now.is_well, now.cards.iter().any(|card| card.is_urgent)) {
        (true, _) => "good",
        (_, false) => "warn",
        (_, true) => "bad",
    }
}

pub(crate) async fn show(State(site): State<Shared>) -> Result<Markup, Fault> {
    let now = site.reader.now(&site.config, &site.stream).await?;
    let content = html! {
        h1 .state { span class={ "dot " (colour(&now)) } aria-hidden="true" {} (now.sentence) }
        @if !now.cards.is_empty() {
            section .cards aria-label="What somebody must do" { @for card in &now.cards { (to_do(card)) } }
        }
        div .wide-and-narrow {
            section .card {
                h2 { "Records per minute, last 24 hours" }
                @if now.extent.entries == 0 {
                    (empty(&html! { "Nothing is recorded yet. " code { "ledgerd emit" } " publishes an event." }))
                } @else {
                    (quarters(&now.quarters))
                }
            }
            section .card { h2 { "Today's spending" } (spending(&now.spending)) }
            section .card { h2 { "Lanes" } (lanes(&now)) }
            section .card { h2 { "Trust" } (trust(&now)) }
        }
    };
    Ok(page("Now", Screen::Now, &content))
}

fn to_do(card: &Card) -> Markup {
    html! {
        article .card.bad[card.is_urgent].warn[!card.is_urgent] {
            h2 { (card.title) }
            p { (card.says) }
            p { (card.cure) }
            p .quiet {
                @if let Some(link) = &card.link { a href=(link.address) { (link.text) } " · " }
                a href={ "/docs/" (card.document) } { "what to do" }
            }
        }
    }
}

fn spending(lines: &[Spending]) -> Markup {
    const SHOWN: usize = 8;
    if lines.is_empty() {
        return empty(&html! { "Nobody has spent anything today." });
    }
    html! {
        table {
            thead .hidden { tr { th scope="col" { "Agent" } th scope="col" .number { "Spent of its limit, USD" } } }
            tbody {
                @for line in lines.iter().take(SHOWN) {
                    tr {
                        th scope="row" {
                            @match line.members {
                                Some(members) => { (line.name) " (" (members) ")" }
                                None => a href=(address("/money", &line.name)) { (line.name) },
                            }
                            (meter(line.percent.unwrap_or(0.0), line.status.as_deref()))
                        }
                        td .number {
                            (super::money::usd(&line.spent_usd))
                            @if let Some(limit) = &line.limit_usd { " / " (super::money::usd(limit)) }
                        }
                    }
                }
            }
        }
        p .quiet { a href="/money" { "all days and limits" } }
    }
}

fn lanes(now: &Now) -> Markup {
    let is_busy = |lane: &&LaneNow| {
        let waits = lane.state.stream.as_ref().is_some_and(|stream| stream.waiting.is_some_and(|waiting| waiting > 0));
        !lane.state.is_owned() || waits || lane.rate.hours.iter().any(|entries| *entries > 0.0)
    };
    let (busy, at_rest): (Vec<&LaneNow>, Vec<&LaneNow>) = now.lanes.iter().partition(is_busy);
    html! {
        @if !busy.is_empty() {
            div .scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "Lane" }
                            th scope="col" { "Owner" }
                            th scope="col" .number { "Position" }
                            th scope="col" .number { "Waiting" }
                            th scope="col" .number { "Oldest" }
                            th scope="col" .number { "Per minute" }
                            th scope="col" { "24 h" }
                        }
                    }
                    tbody { @for lane in busy { (row(lane)) } }
                }
            }
        }
        @if !at_rest.is_empty() {
            p .quiet {
                (at_rest.len()) " at rest: "
                @for (place, lane) in at_rest.iter().enumerate() { @if place > 0 { ", " } (lane.state.lane) }
            }
        }
        @if let Some(why) = &now.stream_unknown { p .quiet { "What waits in the stream is unknown: " (why) "." } }
    }
}

fn row(LaneNow { state, rate }: &LaneNow) -> Markup {
    let stream = state.stream.as_ref();
    html! {
        tr {
            th scope="row" { a href={ "/timeline?lane=" (state.lane) } { (state.lane) } }
            td .quiet { @if state.is_owned() { (state.owner.as_deref().unwrap_or_default()) } @else { span .tag.bad { "nobody" } } }
            td .number { (grouped(state.position)) }
            td .number { @match stream.and_then(|it| it.waiting) { Some(waiting) => (waiting), None => "unknown" } }
            td .number {
                @match stream { None => "unknown", Some(it) => (it.oldest_waits_seconds.map_or("–".to_owned(), short_duration)) }
            }
            td .number { (format!("{:.0}", rate.per_minute)) }
            td { (sparkline(&rate.hours)) }
        }
    }
}

fn trust(now: &Now) -> Markup {
    html! {
        table {
            tbody {
                tr {
                    th scope="row" { "Newest checkpoint" }
                    td .number {
                        @match &now.checkpoint {
                            Some(it) => {
                                (ago(it.ago_seconds)) ", " (grouped(it.tree_size)) " leaves"
                            }
                            None => span .tag.warn { "not signed" },
                        }
                    }
                }
                tr {
                    th scope="row" { "Witnesses" }
                    td .number {
                        @let cosigned = now.checkpoint.as_ref().map_or(0, |it| it.witnesses.len());
                        @if now.witnesses == 0 && cosigned == 0 { "none" } @else { (cosigned) " of " (now.witnesses.max(cosigned)) }
                    }
                }
                tr { th scope="row" { "Whole ledger verified" } td .number { (run(now.runs.verify.as_ref())) } }
                tr { th scope="row" { "Compared with the stream" } td .number { (run(now.runs.reconcile.as_ref())) } }
                tr {
                    th scope="row" { "Stream accounted for" }
                    td .number { @match now.extent.counted_seconds { Some(seconds) => (ago(seconds)), None => "not yet" } }
                }
            }
        }
        p .quiet { a href="/trust" { "all of it, and what cannot be seen" } }
    }
}

fn run(run: Option<&CheckRun>) -> Markup {
    html! {
        @match run {
            None => "no run on record",
            Some(run) => {
                @if run.findings == 0 { (outcome_tag("good", "nothing differs")) }
                @else { (outcome_tag("bad", &format!("{} differences", run.findings))) }
                " " span title=(run.ended_at) { (ago(run.ago_seconds)) }
            }
        }
    }
}

fn outcome_tag(kind: &str, text: &str) -> Markup {
    html! { span class={ "tag " (kind) } { (text) } }
}

fn ago(seconds: f64) -> String {
    format!("{} ago", short_duration(seconds))
}
