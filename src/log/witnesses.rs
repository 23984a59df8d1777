//! Asks the configured witnesses to cosign each new checkpoint. This runs beside the signing, and never delays it.

use crate::command::{Exit, Failure};
use crate::config::Config;
use crate::log::cosign::{NotCosigned, WitnessEndpoint, Witnesses};
use crate::log::http_client::Client;
use crate::log::queries::LogStore;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tlog::checkpoint::SignedCheckpoint;
use tlog::cosignature::WitnessVerifierKey;
use tlog::note::SignerKey;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a witness has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The witnesses of the configuration; `None` where there are none.
pub(crate) fn of(config: &Config) -> Result<Option<Witnesses<Client>>, Failure> {
    let all = endpoints(config)?;
    if all.is_empty() {
        return Ok(None);
    }
    Ok(Some(Witnesses::new(all, Client::new().map_err(broken)?, PATIENCE)))
}

/// Their keys, for whoever verifies what they cosigned.
pub(crate) fn keys(config: &Config) -> Result<Vec<WitnessVerifierKey>, Failure> {
    Ok(endpoints(config)?.into_iter().map(|witness| witness.key).collect())
}

fn endpoints(config: &Config) -> Result<Vec<WitnessEndpoint>, Failure> {
    config.checkpoint.witnesses.iter().map(|text| WitnessEndpoint::parse(text).map_err(broken)).collect()
}

fn broken(why: impl Display) -> Failure {
    Failure::new(Exit::Configuration, format!("checkpoint.witnesses: {why}"))
}

/// Asks for the newest checkpoint each time there is a new one, and again after the heartbeat: a cosignature tells the time.
pub(crate) async fn ask(
    witnesses: &Witnesses<Client>,
    key: &SignerKey,
    log: &Arc<LogStore>,
    mut released: watch::Receiver<Option<Arc<str>>>,
    heartbeat: Duration,
    stop: &CancellationToken,
) {
    loop {
        let note = released.borrow_and_update().clone();
        if let Some(note) = note {
            tokio::select! {
                () = ask_for(witnesses, key, log, &note) => {}
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            _ = timeout(heartbeat, released.changed()) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn ask_for(witnesses: &Witnesses<Client>, key: &SignerKey, log: &Arc<LogStore>, note: &str) {
    let mut checkpoint = match SignedCheckpoint::parse_in_any_epoch(note.as_bytes(), key.verifier()) {
        Ok(checkpoint) => checkpoint,
        Err(why) => return tracing::error!("the released checkpoint cannot be read again: {why}"),
    };
    for (witness, outcome) in witnesses.cosign(&mut checkpoint, log).await {
        match outcome {
            Ok(()) => tracing::debug!(witness, "{witness} cosigned {} leaves", checkpoint.head().size),
            Err(error @ (NotCosigned::Forked(_) | NotCosigned::Ahead { .. })) => {
                tracing::error!(witness, "the witness {witness} does not cosign: {error}");
            }
            Err(error) => tracing::warn!(witness, "the witness {witness} does not cosign: {error}"),
        }
    }
    if let Err(error) = log.keep_cosignatures(&checkpoint, &witnesses.keys()).await {
        tracing::warn!("cosignatures were not kept, and are asked for again: {error}");
    }
}
