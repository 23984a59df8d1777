//! Pieces that several screens show: times, outcomes, links to records, agents and tasks, and empty states.

use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A moment in UTC, `2026-02-20T17:47:14.568Z`. A script adds the visitor's own time.
pub(crate) fn time(utc: &str) -> Markup {
    html! { time datetime=(utc) { (utc.replacen('T', " ", 1).trim_end_matches('Z')) " UTC" } }
}

/// What came of something: SUCCESS, FAILED, BLOCKED and so on, with its colour.
pub(crate) fn outcome(name: &str) -> Markup {
    let kind = match name {
        "SUCCESS" | "APPROVED" | "recorded" | "GREEN" => "good",
        "PENDING" | "duplicate" | "YELLOW" => "warn",
        "DENIED" | "FAILURE" | "FAILED" | "BLOCKED" | "REJECTED" | "rejected" | "RED" | "EXCEEDED" => "bad",
        _ => "",
    };
    html! { span class={ "tag " (kind) } { (name) } }
}

/// The address of something below a path: what an agent wrote is one segment of it, whatever it contains.
pub(crate) fn address(path: &str, segment: &str) -> String {
    format!("{path}/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC))
}

/// An agent, with a link to what it did.
pub(crate) fn agent(name: &str) -> Markup {
    html! { a href={ "/timeline?actor=" (utf8_percent_encode(name, NON_ALPHANUMERIC)) } { (name) } }
}

/// A task, with a link to its story.
pub(crate) fn task(id: &str) -> Markup {
    html! { a href=(address("/task", id)) { (id) } }
}

/// A proposal, with a link to its story.
pub(crate) fn proposal(id: &str) -> Markup {
    html! { a href=(address("/proposal", id)) { (id) } }
}

/// The page of an entry: its leaf, and the record's name for whoever reads or hears the link.
pub(crate) fn record(leaf_index: i64, record_id: Option<&str>) -> Markup {
    html! { a href={ "/record/" (leaf_index) } title=[record_id] { (leaf_index) } }
}

/// What is said where nothing is there, and what to do about it.
pub(crate) fn empty(what: &Markup) -> Markup {
    html! { p .empty { (what) } }
}
