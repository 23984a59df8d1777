//! Publishes checkpoints on the subject `ledger.checkpoint`. No stream keeps them, because the next checkpoint covers
//! more.

use crate::log::signer::CheckpointPublisher;
use async_nats::Client;
use std::time::Duration;
use tlog::checkpoint::SignedCheckpoint;
use tokio::time::timeout;

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
