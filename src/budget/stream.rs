//! Publishes each budget alert on its subject exactly once. The server remembers its message id for longer than any
//! outage should last.

use crate::budget::status::Alert;
use crate::nats::api::{Api, ApiError};
use crate::nats::publish::{Outgoing, PublishError, confirmed, publish_and_read};
use crate::outbox::{Sink, Undelivered};
use async_nats::HeaderMap;

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
    async fn deliver(&self, alerts: &[Alert]) -> Vec<Result<(), Undelivered>> {
        // In their order: whoever listens sees a day's changes as they came.
        let mut delivered = Vec::with_capacity(alerts.len());
        for alert in alerts {
            delivered.push(self.deliver_one(alert).await);
        }
        delivered
    }
}

impl AlertStream {
    async fn deliver_one(&self, alert: &Alert) -> Result<(), Undelivered> {
        // Without the stream a plain subscriber would hear the alert again and again, and nobody would confirm it.
        match self.api.stream_info(&self.name).await {
            Ok(_) => {}
            Err(ApiError::StreamNotFound) => {
                return Err(Undelivered::Refused(format!("there is no stream {}: run `ledgerd setup`", self.name)));
            }
            Err(error) => return Err(Undelivered::Away(error.to_string())),
        }
        let subject = alert.subject();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", alert.message_id());
        let payload = alert.payload().to_string().into_bytes().into();
        let message = Outgoing { subject: subject.clone(), headers: Some(headers), payload };
        match confirmed(publish_and_read(&self.api, &self.name, message).await, &subject) {
            Ok(_) => Ok(()),
            Err(PublishError::Refused(why)) => Err(Undelivered::Refused(format!("{subject}: {why}"))),
            Err(PublishError::Unknown) => Err(Undelivered::Away("no confirmation from the server".to_owned())),
        }
    }
}
