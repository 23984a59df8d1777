//! The search page: leads to the one thing that is meant, or lists what may be.

use crate::console::elements::{address, agent, empty, outcome, proposal, record, task, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::search::{Found, SearchAnswer};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SearchFields {
    q: String,
}

pub(crate) async fn show(State(site): State<Shared>, Query(fields): Query<SearchFields>) -> Result<Response, Fault> {
    let answer = site.reader.search(&fields.q).await??;
    if let [only] = &answer.found[..] {
        return Ok(Redirect::to(&address_of(only)).into_response());
    }
    let status =
        if answer.found.is_empty() && !answer.query.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Ok((status, page("Search", Screen::Other, &content(&answer))).into_response())
}

fn address_of(found: &Found) -> String {
    match found {
        Found::Entry { leaf_index, disposition, .. } if disposition == "rejected" => format!("/rejects/{leaf_index}"),
        Found::Entry { leaf_index, .. } => format!("/record/{leaf_index}"),
        Found::Task { id } => address("/task", id),
        Found::Proposal { id } => address("/proposal", id),
        Found::Agent { name } => address("/timeline", name).replacen("/timeline/", "/timeline?actor=", 1),
    }
}

fn content(answer: &SearchAnswer) -> Markup {
    html! {
        h1 { "Search" }
        @if answer.query.is_empty() {
            (empty(&html! { "Write an id into the box above: of an event, a task, a proposal, a trail, a usage, a reject or a trace, \
                the key of a metric, or the number of a leaf or of a sequence." }))
        } @else if answer.found.is_empty() {
            p { "Nothing recorded has " code { (answer.query) } "." }
            (empty(&html! { "It was looked for as " (answer.tried.join(", ")) ". Ids are searched as a whole: compare every character." }))
        } @else {
            p { code { (answer.query) } " may mean any of these:" }
            table .lines {
                thead { tr { th scope="col" { "What" } th scope="col" { "Which" } th scope="col" { "Time" } th scope="col" { "Outcome" } } }
                tbody { @for found in &answer.found { (row(found)) } }
            }
        }
    }
}

fn row(found: &Found) -> Markup {
    match found {
        Found::Task { id } => html! { tr { td { "task" } td { (task(id)) } td {} td {} } },
        Found::Proposal { id } => html! { tr { td { "proposal" } td { (proposal(id)) } td {} td {} } },
        Found::Agent { name } => html! { tr { td { "agent" } td { (agent(name)) } td {} td {} } },
        Found::Entry { leaf_index, disposition, line: None, by } => html! {
            tr { td { (by) } td { "leaf " (record(*leaf_index, None)) } td {} td { (outcome(disposition)) } }
        },
        Found::Entry { leaf_index, line: Some(line), by, .. } => html! {
            tr {
                td { (by) }
                td {
                    "leaf "
                    @if line.is_reject() { a href={ "/rejects/" (leaf_index) } { (leaf_index) } } @else { (record(*leaf_index, None)) }
                    ": " (line.actor) ", " (line.reason.as_deref().unwrap_or(line.what()))
                    @if let Some(id) = &line.record_id { div .quiet { (id) } }
                }
                td { (time(&line.time)) }
                td { (outcome(&line.outcome)) }
            }
        },
    }
}
