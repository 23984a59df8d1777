use super::*;
use crate::health::stalls::StallLimits;
use crate::health::{Health, Pulse};
use crate::metrics::Metrics;
use std::sync::Mutex;
use tlog::tree::{Frontier, Hash, Subtree};

/// A tree in memory, which a test may also falsify.
#[derive(Default)]
struct Memory {
    leaves: Mutex<Vec<Hash>>,
    kept: Mutex<Vec<SignedCheckpoint>>,
}

impl Memory {
    fn grow_to(&self, size: u8) {
        let mut leaves = self.leaves.lock().expect("one thread");
        let from = leaves.len();
        leaves.extend((from..usize::from(size)).map(|n| [u8::try_from(n).expect("small"); 32]));
    }

    fn grown(&self) -> (Frontier, Vec<Subtree>) {
        let (mut frontier, mut subtrees) = (Frontier::EMPTY, Vec::new());
        for leaf in self.leaves.lock().expect("one thread").iter() {
            frontier.append(*leaf, &mut subtrees);
        }
        (frontier, subtrees)
    }

    fn sizes(&self) -> Vec<u64> {
        self.kept.lock().expect("one thread").iter().map(|checkpoint| checkpoint.head().size).collect()
    }
}

impl SignedTree for Memory {
    async fn head(&self) -> Result<TreeHead, String> {
        let (frontier, _) = self.grown();
        Ok(TreeHead { size: frontier.size(), root: frontier.root() })
    }

    async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, String> {
        let mut hashes = Hashes::new();
        let leaves = self.leaves.lock().expect("one thread");
        for range in ranges.iter().filter(|range| range.level == 0) {
            for index in range.first..range.first + range.count {
                hashes.insert(0, index, leaves[usize::try_from(index).expect("small")]);
            }
        }
        Ok(hashes)
    }

    async fn last_checkpoint(&self, origin: &Origin) -> Result<Option<String>, String> {
        let kept = self.kept.lock().expect("one thread");
        Ok(kept.iter().rev().find(|it| it.checkpoint().origin() == origin).map(ToString::to_string))
    }

    async fn keep(&self, checkpoint: &SignedCheckpoint) -> Result<(), String> {
        self.kept.lock().expect("one thread").push(checkpoint.clone());
        Ok(())
    }
}

struct Silent;

impl CheckpointPublisher for Silent {
    async fn announce(&self, _: &SignedCheckpoint) {}
}

/// A context with a folder of its own, and what is on it.
struct SignerWorld {
    key: SignerKey,
    anchor: Anchor,
    released: Released,
    health: Health,
    metrics: CheckpointMetrics,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl SignerWorld {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = KeyName::parse("example.com/ledger").expect("a name");
        Self {
            key: SignerKey::from_seed(name, &[7; 32]).expect("a key"),
            anchor: Anchor::at(&folder.path().join("anchor")),
            released: watch::Sender::new(None),
            health: Health::new(
                Duration::from_mins(1),
                StallLimits { tell_after: Duration::from_mins(1), restart_after: Duration::from_mins(1) },
            ),
            metrics: Metrics::new().checkpoints,
            stop: CancellationToken::new(),
            _folder: folder,
        }
    }

    fn context<'a>(&'a self, pulse: &'a Pulse) -> SignerContext<'a> {
        SignerContext {
            key: &self.key,
            anchor: &self.anchor,
            pace: Pace { interval: Duration::from_secs(1), heartbeat: Duration::from_mins(1) },
            released: &self.released,
            health: &self.health.checkpoints,
            pulse,
            metrics: &self.metrics,
            stop: &self.stop,
        }
    }

    /// One step of a signer that has just been started.
    async fn step(&self, tree: &Memory) -> Result<u64, Unsigned> {
        let pulse = self.health.pulse("the signer");
        let context = self.context(&pulse);
        let begun = begin(tree, &context).await?;
        let signed = sign_if_grown(begun, tree, &Silent, &context).await?;
        Ok(signed.last.map_or(0, |last| last.head().size))
    }
}

fn refusal(result: Result<u64, Unsigned>) -> String {
    match result {
        Err(Unsigned::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tree_that_grew_is_signed_anchored_kept_and_released() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    for size in [1, 5, 5, 200] {
        tree.grow_to(size);
        assert_eq!(office.step(&tree).await, Ok(u64::from(size)));
    }
    assert_eq!(tree.sizes(), [1, 5, 200]);
    let anchored = office.anchor.read().expect("readable").checkpoint.expect("it was signed");
    assert_eq!(office.released.borrow().as_deref(), Some(anchored.as_str()));
    let log = Log::of_key(office.key.verifier().clone());
    let checkpoint = SignedCheckpoint::parse(anchored.as_bytes(), &log).expect("ours");
    assert_eq!(Ok(checkpoint.head()), tree.head().await);
}

#[tokio::test]
async fn what_was_anchored_and_not_kept_is_kept_by_the_next_though_the_tree_stands_still() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    tree.grow_to(5);
    assert_eq!(office.step(&tree).await, Ok(5));
    tree.kept.lock().expect("one thread").clear();
    assert_eq!(office.step(&tree).await, Ok(5));
    assert_eq!(tree.sizes(), [5]);
}

#[tokio::test]
async fn a_smaller_tree_is_not_signed_whether_the_database_forgot_its_checkpoints_or_not() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    tree.grow_to(90);
    office.step(&tree).await.expect("signed");
    let backup = Memory::default();
    backup.grow_to(60);
    assert!(refusal(office.step(&backup).await).contains("it has 60 leaves, and 90 were signed before"));
    *backup.kept.lock().expect("one thread") = tree.kept.lock().expect("one thread").clone();
    refusal(office.step(&backup).await);
    assert_eq!(backup.sizes(), [90], "nothing was signed");
    // The backup grows, with other records, beyond what was signed.
    backup.leaves.lock().expect("one thread")[59] = [250; 32];
    backup.grow_to(100);
    assert!(refusal(office.step(&backup).await).contains("not those that were signed before"));
}

#[tokio::test]
async fn a_changed_leaf_is_not_signed_over() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    tree.grow_to(90);
    office.step(&tree).await.expect("signed");
    tree.leaves.lock().expect("one thread")[3] = [99; 32];
    refusal(office.step(&tree).await);
    tree.grow_to(91);
    refusal(office.step(&tree).await);
}

#[tokio::test]
async fn what_another_instance_signed_binds_this_one_too() {
    let (one, other, tree) = (SignerWorld::new(), SignerWorld::new(), Memory::default());
    tree.grow_to(90);
    one.step(&tree).await.expect("signed");
    tree.leaves.lock().expect("one thread")[3] = [99; 32];
    refusal(other.step(&tree).await);
}

#[tokio::test]
async fn a_declared_epoch_goes_on_under_another_name() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    tree.grow_to(90);
    office.step(&tree).await.expect("signed");
    let lost = Memory::default();
    lost.grow_to(60);
    refusal(office.step(&lost).await);
    let line = Line::NewEpoch {
        origin: "example.com/ledger/2".to_owned(),
        reason: "the disk was lost".to_owned(),
        declared_at: String::new(),
    };
    office.anchor.append(&line, &Last::default()).expect("written");
    assert_eq!(office.step(&lost).await, Ok(60));
    let note = office.released.borrow().clone().expect("released");
    assert!(note.starts_with("example.com/ledger/2\n60\n"), "{note}");
    lost.grow_to(61);
    assert_eq!(office.step(&lost).await, Ok(61));
}

#[tokio::test]
async fn a_checkpoint_of_another_key_in_the_anchor_is_refused() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    tree.grow_to(9);
    office.step(&tree).await.expect("signed");
    let name = KeyName::parse("example.com/ledger").expect("a name");
    let other = SignerWorld { key: SignerKey::from_seed(name, &[8; 32]).expect("a key"), ..office };
    assert!(refusal(other.step(&tree).await).contains("not this key's"));
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nobody_else() {
    let (office, tree) = (SignerWorld::new(), Memory::default());
    let pulse = office.health.pulse("the signer");
    let context = office.context(&pulse);
    let begun = begin(&tree, &context).await.expect("an empty tree");
    tree.grow_to(1);
    // Whoever opens this for writing waits for a reader.
    let path = office.anchor.path().to_owned();
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("coreutils are there");
    assert!(made.success());
    let (awaken, awakened) = std::sync::mpsc::channel();
    let unblocking = std::thread::spawn(move || {
        let _ = awakened.recv_timeout(Duration::from_secs(10));
        std::fs::File::options().read(true).write(true).open(path)
    });

    let signing = sign_if_grown(begun, &tree, &Silent, &context);
    tokio::pin!(signing);
    // There is one thread: a call that hung on it would let nobody else have a turn.
    tokio::select! {
        biased;
        _ = &mut signing => panic!("nothing is signed while the disk hangs"),
        () = tokio::task::yield_now() => {}
    }
    awaken.send(()).expect("the disk waits for it");
    let _disk = unblocking.join().expect("it does not panic");
    assert!(matches!(signing.await, Err(Unsigned::Failed(_))), "a pipe cannot be written through");
    assert!(tree.sizes().is_empty());
}
