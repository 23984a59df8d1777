//! Publishes checkpoints on the subject `ledger.checkpoint`, which no stream keeps: the next one says more.

use crate::log::signer::CheckpointPublisher;
use crate::tlog::checkpoint::SignedCheckpoint;
use async_nats::Client;
use std::time::Duration;
use tokio::time::timeout;

/// The subject of checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointSubject(pub Client);

const SUBJECT: &str = "ledger.checkpoint";
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

impl CheckpointPublisher for CheckpointSubject {
    async fn announce(&self, checkpoint: &SignedCheckpoint) {
        let publishing = self.0.publish(SUBJECT, checkpoint.to_string().into());
        if !matches!(timeout(PUBLISH_TIMEOUT, publishing).await, Ok(Ok(()))) {
            tracing::debug!("the checkpoint was not announced on {SUBJECT}");
        }
    }
}
