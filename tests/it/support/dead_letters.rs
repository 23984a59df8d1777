//! Checks that each reject is one dead letter and one message, with its reason and the publisher's bytes.

use super::events::Expectation;
use super::ledger::{Entry, Faults, Pairs};
use super::published::{Headers, Publication};
use super::world::World;
use super::{SOON, eventually};
use async_nats::jetstream::message::StreamMessage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use std::collections::HashMap;

/// The stream of the dead letters.
pub(crate) const DLQ_STREAM: &str = "LEDGER_DLQ";

/// The longest sentence that a header carries.
const DETAIL_BYTES_MAX: usize = 500;

#[derive(Debug, FromRow)]
struct DeadLetter {
    leaf_index: i64,
    reason: String,
    detail: String,
    dlq_subject: String,
    is_published: bool,
}

/// Every message of the dead-letter stream, in its order.
pub(crate) async fn dead_letter_messages(world: &World) -> Vec<StreamMessage> {
    let stream = world.jetstream().await.get_stream(DLQ_STREAM).await.expect("setup made it");
    let state = &stream.cached_info().state;
    let mut messages = Vec::new();
    // Nobody deletes from it, so it has no gap; an empty stream says that it begins at 0.
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        // Directly, because the client's reading by way of the leader keeps only the last of equal header names; a replica
        // may be a moment behind.
        let read = async || stream.direct_get(sequence).await.map_err(|error| error.to_string());
        messages.push(eventually("the dead letter can be read", SOON, read).await);
    }
    messages
}

/// Checks the dead letters in the database against the entries, and the stream against the dead letters.
pub(super) async fn check_dead_letters(
    world: &World,
    connection: &mut PgConnection,
    entries: &[Entry],
    pairs: &Pairs<'_>,
    faults: &mut Faults,
) {
    let letters: Vec<DeadLetter> = sqlx::query_as(
        "select leaf_index, reason, detail, dlq_subject, published_at is not null as is_published from ledger.dead_letter",
    )
    .fetch_all(connection)
    .await
    .expect("the tables are there");
    let published = letters.iter().filter(|letter| letter.is_published).count();
    let letters: HashMap<i64, DeadLetter> = letters.into_iter().map(|letter| (letter.leaf_index, letter)).collect();
    for entry in entries {
        let (rejected, has_letter) = (entry.disposition == "rejected", letters.contains_key(&entry.leaf_index));
        faults.unless(rejected == has_letter, || {
            format!("{}: {}, and has a dead letter: {has_letter}", entry.name(), entry.disposition)
        });
    }

    let mut by_subject: HashMap<String, Vec<StreamMessage>> = HashMap::new();
    let messages = dead_letter_messages(world).await;
    // One that is published and not yet marked so is no fault: the mark may have been lost with the process.
    faults.unless(messages.len() >= published && messages.len() <= letters.len(), || {
        format!(
            "{DLQ_STREAM} has {} messages for {} dead letters, {published} published",
            messages.len(),
            letters.len()
        )
    });
    for message in messages {
        by_subject.entry(message.subject.to_string()).or_default().push(message);
    }
    for (publication, entry) in pairs {
        let Some(letter) = letters.get(&entry.leaf_index) else { continue };
        check_letter(publication, entry, letter, faults);
        match by_subject.get(&letter.dlq_subject).map(Vec::as_slice) {
            Some([message]) => check_message(publication, entry, letter, message, faults),
            Some(several) => faults.unless(false, || format!("{}: {} messages", letter.dlq_subject, several.len())),
            None => faults.unless(!letter.is_published, || format!("{}: no message", letter.dlq_subject)),
        }
    }
}

fn check_letter(publication: &Publication, entry: &Entry, letter: &DeadLetter, faults: &mut Faults) {
    let name = entry.name();
    if let Expectation::Bad(reason) = publication.outgoing.expectation {
        faults.unless(letter.reason == reason, || {
            format!("{name}: rejected for {} ({}) instead of {reason}", letter.reason, letter.detail)
        });
    }
    let detail = &letter.detail;
    let readable = !detail.is_empty() && detail.len() <= DETAIL_BYTES_MAX && !detail.contains(char::is_control);
    faults.unless(readable, || format!("{name}: the detail is no short sentence: {detail:?}"));
    let reference = format!(".{}-{}", entry.stream_created_ns, entry.sequence);
    let well_named = letter.dlq_subject.starts_with("dlq.ledger.") && letter.dlq_subject.ends_with(&reference);
    faults.unless(well_named, || format!("{name}: its dead letter goes to {}", letter.dlq_subject));
}

fn check_message(
    publication: &Publication,
    entry: &Entry,
    letter: &DeadLetter,
    message: &StreamMessage,
    faults: &mut Faults,
) {
    let name = &letter.dlq_subject;
    let header = |header: &str| message.headers.get(header).map(async_nats::HeaderValue::as_str);
    let sequence = entry.sequence.to_string();
    let expected = [
        ("Ledger-Reason", Some(letter.reason.as_str())),
        ("Ledger-Detail", Some(letter.detail.as_str())),
        ("Ledger-Stream", Some(entry.stream.as_str())),
        ("Ledger-Sequence", Some(sequence.as_str())),
        ("Ledger-Subject", Some(entry.subject.as_str())),
    ];
    for (key, value) in expected {
        faults.unless(header(key) == value, || format!("{name}: {key} is {:?} instead of {value:?}", header(key)));
    }
    for key in ["Ledger-Epoch", "Ledger-Received-At", "Ledger-Rejected-At"] {
        faults.unless(header(key).is_some_and(|value| !value.is_empty()), || format!("{name}: {key} is missing"));
    }
    faults.unless(message.payload == publication.outgoing.payload, || format!("{name}: the bytes were changed"));
    check_publishers_headers(&publication.headers, name, message, faults);
}

/// The publisher's headers, unchanged; those on which the server or the daemon would act travel under another name.
fn check_publishers_headers(headers: &Headers, name: &str, message: &StreamMessage, faults: &mut Faults) {
    let renamed = |(key, value): &(String, String)| {
        let lower = key.to_ascii_lowercase();
        let acts = lower.starts_with("nats-") || lower.starts_with("ledger-");
        (if acts { format!("Ledger-Original-{key}") } else { key.clone() }, value.clone())
    };
    let pairs = match headers {
        Headers::None => Vec::new(),
        Headers::Raw(block) => vec![("Ledger-Original-Headers-Base64".to_owned(), BASE64.encode(block))],
        Headers::Pairs(pairs) => pairs.iter().map(renamed).collect(),
    };
    for (key, value) in pairs {
        let kept = message.headers.get_all(key.as_str()).any(|it| it.as_str() == value);
        faults.unless(kept, || format!("{name}: the publisher's header {key} is not {value:?} any more"));
    }
}
