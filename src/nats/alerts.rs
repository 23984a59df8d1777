//! How does a budget alert reach its subject, once? Under an id that the server remembers for longer than any outage should last.

use super::api::{Api, ApiError};
use super::publish::{NotPublished, publish_message};
use crate::domain::budget::Alert;
use crate::outbox::{Sink, Undelivered};
use async_nats::jetstream::message::PublishMessage;

/// The stream of alerts.
#[derive(Clone, Debug)]
pub struct AlertStream {
    api: Api,
    name: String,
}

impl AlertStream {
    /// The stream of this name.
    pub fn new(api: Api, name: &str) -> Self {
        Self { api, name: name.to_owned() }
    }
}

impl Sink<Alert> for AlertStream {
    async fn deliver(&self, alert: &Alert) -> Result<(), Undelivered> {
        // Without the stream a plain subscriber would hear the alert again and again, and nobody would confirm it.
        match self.api.stream_info(&self.name).await {
            Ok(_) => {}
            Err(ApiError::StreamNotFound) => {
                return Err(Undelivered::Refused(format!("there is no stream {}: run `ledgerd setup`", self.name)));
            }
            Err(error) => return Err(Undelivered::Away(error.to_string())),
        }
        let payload = alert.payload().to_string().into_bytes();
        let message = PublishMessage::build().payload(payload.into()).message_id(alert.message_id());
        match publish_message(&self.api, &alert.subject(), message).await {
            Ok(_) => Ok(()),
            Err(NotPublished::Refused(why)) => Err(Undelivered::Refused(format!("{}: {why}", alert.subject()))),
            Err(NotPublished::Unknown) => Err(Undelivered::Away("no confirmation from the server".to_owned())),
        }
    }
}
