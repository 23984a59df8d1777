//! Publishes to a stream through an inbox, and distinguishes the stream's answer from other answers.
//!
//! Every subscriber of the subject sees the inbox too, and some clients answer every message that has one. The client
//! library takes the first answer for the stream's. So each publication here has an inbox that stays open until the
//! stream itself answers.

use crate::nats::api::{Api, ApiError};
use crate::nats::client::{REQUEST_TIMEOUT, with_sources};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) payload: Bytes,
}

/// Where the server put a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubAck {
    pub stream: String,
    pub sequence: u64,
    /// The server knew the message id already, and stored nothing.
    pub duplicate: bool,
}

/// The stream did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublishRefusal {
    /// No stream listens on the subject.
    NoStream,
    Error {
        code: u64,
        description: String,
    },
}

impl fmt::Display for PublishRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishRefusal::NoStream => f.write_str("no stream takes it: run `ledgerd setup`"),
            PublishRefusal::Error { code, description } => write!(f, "{description} ({code})"),
        }
    }
}

pub(crate) type PublishAnswer = Result<PubAck, PublishRefusal>;

/// The stream did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The client did not send the message.
    Unsent(String),
    /// Nothing came in time: the message may be in the stream.
    Silence,
}

/// The server did not confirm a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    Refused(String),
    /// It said nothing: the message may be in the stream.
    Unknown,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Refused(why) => write!(f, "not published: {why}"),
            PublishError::Unknown => f.write_str(
                "no confirmation from the server: the event may be in the stream; publish it again under the same event_id",
            ),
        }
    }
}

/// An inbox for the answers to some publications, which their numbers tell apart.
pub(crate) struct Inbox<'a> {
    api: &'a Api,
    stream: &'a str,
    subject: String,
    answers: Subscriber,
}

impl<'a> Inbox<'a> {
    /// Listens for the answers of this stream.
    pub(crate) async fn open(api: &'a Api, stream: &'a str) -> Result<Self, String> {
        let subject = api.client().new_inbox();
        let answers = api.client().subscribe(format!("{subject}.*")).await.map_err(|error| with_sources(&error))?;
        Ok(Self { api, stream, subject, answers })
    }

    /// Publishes a message under a number.
    pub(crate) async fn publish(&self, number: usize, message: Outgoing) -> Result<(), String> {
        let Outgoing { subject, headers, payload } = message;
        let (client, reply) = (self.api.client(), format!("{}.{number}", self.subject));
        let published = match headers {
            Some(headers) => client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
            None => client.publish_with_reply(subject, reply, payload).await,
        };
        published.map_err(|error| with_sources(&error))
    }

    /// The next answer of the stream, and to which number. The answers of others are passed over.
    pub(crate) async fn next(&mut self) -> Option<(usize, PublishAnswer)> {
        loop {
            let message = self.answers.next().await?;
            let number = message.subject.rsplit('.').next().and_then(|last| last.parse().ok());
            if let (Some(number), Some(answer)) = (number, answer_of(&message, self.stream)) {
                return Some((number, answer));
            }
            tracing::debug!("passed over: an answer of {} bytes that is not of {}", message.payload.len(), self.stream);
        }
    }
}

#[derive(Deserialize)]
struct ServerAnswer {
    stream: Option<String>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<SaidError>,
}

#[derive(Deserialize)]
struct SaidError {
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What the stream of this name says; `None` where somebody else says something.
fn answer_of(message: &Message, stream: &str) -> Option<PublishAnswer> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Some(Err(PublishRefusal::NoStream));
    }
    let ServerAnswer { stream: named, seq, duplicate, error } = serde_json::from_slice(&message.payload).ok()?;
    match (named, error) {
        (Some(named), _) if named != stream => None,
        // Some errors name no stream.
        (_, Some(SaidError { code, err_code, description })) => {
            Some(Err(PublishRefusal::Error { code: if err_code == 0 { code } else { err_code }, description }))
        }
        (Some(stream), None) if seq > 0 => Some(Ok(PubAck { stream, sequence: seq, duplicate })),
        _ => None,
    }
}

/// Publishes a message, and waits for the stream's answer.
pub(crate) async fn publish_message(api: &Api, stream: &str, message: Outgoing) -> Result<PublishAnswer, Unanswered> {
    let publishing = async {
        let mut inbox = Inbox::open(api, stream).await.map_err(Unanswered::Unsent)?;
        inbox.publish(0, message).await.map_err(Unanswered::Unsent)?;
        inbox.next().await.map(|(_, answer)| answer).ok_or(Unanswered::Silence)
    };
    timeout(REQUEST_TIMEOUT, publishing).await.unwrap_or(Err(Unanswered::Silence))
}

/// The same for a message whose confirmation must not be forged: the stream is read, and an answer is believed only if the message
/// stands where it says. A refusal needs no proof, for the message is then published again and recognised.
pub(crate) async fn publish_and_read(api: &Api, stream: &str, message: Outgoing) -> Result<PublishAnswer, Unanswered> {
    let messages = [message];
    let publishing = timeout(REQUEST_TIMEOUT, publish_all_and_read(api, stream, &messages)).await;
    publishing.ok().and_then(|mut answers| answers.pop()).unwrap_or(Err(Unanswered::Silence))
}

/// What a server that answers slowly has not confirmed by then counts as unanswered.
const ALL_TIMEOUT: Duration = Duration::from_secs(20);
/// So many messages are read back at a time.
const READ_SIDE_BY_SIDE: usize = 128;

/// The same for many messages side by side, with an answer for each in their order.
pub(crate) async fn publish_all_and_read(
    api: &Api,
    stream: &str,
    messages: &[Outgoing],
) -> Vec<Result<PublishAnswer, Unanswered>> {
    let mut answers: Vec<Option<Result<PublishAnswer, Unanswered>>> = vec![None; messages.len()];
    let end = Instant::now() + ALL_TIMEOUT;
    let opening = timeout(REQUEST_TIMEOUT, Inbox::open(api, stream)).await;
    let mut inbox = match opening.unwrap_or_else(|_| Err("the connection is lost".to_owned())) {
        Ok(inbox) => inbox,
        Err(why) => return vec![Err(Unanswered::Unsent(why)); messages.len()],
    };
    for (number, message) in messages.iter().enumerate() {
        match timeout_at(end, inbox.publish(number, message.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => answers[number] = Some(Err(Unanswered::Unsent(why))),
            // It may still be sent.
            Err(_) => break,
        }
    }
    let mut reading = FuturesUnordered::new();
    while answers.iter().any(Option::is_none) {
        let step = async {
            tokio::select! {
                answered = inbox.next(), if reading.len() < READ_SIDE_BY_SIDE => AnswerStep::Answered(answered),
                Some((number, stored, there)) = reading.next() => AnswerStep::Read(number, stored, there),
            }
        };
        match timeout_at(end.min(Instant::now() + REQUEST_TIMEOUT), step).await {
            Ok(AnswerStep::Answered(Some((number, answer)))) if number < messages.len() => match answer {
                Ok(stored) => reading.push(async move {
                    let there = is_there(api, &stored, &messages[number]).await;
                    (number, stored, there)
                }),
                refusal => answers[number] = Some(Ok(refusal)),
            },
            Ok(AnswerStep::Answered(Some(_))) => {}
            Ok(AnswerStep::Read(number, stored, Ok(true))) => answers[number] = Some(Ok(Ok(stored))),
            Ok(AnswerStep::Read(number, PubAck { duplicate, .. }, Ok(false))) => {
                tracing::warn!("{} was confirmed with a sequence that another message has", messages[number].subject);
                if duplicate {
                    let description = "another message has its message id".to_owned();
                    answers[number] = Some(Ok(Err(PublishRefusal::Error { code: 0, description })));
                }
            }
            Ok(AnswerStep::Read(number, _, Err(_))) => answers[number] = Some(Err(Unanswered::Silence)),
            Ok(AnswerStep::Answered(None)) | Err(_) => break,
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or(Err(Unanswered::Silence))).collect()
}

/// What comes next while messages are published.
enum AnswerStep {
    Answered(Option<(usize, PublishAnswer)>),
    Read(usize, PubAck, Result<bool, ApiError>),
}

/// Whether this very message stands there.
async fn is_there(api: &Api, stored: &PubAck, message: &Outgoing) -> Result<bool, ApiError> {
    let found = api.subject_and_bytes_at(&stored.stream, stored.sequence).await?;
    Ok(found.is_some_and(|(subject, payload)| subject == message.subject && message.payload == payload))
}

/// Publishes a record to the stream of this name, and waits until that has it. It has no message id: those are shared by the whole
/// stream, so whoever guesses one and uses it first makes the message vanish. The ledger knows a record by its own id, and stores
/// it once.
pub async fn publish(api: &Api, stream: &str, subject: &str, payload: Vec<u8>) -> Result<PubAck, PublishError> {
    let message = Outgoing { subject: subject.to_owned(), headers: None, payload: payload.into() };
    confirmed(publish_message(api, stream, message).await, subject)
}

/// The answer as its publisher hears it.
pub(crate) fn confirmed(answer: Result<PublishAnswer, Unanswered>, subject: &str) -> Result<PubAck, PublishError> {
    match answer {
        Ok(Ok(stored)) => Ok(stored),
        Ok(Err(PublishRefusal::NoStream)) => {
            Err(PublishError::Refused(format!("no stream takes {subject}: run `ledgerd setup`")))
        }
        Ok(Err(refusal)) => Err(PublishError::Refused(refusal.to_string())),
        Err(Unanswered::Unsent(why)) => Err(PublishError::Refused(why)),
        Err(Unanswered::Silence) => Err(PublishError::Unknown),
    }
}
