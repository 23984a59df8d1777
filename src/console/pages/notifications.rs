//! The screen *Notifications*: the targets that are told of events, what waits for them, and what they answered.

use crate::console::elements::{address, empty, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::notifications::{Notifications, NotificationsFilter, SentNotification, Target};
use axum::extract::{Query, State};
use maud::{Markup, html};

/// The states of a notification, and how the form names them.
const STATES: [(&str, &str); 5] = [
    ("", "any state"),
    ("delivered", "delivered"),
    ("waiting", "waiting"),
    ("failed", "given up"),
    ("retry", "to be retried"),
];

pub(crate) async fn show(
    State(site): State<Shared>,
    Query(filter): Query<NotificationsFilter>,
) -> Result<Markup, Fault> {
    let filter = NotificationsFilter {
        target: filter.target.filter(|target| !target.is_empty()),
        state: filter.state.filter(|state| !state.is_empty()),
    };
    let Notifications { targets, notifications } = site.reader.notifications(&filter).await?;
    let content = html! {
        h1 { "Notifications" }
        @if targets.is_empty() {
            (empty(&html! {
                "Nobody is told of events. An entry " code { "[[notify]]" } " in the settings makes a target: budgets, rejects, \
                 blocked events, stalls and integrity, as signed webhooks."
            }))
        } @else {
            section .cards aria-label="Targets" { @for target in &targets { (card(target)) } }
            section .card {
                h2 { "What was sent" }
                (form(&filter, &targets))
                @if notifications.is_empty() {
                    (empty(&html! {
                        "Nothing of this kind was sent. " code { "ledgerd notify test NAME" } " sends a test to a target."
                    }))
                } @else {
                    (table(&notifications))
                }
            }
        }
    };
    Ok(page("Notifications", Screen::Other, &content))
}

fn card(target: &Target) -> Markup {
    let (kind, says) = match target.state.as_str() {
        "disabled" => ("bad", "disabled: it answered 410 Gone"),
        "failing" => ("warn", "failing"),
        "removed" => ("", "no longer in the settings"),
        _ => ("good", "delivering"),
    };
    let name = &target.name;
    html! {
        article class={ "card " @if kind == "bad" || kind == "warn" { (kind) } } {
            h2 { (name) " " span class={ "tag " (kind) } { (says) } }
            p { (target.host) ": " (target.events.join(", ")) }
            p {
                (target.waiting) " waiting, " (target.delivered) " delivered, " (target.failed_attempts) " failed attempts, "
                (target.given_up) " given up"
            }
            p .quiet {
                "Last delivery "
                @match &target.last_success_at { Some(at) => (time(at)), None => "never" }
                @if let Some(instance) = &target.delivered_by { ", by " (instance) }
            }
            @if let (Some(at), Some(why)) = (&target.last_failure_at, &target.last_failure) {
                p .quiet { "Last failure " (time(at)) ": " (why) }
            }
            @if target.state == "disabled" || target.given_up > 0 {
                p { code { "ledgerd notify retry " (name) } " enables it and tries again what was given up." }
            }
        }
    }
}

fn form(filter: &NotificationsFilter, targets: &[Target]) -> Markup {
    let wanted = |text: &Option<String>, value: &str| text.as_deref().unwrap_or_default() == value;
    html! {
        form action="/notifications" {
            select name="target" aria-label="Target" {
                option value="" { "any target" }
                @for target in targets {
                    option value=(target.name) selected[wanted(&filter.target, &target.name)] { (target.name) }
                }
            }
            " "
            select name="state" aria-label="State" {
                @for (state, says) in STATES {
                    option value=(state) selected[wanted(&filter.state, state)] { (says) }
                }
            }
            " "
            button { "Show" }
        }
    }
}

fn table(notifications: &[SentNotification]) -> Markup {
    html! {
        div .scroll {
            table {
                thead {
                    tr {
                        th scope="col" { "Last attempt" }
                        th scope="col" { "Target" }
                        th scope="col" { "Event" }
                        th scope="col" { "State" }
                        th scope="col" .number { "Attempts" }
                        th scope="col" { "Answer" }
                        th scope="col" { "Id" }
                    }
                }
                tbody {
                    @for it in notifications {
                        tr {
                            td { (time(&it.last_at)) }
                            td { (it.target) }
                            td { (event(it)) div .quiet { "of " (time(&it.occurred_at)) } }
                            td { (state(&it.state)) }
                            td .number { (it.attempts) }
                            td { (it.answer) " " span .quiet { "within " (it.took_ms) " ms" } }
                            td { code { (it.webhook_id) } }
                        }
                    }
                }
            }
        }
    }
}

/// The type of an event, with a link to what it is about.
fn event(of: &SentNotification) -> Markup {
    let path = match of.source.as_str() {
        "reject" => Some("/rejects"),
        "blocked" => Some("/record"),
        _ => None,
    };
    html! {
        @match path {
            Some(path) => a href=(address(path, &of.number.to_string())) { (of.kind) },
            None if of.source == "budget" => a href="/money" { (of.kind) },
            None => (of.kind),
        }
    }
}

fn state(name: &str) -> Markup {
    let kind = match name {
        "delivered" => "good",
        "failed" => "bad",
        _ => "warn",
    };
    let says = STATES.iter().find(|(state, _)| *state == name).map_or(name, |(_, says)| says);
    html! { span class={ "tag " (kind) } { (says) } }
}
