//! Signs the tree. In each second in which the tree grew, its head is signed, written to the anchor file, and released.
//! A tree that is smaller than, or different from, a signed one is never signed.
//!
//! The order matters: a checkpoint is on the local disk before anybody can see it. So whatever happens to the database,
//! the next signature is checked against that file.

use crate::health::{Dependency, Pulse};
use crate::log::anchor::{Anchor, Last, Line};
use crate::metrics::CheckpointMetrics;
use crate::retry::Backoff;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tlog::checkpoint::{Log, Origin, SignedCheckpoint};
use tlog::key::KeyName;
use tlog::note::SignerKey;
use tlog::plan::{ConsistencyPlan, Hashes};
use tlog::tile::HashRange;
use tlog::tree::TreeHead;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The tree, as the database has it.
pub trait SignedTree {
    /// Its size and root now.
    fn head(&self) -> impl Future<Output = Result<TreeHead, String>> + Send;

    /// Stored hashes; those that are missing are left out.
    fn hashes(&self, ranges: &[HashRange]) -> impl Future<Output = Result<Hashes, String>> + Send;

    /// The newest checkpoint that was kept in this name.
    fn last_checkpoint(&self, origin: &Origin) -> impl Future<Output = Result<Option<String>, String>> + Send;

    /// Keeps a checkpoint beside the tree.
    fn keep(&self, checkpoint: &SignedCheckpoint) -> impl Future<Output = Result<(), String>> + Send;
}

/// Where checkpoints are announced. Nobody waits for it: the next one says the same and more.
pub trait CheckpointPublisher {
    fn announce(&self, checkpoint: &SignedCheckpoint) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A tree that grew is signed after this time at the latest.
    pub interval: Duration,
    /// One that did not is announced again after this time.
    pub heartbeat: Duration,
}

/// The newest released note, for those who ask.
pub type Released = watch::Sender<Option<Arc<str>>>;

/// What the signer works with.
#[derive(Debug)]
pub struct SignerContext<'a> {
    /// The log's key; its name is the log's first name.
    pub key: &'a SignerKey,
    /// What was signed, on our own disk.
    pub anchor: &'a Anchor,
    pub pace: Pace,
    /// Told what was released.
    pub released: &'a Released,
    /// Told when it refuses to sign, and when the tree cannot be read.
    pub health: &'a Dependency,
    pub pulse: &'a Pulse,
    pub metrics: &'a CheckpointMetrics,
    /// Cancelled when the daemon is to stop.
    pub stop: &'a CancellationToken,
}

/// Who waits, for the dependency.
const SIGNER: &str = "checkpoint signer";

/// Runs until told to stop. A refusal is loud, and holds up no record.
pub async fn run<T: SignedTree, H: CheckpointPublisher>(tree: &T, publisher: &H, context: SignerContext<'_>) {
    let mut state = None;
    let mut backoff = Backoff::for_operator();
    while !context.stop.is_cancelled() {
        context.pulse.beat();
        let signed = match state.take() {
            Some(known) => sign_if_grown(known, tree, publisher, &context).await,
            None => begin(tree, &context).await,
        };
        match signed {
            Ok(next) => {
                context.health.up(SIGNER);
                backoff.reset();
                context.metrics.refusing.set(0);
                state = Some(next);
            }
            // What was signed is read again: an operator may have declared a new epoch meanwhile.
            Err(unsigned) => {
                context.metrics.refusing.set(i64::from(matches!(unsigned, Unsigned::Refused(_))));
                context.health.down(SIGNER, &unsigned.to_string());
            }
        }
        context.pulse.rest();
        let wait = if state.is_some() { context.pace.interval } else { backoff.next_wait().max(context.pace.interval) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = context.stop.cancelled() => {}
        }
    }
}

struct Signed {
    key: SignerKey,
    last: Option<SignedCheckpoint>,
    announced_at: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Unsigned {
    /// Time helps, or an operator: a server is away, a disk is full.
    Failed(String),
    /// The tree is not the one that was signed before.
    Refused(String),
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsigned::Failed(what) => f.write_str(what),
            Unsigned::Refused(what) => write!(
                f,
                "refusing to sign the tree: {what}. Bring back the newer state of the database; or, if it is lost for good, \
                 declare that with `ledgerd checkpoint --new-epoch REASON`. Records go on being stored"
            ),
        }
    }
}

/// The key under the log's present name.
///
/// # Errors
/// A sentence, if the name that was declared cannot be a key's.
pub fn key_in_force(key: &SignerKey, last: &Last) -> Result<SignerKey, String> {
    let Some(origin) = &last.origin else { return Ok(key.clone()) };
    let name = KeyName::parse(origin).map_err(|error| error.to_string())?;
    key.renamed(name).map_err(|error| error.to_string())
}

/// Reads what was signed, on our disk and in the database: the larger is the last, and the tree must have grown out of both.
async fn begin<T: SignedTree>(tree: &T, context: &SignerContext<'_>) -> Result<Signed, Unsigned> {
    let head = tree.head().await.map_err(Unsigned::Failed)?;
    let path = context.anchor.path().display();
    let read = on_disk(context.anchor, Anchor::read).await;
    let read = read.map_err(|error| Unsigned::Failed(format!("cannot read {path}: {error}")))?;
    let key = key_in_force(context.key, &read).map_err(|why| Unsigned::Failed(format!("{path}: {why}")))?;
    let log = Log::of_key(key.verifier().clone());
    let open = |note: Option<String>, place: String| {
        note.map(|note| SignedCheckpoint::parse(note.as_bytes(), &log))
            .transpose()
            .map_err(|error| Unsigned::Refused(format!("{place} holds a checkpoint that is not this key's: {error}")))
    };
    let anchored = open(read.checkpoint, path.to_string())?;
    let kept = tree.last_checkpoint(log.origin()).await.map_err(Unsigned::Failed)?;
    let kept = open(kept, "ledger.checkpoint".to_owned())?;
    for earlier in anchored.iter().chain(&kept) {
        prove_growth(tree, earlier.head(), head).await?;
    }
    let is_newer = |it: &&SignedCheckpoint| kept.as_ref().is_none_or(|kept| kept.head().size < it.head().size);
    if let Some(anchored) = anchored.as_ref().filter(is_newer) {
        // Whoever signed it was killed before the database had it, and the tree need not grow for long.
        tree.keep(anchored).await.map_err(Unsigned::Failed)?;
    }
    let last = anchored.into_iter().chain(kept).max_by_key(|checkpoint| checkpoint.head().size);
    if let Some(last) = &last {
        release(context, last);
    }
    Ok(Signed { key, last, announced_at: None })
}

fn release(context: &SignerContext<'_>, checkpoint: &SignedCheckpoint) {
    context.released.send_replace(Some(Arc::from(checkpoint.to_string())));
    context.metrics.size.set(i64::try_from(checkpoint.head().size).unwrap_or(i64::MAX));
}

/// Signs a tree that grew, and releases it.
async fn sign_if_grown<T: SignedTree, H: CheckpointPublisher>(
    signed: Signed,
    tree: &T,
    publisher: &H,
    context: &SignerContext<'_>,
) -> Result<Signed, Unsigned> {
    let head = tree.head().await.map_err(Unsigned::Failed)?;
    let last = signed.last.as_ref().map_or(TreeHead::EMPTY, SignedCheckpoint::head);
    if head == last {
        return Ok(remind(signed, publisher, context).await);
    }
    let proof = prove_growth(tree, last, head).await?;
    let checkpoint = SignedCheckpoint::sign(head, &last, &proof, &signed.key).map_err(|error| {
        Unsigned::Refused(format!("{} leaves do not grow out of {}: {error}", head.size, last.size))
    })?;
    let line = Line::Checkpoint(checkpoint.to_string());
    let before = Last {
        origin: (signed.key.name() != context.key.name()).then(|| signed.key.name().to_string()),
        checkpoint: signed.last.as_ref().map(SignedCheckpoint::to_string),
    };
    let path = context.anchor.path().display();
    on_disk(context.anchor, move |anchor| anchor.append(&line, &before))
        .await
        .map_err(|error| Unsigned::Failed(format!("cannot write the checkpoint to {path}: {error}")))?;
    tree.keep(&checkpoint).await.map_err(Unsigned::Failed)?;
    release(context, &checkpoint);
    context.metrics.signed.inc();
    publisher.announce(&checkpoint).await;
    Ok(Signed { last: Some(checkpoint), announced_at: Some(Instant::now()), ..signed })
}

/// A disk may take its time: no record waits for it.
async fn on_disk<T: Send + 'static>(
    anchor: &Anchor,
    work: impl FnOnce(&Anchor) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let anchor = anchor.clone();
    tokio::task::spawn_blocking(move || work(&anchor)).await.unwrap_or_else(|ended| Err(ended.into()))
}

/// A log that stands still says so from time to time, so that nobody takes a withheld checkpoint for the newest.
async fn remind<H: CheckpointPublisher>(signed: Signed, publisher: &H, context: &SignerContext<'_>) -> Signed {
    let is_due = signed.announced_at.is_none_or(|at| at.elapsed() >= context.pace.heartbeat);
    let Some(last) = signed.last.as_ref().filter(|_| is_due) else { return signed };
    publisher.announce(last).await;
    Signed { announced_at: Some(Instant::now()), ..signed }
}

/// Proves that the tree grew out of an earlier one.
async fn prove_growth<T: SignedTree>(
    tree: &T,
    earlier: TreeHead,
    head: TreeHead,
) -> Result<tlog::proof::ConsistencyProof, Unsigned> {
    let plan = ConsistencyPlan::new(earlier.size, head.size).map_err(|_| {
        Unsigned::Refused(format!("it has {} leaves, and {} were signed before", head.size, earlier.size))
    })?;
    let hashes = tree.hashes(&plan.ranges()).await.map_err(Unsigned::Failed)?;
    let proof = plan
        .build(&hashes)
        .map_err(|missing| Unsigned::Refused(format!("custody is not whole: {missing}; run `ledgerd verify`")))?;
    proof.verify(&earlier, &head).map_err(|_| {
        Unsigned::Refused(format!(
            "its first {} leaves are not those that were signed before; run `ledgerd verify`",
            earlier.size
        ))
    })?;
    Ok(proof)
}

#[cfg(test)]
#[path = "signer_tests.rs"]
mod tests;
