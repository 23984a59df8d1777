//! The screen *Timeline*: what agents did, the newest first, with filters, as a table and as a file.

mod table;

pub(crate) use table::rows;

use crate::console::elements::empty;
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::live::LiveStart;
use crate::console::pages::timeline::table::{csv, row};
use crate::console::site::Shared;
use crate::query::timeline::{LINES_MAX, Tail, TimelineFilter, TimelineLine, TimelinePage};
use crate::record::lane::Lane;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::response::sse::Event;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Outcomes that are often asked for.
const USUAL_OUTCOMES: [&str; 8] =
    ["SUCCESS", "FAILURE", "BLOCKED", "APPROVED", "REJECTED", "PENDING", "recorded", "rejected"];

pub(crate) async fn show(State(site): State<Shared>, Query(filter): Query<TimelineFilter>) -> Result<Markup, Fault> {
    // Before the lines are read, so that none is missed between the page and its stream.
    let end = site.reader.tail().await?;
    let found = site.reader.timeline(&filter.question()?).await?;
    let content = html! {
        h1 { "Timeline" }
        (form(&filter))
        (chips(&filter))
        @if found.lines.is_empty() {
            (nothing(&filter, &found))
        }
        div .scroll {
            table #lines .lines data-live=[live_address(&filter, end)] data-live-max=(LIVE_LINES_MAX) hidden[found.lines.is_empty()] {
                caption .quiet { "The newest first. Rejected messages are grey." }
                thead {
                    tr {
                        th scope="col" { "Time" }
                        th scope="col" { "Agent" }
                        th scope="col" { "Action" }
                        th scope="col" { "Outcome" }
                        th scope="col" { "Task" }
                        th scope="col" .number { "Leaf" }
                    }
                }
                tbody { (rows(&found.lines)) }
            }
        }
        p #live-news .quiet role="status" aria-live="polite" {}
        (ways_on(&filter, &found))
    };
    Ok(page("Timeline", Screen::Timeline, &content))
}

/// Rows that a page keeps while new ones come in.
const LIVE_LINES_MAX: usize = 200;

/// Where new lines come from. An older page stays as it is.
fn live_address(filter: &TimelineFilter, end: Tail) -> Option<String> {
    let is_newest = filter.cursor.as_ref().is_none_or(String::is_empty);
    let from = end.size().to_string();
    is_newest
        .then(|| address("/timeline/live", &filter.pairs().into_iter().chain([("from", &*from)]).collect::<Vec<_>>()))
}

/// An address with these fields.
fn address(path: &str, pairs: &[(&str, &str)]) -> String {
    let fields = pairs.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    let query = fields.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn form(filter: &TimelineFilter) -> Markup {
    let value = |field: &Option<String>| field.clone().unwrap_or_default();
    html! {
        form .filters action="/timeline" role="search" aria-label="Filter the timeline" {
            label { "Agent" input name="actor" value=(value(&filter.actor)) autocomplete="off"; }
            label { "Task" input name="task" value=(value(&filter.task)) autocomplete="off"; }
            label { "Lane"
                select name="lane" {
                    option value="" { "all" }
                    @let chosen = value(&filter.lane);
                    @let known = Lane::all().into_iter().map(Lane::prefix);
                    @for lane in known.clone() {
                        option value=(lane) selected[lane == chosen] { (lane) }
                    }
                    @if !chosen.is_empty() && known.clone().all(|lane| lane != chosen) {
                        option value=(chosen) selected { (chosen) }
                    }
                }
            }
            label { "Outcome" input name="outcome" value=(value(&filter.outcome)) list="outcomes" autocomplete="off"; }
            datalist #outcomes { @for outcome in USUAL_OUTCOMES { option value=(outcome) {} } }
            label { "Since (UTC)" input name="since" value=(value(&filter.since)) placeholder="2026-02-20" autocomplete="off"; }
            label { "Before (UTC)" input name="until" value=(value(&filter.until)) placeholder="2026-02-21" autocomplete="off"; }
            button .primary { "Filter" }
        }
    }
}

/// The filters in force, each with a way to be rid of it.
fn chips(filter: &TimelineFilter) -> Markup {
    let pairs = filter.pairs();
    html! {
        @if !pairs.is_empty() {
            p .chips {
                @for (name, value) in &pairs {
                    @let others: Vec<_> = pairs.iter().copied().filter(|(other, _)| other != name).collect();
                    a .chip href=(address("/timeline", &others)) aria-label={ "Remove the filter " (name) " " (value) } {
                        (name) ": " (value) " ×"
                    }
                }
            }
        }
    }
}

fn nothing(filter: &TimelineFilter, found: &TimelinePage) -> Markup {
    if found.next.is_some() {
        return empty(&html! { "Nothing matches so far. The search goes on below." });
    }
    if filter.pairs().is_empty() && filter.cursor.is_none() {
        return empty(&html! { "Nothing is recorded yet. " code { "ledgerd emit" } " publishes an event." });
    }
    empty(
        &html! { "Nothing matches. Remove a filter above, or look at " a href="/timeline" { "the whole timeline" } "." },
    )
}

fn ways_on(filter: &TimelineFilter, found: &TimelinePage) -> Markup {
    let pairs = filter.pairs();
    let limit = LINES_MAX.to_string();
    let with = |name, value| pairs.iter().copied().chain([(name, value)]).collect::<Vec<_>>();
    html! {
        @if let Some(back_to) = &found.searched_back_to {
            p .quiet { "Few lines match: the search has come back to " (crate::console::elements::time(back_to)) "." }
        }
        nav .ways aria-label="Pages" {
            @if filter.cursor.is_some() {
                a .button href=(address("/timeline", &pairs)) { "Newest" }
            }
            @if let Some(next) = &found.next {
                a .button rel="next" href=(address("/timeline", &with("cursor", next))) { "Older" }
            }
            span .quiet {
                "Export: "
                a href=(address("/timeline.csv", &pairs)) download { "CSV" }
                " · "
                a href=(address("/api/v1/timeline", &with("limit", &limit))) { "JSON" }
            }
        }
    }
}

/// Rows of the table as they are committed.
pub(crate) async fn live(
    State(site): State<Shared>,
    headers: HeaderMap,
    Query(filter): Query<TimelineFilter>,
    Query(start): Query<LiveStart>,
) -> Result<impl IntoResponse + use<>, Fault> {
    site.live.stream(&site.reader, filter.question()?, start.leaf(&headers), told).await
}

fn told(line: &TimelineLine) -> Event {
    Event::default().event("line").id(line.leaf_index.to_string()).data(row(line).into_string())
}

/// Lines of one file. A further file begins where this one ends.
const CSV_LINES_MAX: usize = 10_000;

/// The timeline as a file. Where it has more lines than fit, the header `Link` leads to the next file.
pub(crate) async fn export(
    State(site): State<Shared>,
    Query(filter): Query<TimelineFilter>,
) -> Result<impl IntoResponse, Fault> {
    let question = TimelineFilter { limit: Some(LINES_MAX), ..filter.clone() }.question()?;
    let (lines, next) = site.reader.timeline_lines(question, CSV_LINES_MAX).await?;
    let more = next.map(|next| {
        let pairs: Vec<_> = filter.pairs().into_iter().chain([("cursor", next.as_str())]).collect();
        [(header::LINK, format!("<{}>; rel=\"next\"", address("/timeline.csv", &pairs)))]
    });
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"timeline.csv\""),
    ];
    Ok((headers, more.map(axum::response::AppendHeaders), csv(&lines)))
}
