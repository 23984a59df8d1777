//! How do receipts reach their subjects? All of a batch at once, then a look at whether the stream has them.

use super::api::Api;
use super::client::{Connection, with_sources};
use crate::domain::receipt::Receipt;
use crate::receipts::Post;
use async_nats::jetstream::context::PublishError;
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
/// Of one lane at a time. The client has room for 5000 of all lanes together, and whoever waits for room gives none back.
const UNCONFIRMED_MAX: usize = 250;

const TAKES_NONE: &str = "the connection takes none";

impl ReceiptStream {
    /// Over this connection.
    pub fn new(connection: &Connection) -> Self {
        Self { api: Api::new(connection) }
    }
}

impl ReceiptStream {
    /// Publishes these, and waits for the confirmation of each. What is left over was published, and not confirmed in time.
    async fn publish<'a>(&self, receipts: &'a [Receipt]) -> Result<&'a [Receipt], String> {
        let sending = async {
            let mut confirmations = Vec::with_capacity(receipts.len());
            for receipt in receipts {
                let message = PublishMessage::build().payload(receipt.to_bytes().into());
                confirmations.push(self.api.context().send_publish(receipt.subject.clone(), message).await?);
            }
            Ok::<_, PublishError>(confirmations)
        };
        let sent = timeout(SENDING_TIME_MAX, sending).await.map_err(|_| TAKES_NONE.to_owned())?;
        for (at, confirmation) in sent.map_err(|error| with_sources(&error))?.into_iter().enumerate() {
            match timeout(CONFIRMING_TIME_MAX, confirmation.into_future()).await {
                Ok(confirmed) => confirmed.map(drop).map_err(|error| with_sources(&error))?,
                Err(_) => return Ok(&receipts[at..]),
            }
        }
        Ok(&[])
    }

    /// What was on its way when a connection broke, as it does at each reload, is lost; told once more it does no harm.
    async fn publish_or_again(&self, receipts: &[Receipt]) -> Result<(), String> {
        let unconfirmed = self.publish(receipts).await?;
        if unconfirmed.is_empty() || self.publish(unconfirmed).await?.is_empty() {
            return Ok(());
        }
        Err("no confirmation from the server".to_owned())
    }
}

impl Post for ReceiptStream {
    async fn deliver(&self, receipts: &[Receipt]) -> Result<(), String> {
        let mut rest = receipts;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(UNCONFIRMED_MAX));
            if let Err(why) = self.publish_or_again(now).await {
                return self.toss(later).await.and(Err(why));
            }
            rest = later;
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
        timeout(SENDING_TIME_MAX, sending).await.unwrap_or_else(|_| Err(TAKES_NONE.to_owned()))
    }
}
