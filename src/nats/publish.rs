//! How does an event get into the stream? For those who publish for others: commands and webhooks.

use super::api::Api;
use super::client::with_sources;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// Where the server put a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The stream.
    pub stream: String,
    /// The sequence.
    pub sequence: u64,
    /// The server knew the message id already, and stored nothing.
    pub duplicate: bool,
}

/// The server did not confirm a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// It said no.
    Refused(String),
    /// It said nothing: the message may be in the stream.
    Unknown,
}

impl fmt::Display for NotPublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotPublished::Refused(why) => write!(f, "not published: {why}"),
            NotPublished::Unknown => f.write_str(
                "no confirmation from the server: the event may be in the stream; publish it again under the same event_id",
            ),
        }
    }
}

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(7);

/// Publishes, and waits until the stream has the message. It has no message id: those are shared by the whole stream, so whoever
/// guesses one and uses it first makes the message vanish. The ledger knows a record by its own id, and stores it once.
pub async fn publish(api: &Api, subject: &str, payload: Vec<u8>) -> Result<Stored, NotPublished> {
    publish_message(api, subject, PublishMessage::build().payload(payload.into())).await
}

/// Publishes what has headers of its own.
pub(super) async fn publish_message(api: &Api, subject: &str, message: PublishMessage) -> Result<Stored, NotPublished> {
    let publishing = async { api.context().send_publish(subject.to_owned(), message).await?.await };
    match timeout(PUBLISH_TIMEOUT, publishing).await {
        Ok(Ok(ack)) => Ok(Stored { stream: ack.stream, sequence: ack.sequence, duplicate: ack.duplicate }),
        Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound => {
            Err(NotPublished::Refused(format!("no stream takes {subject}: run `ledgerd setup`")))
        }
        Ok(Err(error)) if error.kind() != PublishErrorKind::TimedOut => {
            Err(NotPublished::Refused(with_sources(&error)))
        }
        Ok(Err(_)) | Err(_) => Err(NotPublished::Unknown),
    }
}
