//! What a requeue put into the stream: its messages count as published, and are checked like any.

use super::events::{Expectation, Outgoing};
use super::ledger::STREAM;
use super::published::{Headers, Published};
use super::world::World;
use async_nats::HeaderValue;
use async_nats::jetstream::message::StreamMessage;
use serde_json::Value;

/// The messages of the stream that were requeued from this dead letter; there are no gaps in it.
pub(crate) async fn requeued_from(world: &World, reference: &str) -> Vec<StreamMessage> {
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("setup made it");
    let state = &stream.cached_info().state;
    let mut found = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("nobody deletes from it");
        if message.headers.get("Ledger-Requeued-From").map(HeaderValue::as_str) == Some(reference) {
            found.push(message);
        }
    }
    found
}

/// Notes a requeued message as one that was published.
pub(crate) fn note(published: &mut Published, message: &StreamMessage, expectation: Expectation) {
    let values = |(name, values): (&async_nats::HeaderName, &Vec<HeaderValue>)| {
        let name = name.to_string();
        values.iter().map(|value| (name.clone(), value.as_str().to_owned())).collect::<Vec<_>>()
    };
    let mut pairs: Vec<(String, String)> = message.headers.iter().flat_map(values).collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let outgoing = Outgoing { subject: message.subject.to_string(), payload: message.payload.to_vec(), expectation };
    published.note(message.sequence, Headers::Pairs(pairs), outgoing);
}

/// The reference of the newest dead letter.
pub(crate) async fn newest_letter(world: &World) -> String {
    let list = world.ledgerd_ok(&["dlq", "list", "--limit", "1", "--json"]).await;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list[0]["reference"].as_str().expect("there is one").to_owned()
}
