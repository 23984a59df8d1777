//! Makes the proof of one entry. `ledgerd prove` writes it to a file, and the console serves it.

use crate::log::entries::{LoggedEntry, StoredCheckpoint};
use crate::log::evidence::Evidence;
use crate::log::queries::LogStore;
use crate::postgres::remedy::DatabaseError;
use std::fmt::Display;
use std::time::Duration;
use tlog::checkpoint::Checkpoint;
use tlog::plan::InclusionPlan;
use tlog::receipt::{BadReceipt, ProofFile};
use tokio::time::{Instant, sleep};

const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// An entry with all that its proof is made of.
#[derive(Debug)]
pub struct EntryProof {
    pub entry: LoggedEntry,
    pub evidence: Evidence,
    pub checkpoint: StoredCheckpoint,
    pub file: ProofFile,
}

/// An entry cannot be proven.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the ledger has no entry {index}")]
    NoEntry { index: u64 },
    /// What is stored is not what was logged, or not what was signed.
    #[error("{0}; `ledgerd verify` says more")]
    Changed(String),
    /// It is not under a signed checkpoint, or not yet.
    #[error("{0}")]
    Uncovered(String),
    #[error("the proof cannot be written: {0}; without the publisher's bytes and headers it is small")]
    Unwritable(BadReceipt),
}

impl LogStore {
    /// The proof of an entry. It waits so long for a checkpoint that covers the entry.
    pub async fn prove(&self, index: u64, without_content: bool, patience: Duration) -> Result<EntryProof, ProveError> {
        let entry = self.entry(index).await?.ok_or(ProveError::NoEntry { index })?;
        let evidence = evidence(&entry, without_content)?;
        let checkpoint = self.covering(index, patience).await?;
        let file = self.proof_file(&entry, &checkpoint, &evidence).await?;
        Ok(EntryProof { entry, evidence, checkpoint, file })
    }

    async fn covering(&self, index: u64, patience: Duration) -> Result<StoredCheckpoint, ProveError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(checkpoint) = self.newest_checkpoint(Some(index)).await? {
                return Ok(checkpoint);
            }
            if Instant::now() >= deadline {
                let newest = self.newest_checkpoint(None).await?;
                return Err(ProveError::Uncovered(uncovered(index, newest.as_ref())));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn proof_file(
        &self,
        entry: &LoggedEntry,
        checkpoint: &StoredCheckpoint,
        evidence: &Evidence,
    ) -> Result<ProofFile, ProveError> {
        let differs = |why: &dyn Display| {
            let what = format!("the stored tree is not the one that was signed at size {}", checkpoint.tree_size);
            ProveError::Changed(format!("{what}: {why}"))
        };
        let signed = Checkpoint::parse(checkpoint.note.unverified_text()).map_err(|error| differs(&error))?;
        let plan = InclusionPlan::new(entry.index, signed.head().size).map_err(|error| differs(&error))?;
        let hashes = self.hashes(&plan.ranges()).await?;
        let proof = plan.build(&hashes).map_err(|error| differs(&error))?;
        proof.verify(&entry.leaf_hash, &signed.head()).map_err(|error| differs(&error))?;
        let file = ProofFile::unverified(proof, checkpoint.note.clone());
        file.and_then(|file| file.with_extra(evidence.encode())).map_err(ProveError::Unwritable)
    }
}

fn evidence(entry: &LoggedEntry, without_content: bool) -> Result<Evidence, ProveError> {
    let leaf = entry.leaf().map_err(|error| ProveError::Changed(error.to_string()))?;
    let shown = |bytes: &Option<Vec<u8>>| bytes.clone().filter(|_| !without_content);
    let evidence = Evidence { leaf, headers: shown(&entry.headers), payload: shown(&entry.payload) };
    let changed = |error: &dyn Display| ProveError::Changed(format!("entry {}: {error}", entry.index));
    evidence.examine().map_err(|error| changed(&error))?;
    Ok(evidence)
}

fn uncovered(index: u64, newest: Option<&StoredCheckpoint>) -> String {
    match newest {
        Some(StoredCheckpoint { origin, tree_size, .. }) => format!(
            "entry {index} is not under a signed checkpoint yet: the newest of {origin} is of size {tree_size}; look into the \
             log of `ledgerd run` for why it does not sign"
        ),
        None => format!(
            "entry {index} cannot be proven, for no checkpoint was ever signed: make a key with `ledgerd keygen`, name it in \
             checkpoint.key_file, and restart `ledgerd run`"
        ),
    }
}
