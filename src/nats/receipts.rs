//! How do receipts reach their subjects? All of a batch at once, then a look at whether the stream has them.

use super::api::Api;
use super::client::{Connection, with_sources};
use crate::domain::receipt::Receipt;
use crate::receipts::Post;
use async_nats::jetstream::message::PublishMessage;
use std::time::Duration;
use tokio::time::timeout;

/// The subjects of receipts.
#[derive(Clone, Debug)]
pub struct ReceiptStream {
    /// Its own: what it waits for counts against no other publisher's bound.
    api: Api,
}

/// Handing a batch to the client, which takes long only where it is disconnected and full.
const SENDING_TIME_MAX: Duration = Duration::from_secs(1);
/// From one confirmation to the next.
const CONFIRMING_TIME_MAX: Duration = Duration::from_secs(1);

impl ReceiptStream {
    /// Over this connection.
    pub fn new(connection: &Connection) -> Self {
        Self { api: Api::new(connection) }
    }
}

impl Post for ReceiptStream {
    async fn deliver(&self, receipts: &[Receipt]) -> Result<(), String> {
        let sending = async {
            let mut confirmations = Vec::with_capacity(receipts.len());
            for receipt in receipts {
                let message = PublishMessage::build().payload(receipt.to_bytes().into());
                confirmations.push(self.api.context().send_publish(receipt.subject.clone(), message).await?);
            }
            Ok::<_, async_nats::jetstream::context::PublishError>(confirmations)
        };
        let sent = timeout(SENDING_TIME_MAX, sending).await.map_err(|_| "the connection takes none".to_owned())?;
        for confirmation in sent.map_err(|error| with_sources(&error))? {
            match timeout(CONFIRMING_TIME_MAX, confirmation.into_future()).await {
                Ok(confirmed) => confirmed.map(drop).map_err(|error| with_sources(&error))?,
                Err(_) => return Err("no confirmation from the server".to_owned()),
            }
        }
        Ok(())
    }

    async fn toss(&self, receipts: &[Receipt]) -> Result<(), String> {
        let sending = async {
            for receipt in receipts {
                let published = self.api.client().publish(receipt.subject.clone(), receipt.to_bytes().into()).await;
                published.map_err(|error| with_sources(&error))?;
            }
            Ok(())
        };
        timeout(SENDING_TIME_MAX, sending).await.unwrap_or_else(|_| Err("the connection takes none".to_owned()))
    }
}
