//! Publishes receipts on their subjects: sends all of a batch at once, then checks that the stream has them.

use crate::nats::api::Api;
use crate::nats::client::{Connection, with_sources};
use crate::nats::publish::{Inbox, Outgoing};
use crate::receipt::notifier::ReceiptPublisher;
use crate::record::receipt::Receipt;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

#[derive(Clone, Debug)]
pub struct ReceiptStream {
    api: Api,
    name: String,
}

/// Handing a batch to the client, which takes long only where it is disconnected and full.
const SENDING_TIME_MAX: Duration = Duration::from_secs(1);
/// From one confirmation to the next.
const CONFIRMING_TIME_MAX: Duration = Duration::from_secs(1);
/// Of one lane at a time.
const UNCONFIRMED_MAX: usize = 250;

const TAKES_NONE: &str = "the connection takes none";

impl ReceiptStream {
    /// The stream of this name, over this connection.
    pub fn new(connection: &Connection, name: &str) -> Self {
        Self { api: Api::new(connection), name: name.to_owned() }
    }

    /// Publishes these, and waits for the confirmation of each. What is left over was published, and not confirmed in time.
    async fn publish<'a>(&self, receipts: &[&'a Receipt]) -> Result<Vec<&'a Receipt>, String> {
        let sending = async {
            let inbox = Inbox::open(&self.api, &self.name).await?;
            for (number, receipt) in receipts.iter().enumerate() {
                let (subject, payload) = (receipt.subject.clone(), receipt.to_bytes().into());
                inbox.publish(number, Outgoing { subject, headers: None, payload }).await?;
            }
            Ok::<_, String>(inbox)
        };
        let mut inbox = timeout(SENDING_TIME_MAX, sending).await.unwrap_or_else(|_| Err(TAKES_NONE.to_owned()))?;
        let mut unconfirmed: BTreeMap<usize, &Receipt> = receipts.iter().copied().enumerate().collect();
        while !unconfirmed.is_empty() {
            let Ok(Some((number, answer))) = timeout(CONFIRMING_TIME_MAX, inbox.next()).await else { break };
            answer.map_err(|refusal| refusal.to_string())?;
            unconfirmed.remove(&number);
        }
        Ok(unconfirmed.into_values().collect())
    }

    /// What was on its way when a connection broke, as it does at each reload, is lost; published once more it does no harm.
    async fn publish_or_again(&self, receipts: &[Receipt]) -> Result<(), String> {
        let unconfirmed = self.publish(&receipts.iter().collect::<Vec<_>>()).await?;
        if unconfirmed.is_empty() || self.publish(&unconfirmed).await?.is_empty() {
            return Ok(());
        }
        Err("no confirmation from the server".to_owned())
    }
}

impl ReceiptPublisher for ReceiptStream {
    async fn publish_confirmed(&self, receipts: &[Receipt]) -> Result<(), String> {
        let mut rest = receipts;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(UNCONFIRMED_MAX));
            if let Err(why) = self.publish_or_again(now).await {
                return self.publish_unconfirmed(later).await.and(Err(why));
            }
            rest = later;
        }
        Ok(())
    }

    async fn publish_unconfirmed(&self, receipts: &[Receipt]) -> Result<(), String> {
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
