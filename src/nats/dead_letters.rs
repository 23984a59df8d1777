//! How does a reject reach its subject, once? The subject is its own, and the server is told to refuse a second message on it.

use super::api::Api;
use super::client::with_sources;
use crate::domain::dead_letter::DeadLetter;
use crate::domain::message::utc_text;
use crate::outbox::Delivery;
use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::time::Duration;
use tokio::time::timeout;

/// The dead-letter stream.
#[derive(Clone, Debug)]
pub struct DeadLetterStream {
    api: Api,
    name: String,
}

/// The server's confirmation comes within this time, or the publication is tried again.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(7);

impl DeadLetterStream {
    /// The stream of this name.
    pub fn new(api: Api, name: &str) -> Self {
        Self { api, name: name.to_owned() }
    }
}

impl Delivery for DeadLetterStream {
    async fn deliver(&self, letter: &DeadLetter) -> Result<(), String> {
        let message = PublishMessage::build()
            .payload(letter.payload.clone().into())
            .headers(headers(letter))
            .expected_stream(&self.name)
            .expected_last_subject_sequence(0);
        let publishing = async {
            self.api.context().send_publish(letter.dlq_subject.clone(), message).await?.await?;
            Ok::<_, PublishError>(())
        };
        match timeout(PUBLISH_TIMEOUT, publishing).await {
            Ok(Ok(())) => Ok(()),
            // It is there: an earlier publication's confirmation was lost, or its mark.
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound => {
                Err(format!("no stream takes {}: run `ledgerd setup`", letter.dlq_subject))
            }
            Ok(Err(error)) => Err(format!("{} was not taken: {}", letter.dlq_subject, with_sources(&error))),
            Err(_) => Err("no confirmation from the server".to_owned()),
        }
    }
}

/// The reason first, then the publisher's headers unchanged. Those that the server or this daemon would act on travel under
/// another name: a publisher chooses nothing that takes effect.
fn headers(letter: &DeadLetter) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Ledger-Reason", letter.reason.as_str());
    headers.insert("Ledger-Detail", letter.detail.as_str());
    headers.insert("Ledger-Stream", letter.stream.as_str());
    headers.insert("Ledger-Epoch", letter.epoch.as_str());
    headers.insert("Ledger-Sequence", letter.sequence.to_string());
    headers.insert("Ledger-Subject", printable(&letter.subject));
    headers.insert("Ledger-Received-At", utc_text(letter.server_time_ns));
    headers.insert("Ledger-Rejected-At", utc_text(letter.rejected_at_ns));
    match letter.headers.pairs() {
        None => {
            let block = letter.headers.as_bytes().unwrap_or_default();
            headers.insert("Ledger-Original-Headers-Base64", BASE64.encode(block));
        }
        Some(pairs) => {
            for (name, value) in pairs {
                let lower = name.to_ascii_lowercase();
                if lower.starts_with("nats-") || lower.starts_with("ledger-") {
                    headers.append(format!("Ledger-Original-{name}"), value);
                } else {
                    headers.append(name, value);
                }
            }
        }
    }
    headers
}

fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Headers;

    fn letter(headers: Headers) -> DeadLetter {
        DeadLetter {
            leaf_index: 0,
            dlq_subject: "dlq.ledger.EXEC.A.1-1".into(),
            reason: "conflict".into(),
            detail: "x".into(),
            stream: "LEDGER".into(),
            epoch: "1".into(),
            sequence: 1,
            subject: "ledger.EXEC.A".into(),
            server_time_ns: 0,
            rejected_at_ns: 0,
            headers,
            payload: Vec::new(),
        }
    }

    #[test]
    fn a_publisher_cannot_choose_a_header_that_takes_effect() {
        let forged =
            Headers::from_pairs([("Ledger-Reason", "forged"), ("Nats-Msg-Id", "7"), ("nats-ttl", "1"), ("Trace", "a")]);
        let headers = headers(&letter(forged));
        assert_eq!(headers.get("Ledger-Reason").map(|value| value.as_str()), Some("conflict"));
        assert_eq!(headers.get("Ledger-Original-Ledger-Reason").map(|value| value.as_str()), Some("forged"));
        assert_eq!(headers.get("Ledger-Original-Nats-Msg-Id").map(|value| value.as_str()), Some("7"));
        assert_eq!(headers.get("Trace").map(|value| value.as_str()), Some("a"));
        assert!(headers.get("Nats-Msg-Id").is_none() && headers.get("nats-ttl").is_none());
    }

    #[test]
    fn headers_that_nobody_can_parse_travel_as_base64() {
        let headers = headers(&letter(Headers::from_block(b"NATS/1.0\r\nA: \xff\r\n\r\n")));
        assert!(headers.get("Ledger-Original-Headers-Base64").is_some());
    }
}
