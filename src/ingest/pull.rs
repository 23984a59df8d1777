//! Pulls messages from a lane's consumer. One request asks for the messages that are ready, and is answered at once or
//! as soon as the first one arrives.
//!
//! The client's own `fetch` recognises the server's answers by a status in their headers, which a publisher can forge.
//! A stored message with the status 404 would end a batch, and never arrive. Here an answer is what arrives on the
//! inbox of the request, and a message is what arrives on a subject of the stream.

use crate::nats::api::ApiError;
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// The bounds of one pull.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    pub messages_max: usize,
    /// Bytes at most, headers and subjects included.
    pub bytes_max: usize,
}

/// How long the server keeps a request that finds nothing.
const WAIT_FOR_FIRST: Duration = Duration::from_secs(3);
/// The server's word that the wait is over may itself be lost.
const WAIT_SLACK: Duration = Duration::from_secs(2);
/// Messages of one answer follow each other at once.
const WAIT_FOR_NEXT: Duration = Duration::from_secs(1);
/// A whole answer, however slowly it comes: what is still on its way then is taken with the next.
const WAIT_FOR_ALL: Duration = Duration::from_secs(10);
/// The server refuses a pull whose next message alone is larger than the bytes asked for; one message may then be this large.
const OVERSIZE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a pull gave nothing and the consumer must be looked at again.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

impl From<ApiError> for Broken {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

#[derive(Debug)]
pub(crate) struct Pulled {
    /// The messages; none where none came, or where it was told to stop.
    pub(crate) messages: Vec<Message>,
    /// Whether the server has said anything.
    pub(crate) is_answered: bool,
}

/// Pulls from one lane's consumer.
pub(crate) struct Puller {
    client: Client,
    next_subject: String,
    inbox: String,
    answers: Subscriber,
    pulls: u64,
    reconnected: watch::Receiver<u64>,
}

impl Puller {
    pub(crate) async fn new(
        client: Client,
        stream: &str,
        consumer: &str,
        reconnected: watch::Receiver<u64>,
    ) -> Result<Self, Broken> {
        let inbox = client.new_inbox();
        let subscribing = client.subscribe(format!("{inbox}.*"));
        let answers = timeout(WAIT_FOR_FIRST, subscribing)
            .await
            .map_err(|_| Broken("the connection is lost".to_owned()))?
            .map_err(|error| Broken(error.to_string()))?;
        let next_subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Self { client, next_subject, inbox, answers, pulls: 0, reconnected })
    }

    /// Waits for one message, then takes all that are ready. What is on its way when it is told to stop is read again by whoever
    /// reads the lane next.
    pub(crate) async fn pull(&mut self, limits: PullLimits, stop: &CancellationToken) -> Result<Pulled, Broken> {
        match self.pull_once(limits, stop).await? {
            PullAnswer::Pulled(pulled) => Ok(pulled),
            PullAnswer::LargerThanAsked => {
                let one = PullLimits { messages_max: 1, bytes_max: OVERSIZE_BYTES_MAX };
                match self.pull_once(one, stop).await? {
                    PullAnswer::Pulled(pulled) => Ok(pulled),
                    PullAnswer::LargerThanAsked => Err(Broken("a message is larger than 64 MiB".to_owned())),
                }
            }
        }
    }

    async fn pull_once(&mut self, limits: PullLimits, stop: &CancellationToken) -> Result<PullAnswer, Broken> {
        self.reconnected.mark_unchanged();
        let reply = self
            .ask(&json!({
                "batch": limits.messages_max,
                "max_bytes": limits.bytes_max,
                "no_wait": true,
                "expires": u64::try_from(WAIT_FOR_FIRST.as_nanos()).expect("three seconds"),
            }))
            .await?;
        let (mut messages, mut is_answered) = (Vec::new(), false);
        let end = Instant::now() + WAIT_FOR_ALL;
        let mut deadline = Instant::now() + WAIT_FOR_FIRST + WAIT_SLACK;
        while messages.len() < limits.messages_max {
            // What is here already needs no alarm clock.
            let next = if let Some(next) = self.answers.next().now_or_never() {
                Ok(next)
            } else {
                tokio::select! {
                    next = timeout_at(deadline, self.answers.next()) => next,
                    // The request died with the old connection.
                    _ = self.reconnected.changed() => break,
                    () = stop.cancelled() => break,
                }
            };
            let message = match next {
                Err(_) => break,
                Ok(None) => return Err(Broken("the client has ended".to_owned())),
                Ok(Some(message)) => message,
            };
            is_answered = true;
            if !message.subject.starts_with(&self.inbox) {
                messages.push(message);
                deadline = end.min(Instant::now() + WAIT_FOR_NEXT);
            } else if message.subject.as_str() == reply {
                match end_of_answer(&message) {
                    End::ThatIsAll => break,
                    _ if !messages.is_empty() => break,
                    End::LargerThanAsked => return Ok(PullAnswer::LargerThanAsked),
                    End::Broken(why) => return Err(Broken(why)),
                }
            }
        }
        Ok(PullAnswer::Pulled(Pulled { messages, is_answered }))
    }

    /// Sends a request. Its answer ends on the subject that is returned.
    async fn ask(&mut self, request: &Value) -> Result<String, Broken> {
        self.pulls += 1;
        let reply = format!("{}.{}", self.inbox, self.pulls);
        let asking =
            self.client.publish_with_reply(self.next_subject.clone(), reply.clone(), request.to_string().into());
        timeout(WAIT_FOR_FIRST, asking)
            .await
            .map_err(|_| Broken("the connection is lost".to_owned()))?
            .map_err(|error| Broken(error.to_string()))?;
        Ok(reply)
    }
}

enum PullAnswer {
    Pulled(Pulled),
    LargerThanAsked,
}

/// Why the server ends its answer.
enum End {
    ThatIsAll,
    LargerThanAsked,
    Broken(String),
}

fn end_of_answer(message: &Message) -> End {
    let said = message.description.as_deref().unwrap_or("the server ended the pull");
    match message.status {
        Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT | StatusCode::IDLE_HEARTBEAT) => End::ThatIsAll,
        Some(StatusCode::NO_RESPONDERS) => End::Broken("the consumer is gone, or its leader is away".to_owned()),
        // "Message Size Exceeds MaxBytes": the server has no code of its own for it.
        _ if said.contains("MaxBytes") => End::LargerThanAsked,
        _ => End::Broken(said.to_owned()),
    }
}
