//! How does a budget alert reach its subject, once? Under an id that the server remembers for longer than any outage should last.

use super::api::Api;
use super::publish::{NotPublished, publish};
use crate::domain::budget::Alert;
use crate::outbox::{Sink, Undelivered};

/// The stream of alerts.
#[derive(Clone, Debug)]
pub struct AlertStream(pub Api);

impl Sink<Alert> for AlertStream {
    async fn deliver(&self, alert: &Alert) -> Result<(), Undelivered> {
        let payload = alert.payload().to_string().into_bytes();
        match publish(&self.0, &alert.subject(), &alert.message_id(), payload).await {
            Ok(_) => Ok(()),
            Err(NotPublished::Refused(why)) => Err(Undelivered::Refused(format!("{}: {why}", alert.subject()))),
            Err(NotPublished::Unknown) => Err(Undelivered::Away("no confirmation from the server".to_owned())),
        }
    }
}
