//! Asks witnesses to cosign a checkpoint (c2sp.org/tlog-witness). Each request has a proof that the tree extends the
//! one that the witness saw last.

use crate::log::stored_tree::StoredTree;
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tlog::checkpoint::{Origin, SignedCheckpoint};
use tlog::cosignature::{WitnessVerifierKey, collect};
use tlog::plan::ConsistencyPlan;
use tlog::tree::TreeHead;
use tlog::witness::{AddCheckpoint, STALE_CONTENT_TYPE};
use tokio::time::timeout;

/// How requests get to a witness.
pub trait WitnessClient: Send + Sync {
    /// Posts a body, and returns what was answered. `Err`: nobody answered.
    fn post(&self, url: &str, body: String) -> impl Future<Output = Result<Reply, String>> + Send;
}

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The content type, if there is one.
    pub content_type: Option<String>,
    /// The body; what is no UTF-8 was replaced.
    pub body: String,
}

/// A witness does not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCosigned {
    /// It did not answer, or could not do its work: it is asked again with the next checkpoint.
    #[error("it is away: {0}")]
    Away(String),
    /// It refused, or answered what cannot be.
    #[error("it refuses: {0}")]
    Refused(String),
    /// It has cosigned a larger tree of this log.
    #[error("it has cosigned a larger tree, of size {size}: this one is older, or was restored from a backup")]
    Ahead {
        /// The size of that tree.
        size: u64,
    },
    /// It has cosigned another tree of the same size: the log forked, or was restored without a new name.
    #[error("it has cosigned another tree of this log: {0}")]
    Forked(String),
    /// The proof for it cannot be made.
    #[error("there is no proof for it: {0}")]
    NoProof(String),
}

/// A witness as the log knows it.
#[derive(Debug)]
pub struct WitnessEndpoint {
    url: String,
    pub(crate) key: WitnessVerifierKey,
    /// The size of the tree that it has cosigned last, as far as we know.
    latest: Mutex<Option<(Origin, u64)>>,
}

/// Another program may ask the same witness at the same time, and each conflict is worth one more try.
const TRIES: usize = 3;

impl WitnessEndpoint {
    /// Reads `URL VKEY`: the prefix that `/add-checkpoint` is appended to, and the witness's verifier key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (url, key) =
            text.trim().split_once(char::is_whitespace).ok_or("expected a URL, a space and a verifier key")?;
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(format!("expected a URL that begins with https:// or http://, found {url}"));
        }
        let key =
            WitnessVerifierKey::parse(key.trim()).map_err(|error| format!("the verifier key of {url}: {error}"))?;
        Ok(Self { url: format!("{}/add-checkpoint", url.trim_end_matches('/')), key, latest: Mutex::new(None) })
    }

    pub fn name(&self) -> &str {
        self.key.name().as_str()
    }

    pub fn key(&self) -> &WitnessVerifierKey {
        &self.key
    }

    fn latest_size(&self, origin: &Origin) -> u64 {
        let latest = self.latest.lock();
        latest.as_ref().filter(|(of, _)| of == origin).map_or(0, |(_, size)| *size)
    }

    fn remember(&self, origin: &Origin, size: u64) {
        *self.latest.lock() = Some((origin.clone(), size));
    }

    /// Asks for the cosignature of a checkpoint, and returns the checkpoint with it.
    pub async fn cosign(
        &self,
        checkpoint: &SignedCheckpoint,
        tree: &impl StoredTree,
        client: &impl WitnessClient,
    ) -> Result<SignedCheckpoint, NotCosigned> {
        let origin = checkpoint.checkpoint().origin();
        let TreeHead { size, .. } = checkpoint.head();
        let mut old_size = Some(self.latest_size(origin)).filter(|latest| *latest <= size).unwrap_or(0);
        for _ in 0..TRIES {
            let request = request(old_size, checkpoint, tree).await?;
            let reply = client.post(&self.url, request).await.map_err(NotCosigned::Away)?;
            match reply.status {
                200 => {
                    let cosigned = self.collect(checkpoint, &reply.body)?;
                    self.remember(origin, size);
                    return Ok(cosigned);
                }
                409 if reply.content_type.as_deref().is_some_and(is_stale) => {
                    let latest = reply.body.strip_suffix('\n').and_then(|text| text.parse::<u64>().ok());
                    let latest = latest.ok_or_else(|| NotCosigned::Refused(told(&reply)))?;
                    self.remember(origin, latest);
                    if latest > size {
                        return Err(NotCosigned::Ahead { size: latest });
                    }
                    old_size = latest;
                }
                // The proof was made of what is stored, so what the witness saw before is not what is stored now.
                409 | 422 => return Err(NotCosigned::Forked(told(&reply))),
                429 | 500..=599 => return Err(NotCosigned::Away(told(&reply))),
                _ => return Err(NotCosigned::Refused(told(&reply))),
            }
        }
        Err(NotCosigned::Away("others ask it at the same time".to_owned()))
    }

    fn collect(&self, checkpoint: &SignedCheckpoint, answer: &str) -> Result<SignedCheckpoint, NotCosigned> {
        let mut cosigned = checkpoint.clone();
        match collect(&mut cosigned, answer, std::slice::from_ref(&self.key)) {
            Ok(0) => Err(NotCosigned::Refused(format!("it answers without a cosignature of {}", self.key))),
            Ok(_) => Ok(cosigned),
            Err(error) => Err(NotCosigned::Refused(format!("what it answers is no cosignature: {error}"))),
        }
    }
}

fn is_stale(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim() == STALE_CONTENT_TYPE)
}

/// What was answered, as one short line.
fn told(reply: &Reply) -> String {
    let line: String = reply.body.lines().next().unwrap_or_default().chars().take(200).collect();
    format!("{} {}", reply.status, line.replace(char::is_control, " ")).trim_end().to_owned()
}

async fn request(old_size: u64, checkpoint: &SignedCheckpoint, tree: &impl StoredTree) -> Result<String, NotCosigned> {
    let no_proof = |error: &dyn fmt::Display| NotCosigned::NoProof(error.to_string());
    let plan = ConsistencyPlan::new(old_size, checkpoint.head().size).map_err(|error| no_proof(&error))?;
    let hashes = tree.hashes(&plan.ranges()).await.map_err(|error| no_proof(&error))?;
    let proof = plan.build(&hashes).map_err(|error| no_proof(&error))?;
    let request = AddCheckpoint::new(old_size, proof, checkpoint).map_err(|error| no_proof(&error))?;
    Ok(request.to_string())
}

/// All witnesses of a log.
#[derive(Debug)]
pub struct Witnesses<P> {
    all: Vec<WitnessEndpoint>,
    client: P,
    patience: Duration,
}

impl<P: WitnessClient> Witnesses<P> {
    /// These witnesses, each of which has `patience` to answer.
    pub fn new(all: Vec<WitnessEndpoint>, client: P, patience: Duration) -> Self {
        Self { all, client, patience }
    }

    pub fn keys(&self) -> Vec<WitnessVerifierKey> {
        self.all.iter().map(|witness| witness.key.clone()).collect()
    }

    /// Asks all at once for the cosignature of a checkpoint, and adds what they answer to it. Returns, for each in the order of
    /// the configuration, its name and how it went.
    pub async fn cosign(
        &self,
        checkpoint: &mut SignedCheckpoint,
        tree: &impl StoredTree,
    ) -> Vec<(&str, Result<(), NotCosigned>)> {
        let signed = &*checkpoint;
        let asked = join_all(self.all.iter().map(|witness| async move {
            let asked = timeout(self.patience, witness.cosign(signed, tree, &self.client)).await;
            asked.unwrap_or_else(|_| Err(NotCosigned::Away(format!("no answer within {:?}", self.patience))))
        }))
        .await;
        let mut outcomes = Vec::with_capacity(asked.len());
        for (witness, cosigned) in self.all.iter().zip(asked) {
            let added = cosigned.and_then(|cosigned| {
                let line = cosigned.note().signatures().last().map(ToString::to_string).unwrap_or_default();
                *checkpoint = witness.collect(checkpoint, &line)?;
                Ok(())
            });
            outcomes.push((witness.name(), added));
        }
        outcomes
    }
}

#[cfg(test)]
#[path = "cosign_tests.rs"]
mod tests;
