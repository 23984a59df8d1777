//! How does an event get into the stream? For `ledgerd emit`.

use super::api::Api;
use super::client::with_sources;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
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

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(7);

/// Publishes, and waits until the stream has the message.
///
/// # Errors
/// A sentence, and whether the service is away rather than unwilling.
pub async fn publish(api: &Api, subject: &str, message_id: &str, payload: Vec<u8>) -> Result<Stored, (String, bool)> {
    let message = PublishMessage::build().payload(payload.into()).message_id(message_id);
    let publishing = async { api.context().send_publish(subject.to_owned(), message).await?.await };
    match timeout(PUBLISH_TIMEOUT, publishing).await {
        Ok(Ok(ack)) => Ok(Stored { stream: ack.stream, sequence: ack.sequence, duplicate: ack.duplicate }),
        Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound => {
            Err((format!("no stream takes {subject}: run `ledgerd setup`"), true))
        }
        Ok(Err(error)) => Err((with_sources(&error), error.kind() == PublishErrorKind::TimedOut)),
        Err(_) => Err((
            "no confirmation from the server: the event may be in the stream; publish it again under the same id"
                .to_owned(),
            true,
        )),
    }
}
