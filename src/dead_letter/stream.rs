//! Publishes each dead letter on its subject exactly once. Each has a subject of its own, and the server is told to
//! refuse a second message on it.

use crate::dead_letter::original_headers;
use crate::dead_letter::requeue::WRONG_LAST_SEQUENCE;
use crate::nats::api::Api;
use crate::nats::publish::{
    Outgoing, PublishAnswer, PublishRefusal, Unanswered, publish_all_and_read, publish_and_read,
};
use crate::outbox::{Sink, Undelivered};
use crate::record::dead_letter::DeadLetter;
use crate::record::message::utc_text;
use async_nats::HeaderMap;

#[derive(Clone, Debug)]
pub struct DeadLetterStream {
    api: Api,
    name: String,
}

impl DeadLetterStream {
    /// The stream of this name.
    pub fn new(api: Api, name: &str) -> Self {
        Self { api, name: name.to_owned() }
    }
}

impl Sink<DeadLetter> for DeadLetterStream {
    async fn deliver(&self, letters: &[DeadLetter]) -> Vec<Result<(), Undelivered>> {
        let messages: Vec<Outgoing> = letters.iter().map(|letter| self.message(letter, 0)).collect();
        let answers = publish_all_and_read(&self.api, &self.name, &messages).await;
        let mut delivered = Vec::with_capacity(letters.len());
        for (letter, answer) in letters.iter().zip(answers) {
            delivered.push(match arrived(letter, answer) {
                Err(LetterError::SubjectTaken) => self.deliver_after_another(letter).await,
                Err(LetterError::Undelivered(why)) => Err(why),
                Ok(()) => Ok(()),
            });
        }
        delivered
    }
}

/// How often somebody else may publish on a reject's subject between our look and our publication.
const FOREIGN_MAX: usize = 8;

enum LetterError {
    /// There is a later message on the subject than we expected.
    SubjectTaken,
    Undelivered(Undelivered),
}

fn arrived(letter: &DeadLetter, answer: Result<PublishAnswer, Unanswered>) -> Result<(), LetterError> {
    let subject = &letter.dlq_subject;
    let undelivered = match answer {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(PublishRefusal::Error { code, .. })) if WRONG_LAST_SEQUENCE.contains(&code) => {
            return Err(LetterError::SubjectTaken);
        }
        Ok(Err(PublishRefusal::NoStream)) => {
            Undelivered::Away(format!("no stream takes {subject}: run `ledgerd setup`"))
        }
        Ok(Err(refusal)) => Undelivered::Refused(format!("{subject} was not taken: {refusal}")),
        Err(Unanswered::Unsent(why)) => Undelivered::Refused(format!("{subject} was not sent: {why}")),
        Err(Unanswered::Silence) => Undelivered::Away("no confirmation from the server".to_owned()),
    };
    Err(LetterError::Undelivered(undelivered))
}

enum PublishedLetter {
    /// An earlier publication's confirmation was lost, or its mark.
    Ours,
    /// A publisher can make the server's answer land on any subject, this one too.
    Foreign(u64),
}

impl DeadLetterStream {
    /// There is a message on its subject: it is the letter, or somebody else's.
    async fn deliver_after_another(&self, letter: &DeadLetter) -> Result<(), Undelivered> {
        for _ in 0..FOREIGN_MAX {
            let after = match self.taken_by(letter).await? {
                PublishedLetter::Ours => return Ok(()),
                PublishedLetter::Foreign(sequence) => sequence,
            };
            match arrived(letter, publish_and_read(&self.api, &self.name, self.message(letter, after)).await) {
                Ok(()) => return Ok(()),
                Err(LetterError::SubjectTaken) => {}
                Err(LetterError::Undelivered(why)) => return Err(why),
            }
        }
        Err(Undelivered::Refused(format!("others keep publishing on {}", letter.dlq_subject)))
    }

    /// The letter, to be taken if `after` is the last sequence on its subject.
    fn message(&self, letter: &DeadLetter, after: u64) -> Outgoing {
        let mut headers = headers(letter);
        headers.insert("Nats-Expected-Stream", self.name.as_str());
        headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string());
        Outgoing { subject: letter.dlq_subject.clone(), headers: Some(headers), payload: letter.payload.clone().into() }
    }

    async fn taken_by(&self, letter: &DeadLetter) -> Result<PublishedLetter, Undelivered> {
        let last = self.api.last_message(&self.name, &letter.dlq_subject).await;
        let (sequence, block, payload) = last.map_err(|error| Undelivered::Away(error.to_string()))?;
        let says = |name: &str, value: &str| {
            let line = format!("\r\n{name}: {value}\r\n");
            block.windows(line.len()).any(|bytes| bytes == line.as_bytes())
        };
        let is_ours = payload == letter.payload
            && says("Ledger-Reason", &letter.reason)
            && says("Ledger-Sequence", &letter.sequence.to_string());
        Ok(if is_ours { PublishedLetter::Ours } else { PublishedLetter::Foreign(sequence) })
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
    use crate::record::message::Headers;
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
