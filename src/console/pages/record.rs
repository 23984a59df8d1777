//! The screen *Record*: one entry, as it was published, as it is stored, and its proof, checked in the visitor's browser.

use crate::console::elements::{address, agent, outcome, task, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::pages::published;
use crate::console::site::Shared;
use crate::console::verifier::{ProofSource, card};
use crate::query::record::{LedgerEntry, StoredColumn, StoredRow};
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

pub(crate) async fn show(State(site): State<Shared>, Path(leaf_index): Path<u64>) -> Result<Markup, Fault> {
    let record = site.reader.record(&site.log, leaf_index).await?.ok_or(Fault::NoSuchEntry(leaf_index))?;
    let name = record.record_id.clone().unwrap_or_else(|| format!("Entry {leaf_index}"));
    let proof = format!("/api/v1/records/{leaf_index}/proof");
    let content = html! {
        (trail(&record))
        h1 .mono { (name) }
        div .cards {
            section .card aria-labelledby="happened" {
                h2 #happened { "What happened" }
                (happened(&record))
            }
            div {
                (card(ProofSource::Console { address: &proof, leaf_index }))
                p .actions {
                    a .button .primary href=(proof) download { "Download the proof" } " "
                    a .button href="/verifier.html" download { "Check it offline" }
                }
            }
            section .card aria-labelledby="published" {
                h2 #published { "As it was published" }
                (published::message(&record.published, record.erasure.as_ref()))
            }
            section .card aria-labelledby="stored" { (stored(&record)) }
            section .card aria-labelledby="received" {
                h2 #received { "As it was received and logged" }
                (received(&record))
            }
            (others(&record))
        }
        script src="/assets/verify.js" defer {}
        script src="/assets/verify_page.js" defer {}
    };
    Ok(page(&name, Screen::Other, &content))
}

/// `/event/{event_id}` leads to its record.
pub(crate) async fn by_event(State(site): State<Shared>, Path(id): Path<String>) -> Result<Redirect, Fault> {
    let leaf = site.reader.leaf_of_event(&site.log, &id).await?.ok_or(Fault::NoSuchEvent(id))?;
    Ok(Redirect::to(&format!("/record/{leaf}")))
}

fn trail(record: &LedgerEntry) -> Markup {
    html! {
        nav .quiet aria-label="Where this is" {
            a href="/timeline" { "Timeline" }
            @if let Some(id) = &record.task_id { " › task " (task(id)) }
            @if let Some(id) = &record.proposal_id { " › proposal " a href=(address("/proposal", id)) { (id) } }
        }
    }
}

fn happened(record: &LedgerEntry) -> Markup {
    let said = record.published.json();
    let empty = serde_json::Map::new();
    let fields = said.as_object().unwrap_or(&empty);
    html! {
        table .facts {
            tbody {
                tr {
                    th scope="row" { "Became" }
                    td { (outcome(&record.disposition)) @if let Some(place) = row_of(record) { " " span .quiet { (place) } } }
                }
                @if let Some(rejection) = &record.rejection {
                    tr {
                        th scope="row" { "Why" }
                        td {
                            code { (rejection.reason) } ": " (rejection.detail) " "
                            a href={ "/rejects/" (record.leaf_index) } { "What to do about it" }
                        }
                    }
                }
                @for (name, value) in fields { tr { th scope="row" { (label(name)) } td { (field(name, value)) } } }
                @if let Some(trace) = &record.trace {
                    tr {
                        th scope="row" { "Trace" }
                        td { a href={ "/search?q=" (trace.trace_id) } .mono { (trace.trace_id) } " " span .quiet { "span " (trace.parent_id) } }
                    }
                }
            }
        }
        @if fields.is_empty() && record.erasure.is_none() { p .quiet { "The bytes are no JSON object: they stand below." } }
    }
}

fn row_of(record: &LedgerEntry) -> Option<String> {
    record.row.as_ref().map(|row| format!("{}, row {}", row.table, row.id))
}

/// The name of a field, as a sentence would begin.
fn label(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut characters = words.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn field(name: &str, value: &Value) -> Markup {
    match (name, value) {
        ("actor" | "agent_name", Value::String(text)) => agent(text),
        ("task_id", Value::String(text)) => task(text),
        ("proposal_id", Value::String(text)) => html! { a href=(address("/proposal", text)) { (text) } },
        ("ledger_ref", Value::String(text)) => html! { a href=(address("/event", text)) { (text) } },
        ("outcome", Value::String(text)) => outcome(text),
        ("timestamp" | "created_at", Value::String(text)) if text.ends_with('Z') => time(text),
        (_, Value::String(text)) => html! { (text) },
        (_, Value::Object(members)) => html! {
            dl .members { @for (name, value) in members { dt { (label(name)) } dd { (member(name, value)) } } }
        },
        (_, other) => html! { code { (other) } },
    }
}

/// One level is laid out; what lies deeper stands as JSON.
fn member(name: &str, value: &Value) -> Markup {
    match value {
        Value::Object(_) | Value::Array(_) => html! { code { (value) } },
        _ => field(name, value),
    }
}

fn stored(record: &LedgerEntry) -> Markup {
    let Some(row) = &record.row else { return nothing_stored(record) };
    let verdict = if record.differences.is_empty() {
        html! { span .tag .good { "the same" } }
    } else {
        html! { span .tag .bad { "differs" } }
    };
    html! {
        h2 #stored { "As it stands in " (row.table) ", row " (row.id) " · " (verdict) }
        (columns(row))
        (differences(record))
    }
}

fn columns(row: &StoredRow) -> Markup {
    html! {
        table .facts {
            tbody {
                @for StoredColumn { name, value, difference } in &row.columns {
                    tr .differs[difference.is_some()] {
                        th scope="row" .mono { (name) }
                        td {
                            @match value {
                                Some(value) => span .mono data-column=(name) { (value) },
                                None => span .quiet { "null" },
                            }
                            @if let Some(says) = difference { p .error { "This column " (says) } }
                        }
                    }
                }
            }
        }
    }
}

fn nothing_stored(record: &LedgerEntry) -> Markup {
    let why = match record.disposition.as_str() {
        "duplicate" => "The same record was stored before, so this copy made no row.",
        "rejected" => "It was rejected, so it made no row. The bytes are kept.",
        _ if record.erasure.is_some() => "Its row left the table by right; the event is named beside.",
        _ => "Its row is missing, and no removal says why.",
    };
    html! {
        h2 #stored { "As it is stored" }
        p .error[record.disposition == "recorded" && record.erasure.is_none()] { (why) }
        (differences(record))
    }
}

fn differences(record: &LedgerEntry) -> Markup {
    html! {
        @if !record.differences.is_empty() {
            p .error role="alert" { "The stored row is not what the published bytes say:" }
            ul { @for one in &record.differences { li { code { (one.table) "." (one.field) } " " (one.says) } } }
            p { code { "ledgerd verify --repair-projection" } " makes a damaged row anew, on record." }
        }
    }
}

fn received(record: &LedgerEntry) -> Markup {
    html! {
        table .facts {
            tbody {
                tr { th scope="row" { "Subject" } td .mono data-leaf-field="subject" { (record.subject) } }
                tr { th scope="row" { "Stream" } td { span data-leaf-field="stream" { (record.stream) } ", sequence " span data-leaf-field="sequence" { (record.sequence) } } }
                tr { th scope="row" { "Received" } td { (time(&record.received_at)) } }
                @if let Some(at) = &record.committed_at { tr { th scope="row" { "Committed" } td { (time(at)) } } }
                tr { th scope="row" { "Record id" } td .mono data-leaf-field="recordId" { (record.record_id.as_deref().unwrap_or_default()) } }
                tr { th scope="row" { "Disposition" } td data-leaf-field="disposition" { (record.disposition) } }
                tr { th scope="row" { "Leaf" } td { (record.leaf_index) " " code .quiet { (record.leaf_hash) } } }
                @if let Some(hash) = &record.payload_sha256 { tr { th scope="row" { "SHA-256" } td { code .quiet { (hash) } } } }
                tr {
                    th scope="row" { "Checkpoint" }
                    td {
                        @match &record.checkpoint {
                            Some(newest) => {
                                (newest.origin) ", size " (newest.tree_size) " "
                                span .quiet { "signed by " (newest.signed_by.join(", ")) }
                            },
                            None => { "None covers it yet. The daemon signs each second once it has a key: " code { "ledgerd keygen" } },
                        }
                    }
                }
            }
        }
    }
}

fn others(record: &LedgerEntry) -> Markup {
    let search =
        record.record_id.as_deref().map(|id| format!("/search?q={}", utf8_percent_encode(id, NON_ALPHANUMERIC)));
    html! {
        @if !record.others.is_empty() {
            section .card aria-labelledby="others" {
                h2 #others { "Other entries of this id" }
                table {
                    thead { tr { th scope="col" { "Leaf" } th scope="col" { "Became" } th scope="col" { "Subject" } th scope="col" { "Committed" } } }
                    tbody {
                        @for other in &record.others {
                            tr {
                                td { a href={ "/record/" (other.leaf_index) } { (other.leaf_index) } }
                                td { (outcome(&other.disposition)) }
                                td .mono { (other.subject) }
                                td { (time(&other.committed_at)) }
                            }
                        }
                    }
                }
                @if let Some(address) = search { p { a href=(address) { "Search this id" } } }
            }
        }
    }
}
