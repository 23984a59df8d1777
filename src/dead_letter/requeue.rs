//! Publishes a rejected message to the stream again, exactly once, under an id that nobody else can have. The
//! publication is conditional: no message may have arrived on the subject since the last check. So of two publications
//! one is refused, however late it arrives.
//!
//! The server's deduplication window is too short for that. It is a second safeguard, for a stream that is created
//! again in the meantime.

use crate::dead_letter::original_headers;
use crate::nats::api::{Api, ApiError, sequence_of};
use crate::nats::publish::{Outgoing, PubAck, PublishRefusal, Unanswered, publish_message};
use crate::record::dead_letter::DeadLetter;
use crate::record::message::{FIRST_PLACE, Incarnation, Message, Position};
use async_nats::HeaderMap;
use std::fmt;

/// A dead letter on its way back.
#[derive(Clone, Copy, Debug)]
pub struct Return<'a> {
    pub letter: &'a DeadLetter,
    /// The bytes to publish: its own, or others.
    pub payload: &'a [u8],
    /// The id of the new message.
    pub message_id: &'a str,
    /// The stream's last message before the id was drawn.
    pub from: &'a Position,
}

/// What the stream says of itself.
#[derive(Clone, Debug)]
pub struct Stand {
    pub last: Position,
    /// The largest message that it takes, headers included; nothing where any size will do.
    bytes_max: Option<usize>,
}

/// Whether the message is in the stream.
#[derive(Clone, Debug)]
pub enum SearchResult {
    Found(Position),
    /// The stream does not have it.
    Absent(Absent),
}

/// The stream does not have the message, as far as the last one on its subject.
#[derive(Clone, Debug)]
pub struct Absent {
    incarnation: Incarnation,
    last_on_subject: i64,
}

/// The message did not come into the stream, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreturned {
    /// Nobody answers: it may be in the stream.
    Away(String),
    Refused(String),
}

impl fmt::Display for Unreturned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Unreturned::Away(what) | Unreturned::Refused(what)) = self;
        f.write_str(what)
    }
}

impl From<ApiError> for Unreturned {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Silent(what) => Unreturned::Away(what),
            error => Unreturned::Refused(error.to_string()),
        }
    }
}

/// Another message came first. The second code is of newer servers, which do not say which sequence it has.
pub(crate) const WRONG_LAST_SEQUENCE: [u64; 2] = [10_071, 10_164];

/// What one try led to.
enum RequeueAttempt {
    Stored(i64),
    /// The stream may have the message, or another on its subject.
    LookAgain(String),
    /// The same, and nobody said anything.
    Silence(String),
}

/// How often we look and publish before we leave it to the next run: a busy publisher may come first time and again.
const TRIES_MAX: usize = 100;
/// A server that says nothing about a publication, and answers questions, will go on so.
const SILENCES_MAX: usize = 2;

/// The stream that takes records.
#[derive(Clone, Debug)]
pub struct RecordStream {
    api: Api,
    name: String,
}

impl RecordStream {
    /// The stream of this name.
    pub fn new(api: Api, name: &str) -> Self {
        Self { api, name: name.to_owned() }
    }

    /// Asks the stream about itself.
    pub async fn stand(&self) -> Result<Stand, ApiError> {
        let info = self.api.stream_info(&self.name).await?;
        let created_ns = i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let incarnation = Incarnation { stream: self.name.as_str().into(), created_ns };
        let sequence = i64::try_from(info.state.last_sequence).unwrap_or(i64::MAX);
        let of_stream = usize::try_from(info.config.max_message_size).ok().filter(|max| *max > 0);
        // The server itself takes no more than this, whatever a stream would.
        let bytes_max =
            of_stream.into_iter().chain([self.api.client().server_info().max_payload]).filter(|max| *max > 0).min();
        Ok(Stand { last: Position { incarnation, sequence }, bytes_max })
    }

    /// Whether the stream still has the message of a sequence.
    pub async fn holds(&self, incarnation: &Incarnation, sequence: i64) -> Result<bool, ApiError> {
        Ok(self.api.message_at(incarnation, sequence).await?.is_some())
    }

    /// Looks for the message in the stream as it is now.
    pub async fn look(&self, returned: &Return<'_>) -> Result<SearchResult, ApiError> {
        let incarnation = self.api.incarnation(&self.name).await?;
        let began = &returned.from;
        // A stream that was made anew counts from the beginning.
        let after = if incarnation == began.incarnation { began.sequence } else { 0 };
        self.look_after(returned, incarnation, after).await
    }

    /// Looks at all messages on the subject after one.
    async fn look_after(
        &self,
        returned: &Return<'_>,
        incarnation: Incarnation,
        after: i64,
    ) -> Result<SearchResult, ApiError> {
        let subject = &returned.letter.subject;
        let last_on_subject = match self.api.last_message(&self.name, subject).await {
            Ok((sequence, ..)) => i64::try_from(sequence).unwrap_or(i64::MAX),
            Err(ApiError::MessageNotFound) => 0,
            Err(error) => return Err(error),
        };
        let mut next = after + 1;
        while next <= last_on_subject {
            match self.api.next_on_subject(&incarnation, subject, next).await {
                Ok(message) if is(&message, returned) => {
                    return Ok(SearchResult::Found(Position { incarnation, sequence: message.sequence }));
                }
                Ok(message) => next = message.sequence + 1,
                Err(ApiError::MessageNotFound) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(SearchResult::Absent(Absent { incarnation, last_on_subject }))
    }

    /// Publishes what the stream did not have, until it has it once.
    pub async fn publish(&self, returned: &Return<'_>, absent: Absent) -> Result<Position, Unreturned> {
        let Absent { incarnation, mut last_on_subject } = absent;
        let bytes_max = self.stand().await?.bytes_max;
        let (mut why, mut silences) = (String::new(), 0);
        for _ in 0..TRIES_MAX {
            let headers = headers(returned, last_on_subject, &self.name, bytes_max);
            let tried = self.try_once(returned, headers).await?;
            // The answer is of the stream that there was before only if that is still there.
            let now = self.api.incarnation(&self.name).await?;
            if now != incarnation {
                return Err(Unreturned::Refused(format!("the stream was made anew meanwhile: it is now {now}")));
            }
            why = match tried {
                // Somebody else may have answered in the stream's name.
                RequeueAttempt::Stored(sequence) => match self.api.message_at(&incarnation, sequence).await? {
                    Some(message) if is(&message, returned) => return Ok(Position { incarnation, sequence }),
                    _ => format!("sequence {sequence} was confirmed, and holds another message"),
                },
                RequeueAttempt::LookAgain(why) => why,
                RequeueAttempt::Silence(why) => {
                    silences += 1;
                    why
                }
            };
            match self.look_after(returned, incarnation.clone(), last_on_subject).await? {
                SearchResult::Found(position) => return Ok(position),
                SearchResult::Absent(_) if silences == SILENCES_MAX => break,
                SearchResult::Absent(absent) => last_on_subject = absent.last_on_subject,
            }
        }
        Err(Unreturned::Away(why))
    }

    async fn try_once(&self, returned: &Return<'_>, headers: HeaderMap) -> Result<RequeueAttempt, Unreturned> {
        let subject = &returned.letter.subject;
        let message =
            Outgoing { subject: subject.clone(), headers: Some(headers), payload: returned.payload.to_vec().into() };
        match publish_message(&self.api, &self.name, message).await {
            Ok(Ok(PubAck { duplicate: true, .. })) => {
                Ok(RequeueAttempt::LookAgain(format!("the id {} is taken", returned.message_id)))
            }
            Ok(Ok(PubAck { sequence, .. })) => Ok(RequeueAttempt::Stored(sequence_of(sequence))),
            Ok(Err(PublishRefusal::NoStream)) => {
                Err(Unreturned::Refused(format!("no stream takes {subject}: run `ledgerd setup`")))
            }
            Ok(Err(PublishRefusal::Error { code, .. })) if WRONG_LAST_SEQUENCE.contains(&code) => {
                Ok(RequeueAttempt::LookAgain(format!("others keep publishing on {subject}")))
            }
            Ok(Err(refusal)) => Err(Unreturned::Refused(format!("the server refuses the message: {refusal}"))),
            Err(Unanswered::Silence) => {
                let what = format!("no confirmation: the server is away, or its user may not publish on {subject}");
                Ok(RequeueAttempt::Silence(what))
            }
            Err(Unanswered::Unsent(why)) => Err(Unreturned::Away(format!("publishing on {subject}: {why}"))),
        }
    }
}

impl Stand {
    /// Whether the stream takes a message of this size.
    ///
    /// # Errors
    /// A sentence that names both sizes.
    pub fn admit(&self, letter: &DeadLetter, payload: &[u8]) -> Result<(), String> {
        let returned = Return { letter, payload, message_id: MESSAGE_ID_EXAMPLE, from: &self.last };
        let stream = &self.last.incarnation.stream;
        let bytes = length(&headers(&returned, i64::MAX, stream, self.bytes_max)) + payload.len();
        match self.bytes_max {
            Some(max) if bytes > max => {
                Err(format!("with the headers of a requeue it has {bytes} bytes, and {stream} takes {max}"))
            }
            _ => Ok(()),
        }
    }
}

/// As long as any.
const MESSAGE_ID_EXAMPLE: &str = "requeue-00000000-0000-0000-0000-000000000000";

/// It has our id and our bytes. A publisher can see the id once the message is in the stream, and not before.
fn is(message: &Message, returned: &Return<'_>) -> bool {
    let line = format!("\r\nNats-Msg-Id: {}\r\n", returned.message_id);
    let headers = message.headers.as_bytes().unwrap_or_default();
    headers.windows(line.len()).any(|bytes| bytes == line.as_bytes()) && message.payload == returned.payload
}

/// Ours, and the publisher's own as far as there is room.
fn headers(returned: &Return<'_>, last_on_subject: i64, stream: &str, bytes_max: Option<usize>) -> HeaderMap {
    let DeadLetter { epoch, sequence, place, headers: original, .. } = returned.letter;
    let mut headers = HeaderMap::new();
    headers.insert("Ledger-Requeued-From", format!("{epoch}-{sequence}"));
    headers.insert(FIRST_PLACE, place.as_str());
    headers.insert("Nats-Msg-Id", returned.message_id);
    headers.insert("Nats-Expected-Stream", stream);
    headers.insert("Nats-Expected-Last-Subject-Sequence", last_on_subject.to_string());
    let mut whole = headers.clone();
    original_headers::add(original, &mut whole);
    if bytes_max.is_none_or(|max| length(&whole) + returned.payload.len() <= max) {
        return whole;
    }
    original_headers::omit(original, &mut headers);
    headers
}

/// Bytes of a header block, from `NATS/1.0` to the empty line.
fn length(headers: &HeaderMap) -> usize {
    let line = |name: &str, value: &str| name.len() + value.len() + ": \r\n".len();
    let lines =
        headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())));
    "NATS/1.0\r\n\r\n".len() + lines.map(|(name, value)| line(name, value)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::message::Headers;

    fn letter(original: &str) -> DeadLetter {
        DeadLetter {
            leaf_index: 0,
            dlq_subject: "dlq.ledger.EXEC.A.1-7".into(),
            reason: "conflict".into(),
            detail: "x".into(),
            stream: "LEDGER".into(),
            epoch: "1".into(),
            sequence: 7,
            place: "1-7-0".into(),
            subject: "ledger.EXEC.A".into(),
            server_time_ns: 0,
            rejected_at_ns: 0,
            headers: Headers::from_pairs([("Nats-Msg-Id", "requeue-of-old"), ("Trace", original)]),
            payload: b"{}".to_vec(),
        }
    }

    fn stand(bytes_max: usize) -> Stand {
        let incarnation = Incarnation { stream: "LEDGER".into(), created_ns: 1 };
        Stand { last: Position { incarnation, sequence: 9 }, bytes_max: Some(bytes_max) }
    }

    #[test]
    fn a_message_is_known_by_its_own_id_and_bytes_and_not_by_that_of_an_earlier_requeue() {
        let (letter, stand) = (letter("a"), stand(1000));
        let returned = Return { letter: &letter, payload: b"{}", message_id: "requeue-1", from: &stand.last };
        let message = |id: &str, payload: &'static [u8]| {
            let again = Return { message_id: id, ..returned };
            let map = headers(&again, 4, "LEDGER", None);
            let pairs: Vec<(&str, &str)> = map
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |it| (name.as_ref(), it.as_str())))
                .collect();
            assert!(pairs.contains(&("Ledger-Original-Nats-Msg-Id", "requeue-of-old")), "{pairs:?}");
            assert!(pairs.contains(&("Ledger-Requeued-From", "1-7")), "{pairs:?}");
            Message {
                incarnation: stand.last.incarnation.clone(),
                sequence: 10,
                subject: letter.subject.clone(),
                server_time_ns: 0,
                headers: Headers::from_pairs(pairs),
                payload: payload.into(),
            }
        };
        assert!(is(&message("requeue-1", b"{}"), &returned));
        assert!(!is(&message("requeue-2", b"{}"), &returned));
        assert!(!is(&message("requeue-1", b"{ }"), &returned));
        assert!(!is(&message("requeue-2", b"{}"), &Return { message_id: "requeue-of-old", ..returned }));
    }

    #[test]
    fn the_publishers_headers_give_way_before_the_message_does() {
        let letter = letter(&"x".repeat(5000));
        let roomy = stand(6000);
        let returned = Return { letter: &letter, payload: b"{}", message_id: "requeue-1", from: &roomy.last };
        assert!(headers(&returned, 4, "LEDGER", Some(6000)).get("Trace").is_some());
        assert!(headers(&returned, 4, "LEDGER", Some(1000)).get("Trace").is_none());
        assert!(roomy.admit(&letter, b"{}").is_ok() && stand(1000).admit(&letter, b"{}").is_ok());
        let why = stand(1000).admit(&letter, &[b' '; 900]).expect_err("it is too long");
        assert!(why.ends_with("and LEDGER takes 1000"), "{why}");
    }
}
