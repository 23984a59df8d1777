//! The screen *Rejects*: reasons and agents, each with its cure, and the rejects one by one.

use crate::console::cures::{cures, sentence};
use crate::console::elements::{agent, empty, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::rejects::{RejectFilter, RejectGroup, RejectLine, RejectsPage};
use crate::record::reject::Reason;
use axum::extract::{Query, State};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

pub(crate) async fn list(State(site): State<Shared>, Query(filter): Query<RejectFilter>) -> Result<Markup, Fault> {
    let found = site.reader.rejects(&filter).await?;
    let content = html! {
        h1 { "Rejects" }
        @if found.counted == 0 {
            (empty(&html! { "Nothing was rejected. When a message breaks a rule, it appears here with its reason and its cure." }))
        } @else {
            (groups(&found))
            (single(&found, &filter))
        }
    };
    Ok(page("Rejects", Screen::Rejects, &content))
}

fn groups(found: &RejectsPage) -> Markup {
    let open: i64 = found.groups.iter().map(|group| group.open + group.unfinished).sum();
    html! {
        section .card aria-labelledby="reasons" {
            h2 #reasons { "By reason and agent" }
            p {
                @if open == 0 { "Every one of them was decided: nothing waits for you." } @else { strong { (open) } " wait for a decision." } " "
                span .quiet {
                    @if found.counted_all { "All " (found.counted) " rejects are counted." }
                    @else { "The newest " (found.counted) " rejects are counted; there are more before them." }
                }
            }
            div .scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "Reason" } th scope="col" { "Agent" } th scope="col" .number { "Count" } th scope="col" { "State" }
                            th scope="col" { "First and last" } th scope="col" { "Example and cure" }
                        }
                    }
                    tbody { @for group in &found.groups { (line_of(group)) } }
                }
            }
        }
    }
}

fn line_of(group: &RejectGroup) -> Markup {
    let cure = cures(&group.reason, lane_of(&group.example_subject)).into_iter().next();
    html! {
        tr {
            td { a href=(filtered(&group.reason, &group.actor, "")) { code { (group.reason) } } }
            td { (agent(&group.actor)) }
            td .number { (group.count) }
            td {
                @for (name, count) in [("open", group.open), ("unfinished", group.unfinished), ("requeued", group.requeued), ("discarded", group.discarded)] {
                    @if count > 0 { (state(name)) " " (count) " " }
                }
            }
            td { (time(&group.first_seen)) br; (time(&group.last_seen)) }
            td {
                a href={ "/rejects/" (group.example_leaf_index) } { (group.example_detail) }
                @if let Some(cure) = cure { p .quiet { (sentence(cure.cure)) } }
            }
        }
    }
}

/// The lane that a subject of a dead letter names: `dlq.ledger.LANE.ACTOR.REFERENCE`.
fn lane_of(dlq_subject: &str) -> &str {
    dlq_subject.split('.').nth(2).unwrap_or_default()
}

pub(crate) fn state(name: &str) -> Markup {
    let kind = match name {
        "open" => "bad",
        "unfinished" => "warn",
        "requeued" => "good",
        _ => "",
    };
    html! { span class={ "tag " (kind) } { (name) } }
}

fn single(found: &RejectsPage, filter: &RejectFilter) -> Markup {
    html! {
        section .card aria-labelledby="single" {
            h2 #single { "One by one, the newest first" }
            (filters(filter))
            @if found.rejects.is_empty() {
                (empty(&html! {
                    "None of these matches. "
                    @if found.next_cursor.is_some() { "There are older ones." } @else { a href="/rejects" { "Show all" } }
                }))
            } @else {
                div .scroll {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Rejected" } th scope="col" { "Reason" } th scope="col" { "Subject" } th scope="col" { "State" }
                            }
                        }
                        tbody { @for reject in &found.rejects { (line(reject)) } }
                    }
                }
            }
            @if let Some(cursor) = &found.next_cursor { p { a .button href=(next(filter, cursor)) rel="next" { "Older" } } }
        }
    }
}

fn line(reject: &RejectLine) -> Markup {
    html! {
        tr {
            td { (time(&reject.rejected_at)) }
            td { a href={ "/rejects/" (reject.leaf_index) } { code { (reject.reason) } } br; (reject.detail) }
            td .mono { (reject.subject) }
            td { (state(reject.state)) }
        }
    }
}

fn filters(filter: &RejectFilter) -> Markup {
    let chosen = |value: &Option<String>, name: &str| value.as_deref() == Some(name);
    html! {
        form .filters action="/rejects" {
            label { "Reason "
                select name="reason" {
                    option value="" { "any" }
                    @for reason in Reason::ALL { option value=(reason) selected[chosen(&filter.reason, reason.code())] { (reason) } }
                }
            }
            label { "Agent " input name="actor" value=(filter.actor.as_deref().unwrap_or_default()) placeholder="any"; }
            label { "State "
                select name="state" {
                    option value="" { "any" }
                    @for name in ["open", "unfinished", "requeued", "discarded"] { option value=(name) selected[chosen(&filter.state, name)] { (name) } }
                }
            }
            button { "Filter" }
        }
    }
}

fn filtered(reason: &str, actor: &str, state: &str) -> String {
    let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("/rejects?reason={}&actor={}&state={}", escaped(reason), escaped(actor), escaped(state))
}

fn next(filter: &RejectFilter, cursor: &str) -> String {
    let of = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}&cursor={cursor}", filtered(&of(&filter.reason), &of(&filter.actor), &of(&filter.state)))
}
