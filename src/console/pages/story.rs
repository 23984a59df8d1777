//! The screens *Task* and *Proposal*: everything that was recorded about one, in order, with what it cost.

use crate::console::elements::{address, agent, empty, outcome, proposal, record, task, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::story::{Reference, ReferenceTarget, Step, Story, Subject};
use crate::query::timeline::required;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

pub(crate) async fn of_task(State(site): State<Shared>, Path(id): Path<String>) -> Result<Response, Fault> {
    show(&site, Subject::Task, &id).await
}

pub(crate) async fn of_proposal(State(site): State<Shared>, Path(id): Path<String>) -> Result<Response, Fault> {
    show(&site, Subject::Proposal, &id).await
}

fn name(about: Subject) -> &'static str {
    match about {
        Subject::Task => "Task",
        Subject::Proposal => "Proposal",
    }
}

async fn show(site: &Shared, about: Subject, id: &str) -> Result<Response, Fault> {
    let id = required("id", id)?;
    let name = name(about);
    let title = format!("{name} {id}");
    let Some(story) = site.reader.story(about, &id).await? else {
        let content = html! {
            h1 { (name) " " code { (id) } }
            (empty(&html! {
                "No record names this " (name.to_lowercase()) ". Compare the id with what the agent published, or "
                a href=(address_of_search(&id)) { "search for it" } " as any other id."
            }))
        };
        return Ok((StatusCode::NOT_FOUND, page(&title, Screen::Other, &content)).into_response());
    };
    let content = html! {
        p .quiet { a href="/timeline" { "Timeline" } " › " (name) }
        h1 { (name) " " code { (id) } }
        (summary(&story))
        (steps(&story))
    };
    Ok(page(&title, Screen::Other, &content).into_response())
}

fn address_of_search(query: &str) -> String {
    address("/search", query).replacen("/search/", "/search?q=", 1)
}

fn summary(story: &Story) -> Markup {
    let others = |of: &[String]| of.iter().filter(|id| **id != story.id).cloned().collect::<Vec<_>>();
    let (tasks, proposals) = (others(&story.tasks), others(&story.proposals));
    html! {
        @if story.dangling > 0 {
            div .card .warn {
                h2 { (story.dangling) @if story.dangling == 1 { " reference leads" } @else { " references lead" } " nowhere" }
                p { "They are marked below. The event that is named may come later, or was never published." }
            }
        }
        div .cards {
            div .card {
                h2 { "Cost" }
                p { strong { (story.cost.usd) " USD" } @if story.cost.is_partial { " at least" } }
                p .quiet { (story.cost.calls) " calls, " (story.cost.tokens_input) " tokens in, " (story.cost.tokens_output) " out" }
            }
            @if !tasks.is_empty() || !proposals.is_empty() {
                div .card {
                    h2 { "Belongs together" }
                    @for id in &tasks { p { "Task " (task(id)) } }
                    @for id in &proposals { p { "Proposal " (proposal(id)) } }
                }
            }
        }
        @if story.is_cut {
            p .quiet { "There is more than one page can show: these are the newest records." }
        }
    }
}

fn steps(story: &Story) -> Markup {
    html! {
        div .scroll {
            table .lines {
                caption .quiet { "The oldest first." }
                thead {
                    tr {
                        th scope="col" { "Step" }
                        th scope="col" { "Time" }
                        th scope="col" { "Agent" }
                        th scope="col" { "What" }
                        th scope="col" { "Outcome" }
                        th scope="col" .number { "Leaf" }
                    }
                }
                tbody { @for step in &story.steps { (row(step)) } }
            }
        }
    }
}

fn row(step: &Step) -> Markup {
    let line = &step.line;
    html! {
        tr {
            th scope="row" { (step.stage) }
            td { (time(&line.time)) }
            td { (agent(&line.actor)) }
            td {
                (line.what())
                @if let Some(summary) = &line.summary { div .quiet { (summary) } }
                @if !step.votes.is_empty() { (votes(step)) }
                @for reference in &step.references { (referred(reference)) }
            }
            td { (outcome(&line.outcome)) }
            td .number { (record(line.leaf_index, line.record_id.as_deref())) }
        }
    }
}

fn votes(step: &Step) -> Markup {
    html! {
        ul .votes {
            @for (voter, vote) in &step.votes { li { (agent(voter)) " " (outcome(vote)) } }
        }
        @if let Some(required) = &step.threshold_required {
            div .quiet {
                "Needs " (required) " approvals"
                @match step.threshold_met.as_deref() {
                    Some("true") => ": it has them.",
                    Some("false") => ": it lacks them.",
                    _ => ".",
                }
            }
        }
    }
}

fn referred(reference: &Reference) -> Markup {
    html! {
        div .quiet {
            (reference.field) ": "
            @match reference.leads_to {
                ReferenceTarget::Recorded => a href=(address("/event", &reference.event_id)) { (reference.event_id) },
                ReferenceTarget::Erased => { code { (reference.event_id) } " " span .tag { "erased" } },
                ReferenceTarget::Nothing => { code { (reference.event_id) } " " span .tag .warn { "leads nowhere" } },
            }
        }
    }
}
