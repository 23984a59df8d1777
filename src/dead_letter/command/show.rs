//! `ledgerd dlq list` and `ledgerd dlq show`: print dead letters. Publishers' text is escaped, so that the terminal
//! executes no control character in it.

use crate::command::output::{self, safe};
use crate::dead_letter::command::Failure;
use crate::dead_letter::command::which::{Filters, find};
use crate::dead_letter::queries as dead_letters;
use crate::dead_letter::queries::{LetterSummary, Resolved, Shown};
use crate::dead_letter::resolution::{DecisionOutcome, LetterState};
use crate::postgres::connections::Connections;
use crate::record::digest::{hex, sha256};
use crate::record::message::Headers;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    filters: Filters,
    /// Only those in this state: open, unfinished, requeued or discarded
    #[arg(long, value_parser = state)]
    state: Option<LetterState>,
    /// At most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

fn state(text: &str) -> Result<LetterState, String> {
    LetterState::named(text)
        .ok_or_else(|| format!("the states are {}", LetterState::ALL.map(LetterState::name).join(" ")))
}

pub(crate) async fn list(connections: &Connections, arguments: &ListArguments, as_json: bool) -> Result<(), Failure> {
    let filter = arguments.filters.filter(arguments.state.map(|state| vec![state]))?;
    let letters = dead_letters::newest(connections, &filter, arguments.limit).await?;
    if as_json {
        output::json(&Value::Array(letters.iter().map(listed_value).collect()));
        return Ok(());
    }
    for letter in &letters {
        let LetterSummary { reference, rejected_at, reason, state, subject, detail, .. } = letter;
        output::line(format_args!("{reference}  {rejected_at}  {reason:<20}  {state:<10}  {}", safe(subject)));
        output::line(format_args!("    {}", safe(detail)));
    }
    output::line(format_args!("{} dead letters", letters.len()));
    Ok(())
}

fn listed_value(letter: &LetterSummary) -> Value {
    json!({
        "reference": letter.reference, "reason": letter.reason, "detail": letter.detail, "subject": letter.subject,
        "sequence": letter.sequence, "record_id": letter.record_id, "rejected_at": letter.rejected_at,
        "published": letter.published, "state": letter.state.name(), "leaf_index": letter.leaf_index,
    })
}

pub(crate) async fn show(connections: &Connections, reference: &str, as_json: bool) -> Result<(), Failure> {
    let listed = find(connections, reference).await?;
    let origins = dead_letters::standing(connections, &listed).await?.origins;
    let shown = dead_letters::show(connections, listed).await?;
    if as_json {
        output::json(&shown_value(&shown, &origins));
    } else {
        print(&shown, &origins);
    }
    Ok(())
}

fn shown_value(letter: &Shown, origins: &[(String, String)]) -> Value {
    let mut value = listed_value(&letter.listed);
    value["dlq_subject"] = letter.dlq_subject.as_str().into();
    value["headers"] = headers(letter).into();
    // Bytes that are not UTF-8 have no place in JSON; they are shown escaped, and `exact` says so.
    value["exact"] = std::str::from_utf8(&letter.payload).is_ok().into();
    value["payload"] = String::from_utf8_lossy(&letter.payload).into();
    value["requeued_from"] = origins.iter().map(|(reference, _)| Value::from(reference.as_str())).collect();
    value["resolutions"] = letter.resolutions.iter().map(resolved_value).collect();
    value
}

fn resolved_value(resolved: &Resolved) -> Value {
    let replacement = resolved.replacement.as_deref();
    let (outcome, rejected_as) = match &resolved.outcome {
        None => (None, None),
        Some(DecisionOutcome::Awaited) => (Some("awaited"), None),
        Some(DecisionOutcome::Accepted) => (Some("accepted"), None),
        Some(DecisionOutcome::Rejected(reference)) => (Some("rejected"), Some(reference)),
    };
    json!({
        "action": resolved.action, "by": resolved.by, "why": resolved.why, "decided_at": resolved.decided_at,
        "event_id": resolved.event_id, "sequence": resolved.sequence, "outcome": outcome, "rejected_as": rejected_as,
        "replacement": replacement.map(String::from_utf8_lossy),
        "replacement_sha256": replacement.map(|bytes| hex(&sha256(bytes))),
    })
}

fn headers(letter: &Shown) -> Vec<String> {
    match Headers::from_stored(letter.headers.clone()).pairs() {
        Some(pairs) => pairs.into_iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        None => vec![letter.headers.as_deref().unwrap_or_default().escape_ascii().to_string()],
    }
}

fn print(letter: &Shown, origins: &[(String, String)]) {
    let LetterSummary {
        leaf_index,
        reference,
        reason,
        detail,
        subject,
        sequence,
        record_id,
        rejected_at,
        published,
        state,
    } = &letter.listed;
    output::line(format_args!("reference    {reference}"));
    output::line(format_args!("reason       {reason}"));
    output::line(format_args!("detail       {}", safe(detail)));
    output::line(format_args!("subject      {}, sequence {sequence}", safe(subject)));
    let record_id = record_id.as_deref().map_or_else(|| "(could not be read)".to_owned(), safe);
    output::line(format_args!("record id    {record_id}"));
    output::line(format_args!("rejected at  {rejected_at}, leaf {leaf_index}"));
    let published = if *published { "published" } else { "waiting to be published" };
    output::line(format_args!("dead letter  {} ({published})", letter.dlq_subject));
    output::line(format_args!("state        {state}"));
    for (origin, reason) in origins {
        output::line(format_args!("came from    {origin} ({reason})"));
    }
    for resolved in &letter.resolutions {
        print_resolved(resolved);
    }
    for header in headers(letter) {
        output::line(format_args!("header       {}", safe(&header)));
    }
    print_bytes(&letter.payload);
}

fn print_resolved(resolved: &Resolved) {
    let Resolved { action, by, why, decided_at, replacement, event_id, sequence, outcome } = resolved;
    output::line(format_args!("{:<12} {decided_at} by {}, recorded as {event_id}", action.to_lowercase(), safe(by)));
    if let Some(why) = why {
        output::line(format_args!("  because    {}", safe(why)));
    }
    match (sequence, outcome) {
        (Some(sequence), Some(outcome)) => {
            let became = match outcome {
                DecisionOutcome::Awaited => "the ledger does not have it yet".to_owned(),
                DecisionOutcome::Accepted => "accepted".to_owned(),
                DecisionOutcome::Rejected(reference) => format!("rejected again as {reference}"),
            };
            output::line(format_args!("  became     sequence {sequence}: {became}"));
        }
        _ if action == "REQUEUED" => output::line("  unfinished: `dlq requeue` finishes it"),
        _ => {}
    }
    if let Some(replacement) = replacement {
        output::line(format_args!("  with other bytes, SHA-256 {}:", hex(&sha256(replacement))));
        print_bytes(replacement);
    }
}

fn print_bytes(bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => output::line(format_args!("\n{}", output::safe_lines(text))),
        Err(_) => output::line(format_args!("\n{}", bytes.escape_ascii())),
    }
}
