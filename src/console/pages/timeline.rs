//! The screen *Timeline*: what agents did, the newest first.

use crate::console::elements::{agent, empty, outcome, task, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::timeline::TimelineFilter;
use axum::extract::{Query, State};
use maud::{Markup, html};

pub(crate) async fn show(State(site): State<Shared>, Query(filter): Query<TimelineFilter>) -> Result<Markup, Fault> {
    let lines = site.reader.timeline(&filter).await?;
    let content = html! {
        h1 { "Timeline" }
        @if lines.is_empty() {
            (empty(&html! { "Nothing is recorded yet. " code { "ledgerd emit" } " publishes an event." }))
        } @else {
            table {
                thead { tr { th { "Time" } th { "Agent" } th { "Action" } th { "Outcome" } th { "Task" } } }
                tbody {
                    @for line in &lines {
                        tr {
                            td { (time(&line.timestamp)) }
                            td { (agent(&line.actor)) }
                            td { (line.action) }
                            td { (outcome(&line.outcome)) }
                            td { @if let Some(id) = &line.task_id { (task(id)) } }
                        }
                    }
                }
            }
        }
    };
    Ok(page("Timeline", Screen::Timeline, &content))
}
