//! How does a reject reach its subject, once? The subject is its own, and the server is told to refuse a second message on it.

use super::api::Api;
use super::client::with_sources;
use super::original_headers;
use crate::domain::dead_letter::DeadLetter;
use crate::domain::message::utc_text;
use crate::outbox::{Sink, Undelivered};
use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
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

impl Sink<DeadLetter> for DeadLetterStream {
    async fn deliver(&self, letter: &DeadLetter) -> Result<(), Undelivered> {
        let mut after = 0;
        for _ in 0..FOREIGN_MAX {
            match self.publish(letter, after).await {
                Ok(()) => return Ok(()),
                Err(NotPublished::SubjectTaken) => match self.taken_by(letter).await? {
                    Taken::Ours => return Ok(()),
                    Taken::Foreign(sequence) => after = sequence,
                },
                Err(NotPublished::Undelivered(why)) => return Err(why),
            }
        }
        Err(Undelivered::Refused(format!("others keep publishing on {}", letter.dlq_subject)))
    }
}

/// How often somebody else may publish on a reject's subject between our look and our publication.
const FOREIGN_MAX: usize = 8;

enum NotPublished {
    /// There is a later message on the subject than we expected.
    SubjectTaken,
    Undelivered(Undelivered),
}

enum Taken {
    /// An earlier publication's confirmation was lost, or its mark.
    Ours,
    /// A publisher can make the server's answer land on any subject, this one too.
    Foreign(u64),
}

impl DeadLetterStream {
    /// Publishes, if `after` is the last sequence on the subject.
    async fn publish(&self, letter: &DeadLetter, after: u64) -> Result<(), NotPublished> {
        let message = PublishMessage::build()
            .payload(letter.payload.clone().into())
            .headers(headers(letter))
            .expected_stream(&self.name)
            .expected_last_subject_sequence(after);
        let publishing = async {
            self.api.context().send_publish(letter.dlq_subject.clone(), message).await?.await?;
            Ok::<_, PublishError>(())
        };
        let error = match timeout(PUBLISH_TIMEOUT, publishing).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => {
                let why = "no confirmation from the server".to_owned();
                return Err(NotPublished::Undelivered(Undelivered::Away(why)));
            }
        };
        let subject = &letter.dlq_subject;
        Err(match error.kind() {
            PublishErrorKind::WrongLastSequence => NotPublished::SubjectTaken,
            PublishErrorKind::StreamNotFound => {
                NotPublished::Undelivered(Undelivered::Away(format!("no stream takes {subject}: run `ledgerd setup`")))
            }
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                NotPublished::Undelivered(Undelivered::Away(with_sources(&error)))
            }
            _ => NotPublished::Undelivered(Undelivered::Refused(format!(
                "{subject} was not taken: {}",
                with_sources(&error)
            ))),
        })
    }

    async fn taken_by(&self, letter: &DeadLetter) -> Result<Taken, Undelivered> {
        let last = self.api.last_message(&self.name, &letter.dlq_subject).await;
        let (sequence, block, payload) = last.map_err(|error| Undelivered::Away(error.to_string()))?;
        let says = |name: &str, value: &str| {
            let line = format!("\r\n{name}: {value}\r\n");
            block.windows(line.len()).any(|bytes| bytes == line.as_bytes())
        };
        let is_ours = payload == letter.payload
            && says("Ledger-Reason", &letter.reason)
            && says("Ledger-Sequence", &letter.sequence.to_string());
        Ok(if is_ours { Taken::Ours } else { Taken::Foreign(sequence) })
    }
}

/// The reason first, then the publisher's headers unchanged, as far as they take no effect.
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
    original_headers::add(&letter.headers, &mut headers);
    headers
}

fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Headers;
    use async_nats::HeaderValue;

    fn letter(headers: Headers) -> DeadLetter {
        DeadLetter {
            leaf_index: 0,
            dlq_subject: "dlq.ledger.EXEC.A.1-1".into(),
            reason: "conflict".into(),
            detail: "x".into(),
            stream: "LEDGER".into(),
            epoch: "1".into(),
            sequence: 1,
            place: "1-1-0".into(),
            subject: "ledger.EXEC.A".into(),
            server_time_ns: 0,
            rejected_at_ns: 0,
            headers,
            payload: Vec::new(),
        }
    }

    #[test]
    fn a_publisher_cannot_choose_a_header_that_takes_effect() {
        let pairs =
            [("Ledger-Reason", "forged"), ("Nats-Msg-Id", "7"), ("nats-ttl", "1"), ("Trace", "a"), ("Trace", "b")];
        let forged = Headers::from_pairs(pairs);
        let headers = headers(&letter(forged));
        assert_eq!(headers.get("Ledger-Reason").map(HeaderValue::as_str), Some("conflict"));
        assert_eq!(headers.get("Ledger-Original-Ledger-Reason").map(HeaderValue::as_str), Some("forged"));
        assert_eq!(headers.get("Ledger-Original-Nats-Msg-Id").map(HeaderValue::as_str), Some("7"));
        assert_eq!(headers.get_all("Trace").map(HeaderValue::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert!(headers.get("Nats-Msg-Id").is_none() && headers.get("nats-ttl").is_none());
    }
}
