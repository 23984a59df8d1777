use super::*;
use crate::log::stored_tree::Unread;
use tlog::checkpoint::Log;
use tlog::cosignature::{self, Timestamp};
use tlog::key::KeyName;
use tlog::note::SignerKey;
use tlog::plan::{Hashes, RootPlan};
use tlog::proof::ConsistencyProof;
use tlog::tile::HashRange;
use tlog::tree::{Frontier, Hash, Subtree, leaf_hash};
use tlog::witness::CosignRefusal;

struct KnownTree {
    leaves: Vec<Hash>,
}

impl KnownTree {
    /// From the leaf `forked` on it is another log's.
    fn new(size: u64, forked: u64) -> Self {
        let leaf = |index: u64| leaf_hash(&(index + (u64::from(index >= forked) << 40)).to_be_bytes());
        Self { leaves: (0..size).map(leaf).collect() }
    }

    fn stored(&self) -> Hashes {
        let mut completed: Vec<Subtree> = Vec::new();
        let mut frontier = Frontier::EMPTY;
        self.leaves.iter().for_each(|leaf| frontier.append(*leaf, &mut completed));
        let leaves = (0..).zip(&self.leaves).map(|(index, hash)| (0, index, *hash));
        let subtrees = completed.iter().map(|subtree| {
            (u8::try_from(subtree.level).expect("small"), u64::try_from(subtree.index).expect("small"), subtree.hash)
        });
        leaves.chain(subtrees).collect()
    }

    fn checkpoint(&self, size: u64) -> SignedCheckpoint {
        let head = RootPlan::new(size).build(&self.stored()).expect("all is stored");
        let first = ConsistencyProof { path: Vec::new() };
        SignedCheckpoint::sign(head, &TreeHead::EMPTY, &first, &log_key()).expect("any tree grew out of nothing")
    }
}

impl StoredTree for KnownTree {
    async fn hashes(&self, _: &[HashRange]) -> Result<Hashes, Unread> {
        Ok(self.stored())
    }

    async fn leaves(&self, _: u64, _: u64) -> Result<Vec<Vec<u8>>, Unread> {
        Err(Unread::Away("nobody asks for leaves here".to_owned()))
    }
}

fn log_key() -> SignerKey {
    SignerKey::from_seed(KeyName::parse("example.com/ledger").expect("a name"), &[1; 32]).expect("a key")
}

fn witness_key(seed: u8) -> cosignature::WitnessSignerKey {
    let name = KeyName::parse(&format!("witness{seed}.example")).expect("a name");
    cosignature::WitnessSignerKey::from_seed(name, &[seed; 32]).expect("a key")
}

fn witness(seed: u8) -> WitnessEndpoint {
    WitnessEndpoint::parse(&format!("https://witness{seed}.example/w/ {}", witness_key(seed).verifier()))
        .expect("a witness")
}

/// Witnesses in memory, as the specification has them; or one answer to everything.
#[derive(Default)]
struct FakeWitness {
    latest: Mutex<std::collections::BTreeMap<u8, TreeHead>>,
    requests: Mutex<usize>,
    answers: Option<Reply>,
}

impl WitnessClient for FakeWitness {
    async fn post(&self, url: &str, body: String) -> Result<Reply, String> {
        *self.requests.lock() += 1;
        if let Some(answer) = &self.answers {
            return Ok(answer.clone());
        }
        let seed = url.strip_prefix("https://witness").and_then(|rest| rest.strip_suffix(".example/w/add-checkpoint"));
        let seed: u8 = seed.and_then(|seed| seed.parse().ok()).ok_or("no such witness")?;
        let mut latest = self.latest.lock();
        let logs = [Log::of_key(log_key().verifier().clone())];
        let authentic = AddCheckpoint::parse(body.as_bytes()).expect("a request").authenticate(&logs).expect("ours");
        let (status, content_type, body) = match authentic.judge(latest.get(&seed).copied()) {
            Ok(accepted) => {
                latest.insert(seed, accepted.checkpoint().head());
                let at = Timestamp::from_posix_seconds(1_771_609_634).expect("a time");
                (200, "text/plain", accepted.cosign(&witness_key(seed), at).to_string())
            }
            Err(CosignRefusal::Stale { size }) => (409, STALE_CONTENT_TYPE, format!("{size}\n")),
            Err(refusal) => (refusal.status(), "text/plain", refusal.to_string()),
        };
        Ok(Reply { status, content_type: Some(content_type.to_owned()), body })
    }
}

async fn cosign(
    witness: &WitnessEndpoint,
    client: &FakeWitness,
    tree: &KnownTree,
    size: u64,
) -> Result<SignedCheckpoint, NotCosigned> {
    witness.cosign(&tree.checkpoint(size), tree, client).await
}

#[tokio::test]
async fn a_witness_is_asked_from_where_it_stands() {
    let (tree, client) = (KnownTree::new(700, u64::MAX), FakeWitness::default());
    let mine = witness(1);
    assert!(cosign(&mine, &client, &tree, 3).await.is_ok());
    assert!(cosign(&mine, &client, &tree, 300).await.is_ok());
    assert_eq!(*client.requests.lock(), 2, "it is known from where");
    // A program that was started anew does not know, and is told.
    assert!(cosign(&witness(1), &client, &tree, 700).await.is_ok());
    assert_eq!(*client.requests.lock(), 4);
    // The first one finds that the other was there, also for the very same tree.
    assert!(cosign(&mine, &client, &tree, 700).await.is_ok());
    assert_eq!(cosign(&mine, &client, &tree, 600).await, Err(NotCosigned::Ahead { size: 700 }));
}

#[tokio::test]
async fn a_fork_is_told_from_a_witness_that_is_away() {
    let client = FakeWitness::default();
    assert!(cosign(&witness(1), &client, &KnownTree::new(300, u64::MAX), 300).await.is_ok());
    let forked = KnownTree::new(700, 299);
    assert!(matches!(cosign(&witness(1), &client, &forked, 300).await, Err(NotCosigned::Forked(_))));
    assert!(matches!(cosign(&witness(1), &client, &forked, 700).await, Err(NotCosigned::Forked(_))));
    for (status, content_type, body, away) in [
        (500, "text/plain", "its disk is full", true),
        (503, "text/plain", "", true),
        (404, "text/plain", "unknown log", false),
        (200, "text/plain", "", false),
        (200, "text/plain", "— witness1.example AAAA\n", false),
        (409, STALE_CONTENT_TYPE, "many\n", false),
    ] {
        let answers = Some(Reply { status, content_type: Some(content_type.to_owned()), body: body.to_owned() });
        let refused = cosign(&witness(1), &FakeWitness { answers, ..FakeWitness::default() }, &forked, 300).await;
        let found = refused.expect_err("no cosignature");
        assert_eq!(matches!(found, NotCosigned::Away(_)), away, "{status} {body}: {found}");
    }
    let endless =
        Some(Reply { status: 409, content_type: Some(STALE_CONTENT_TYPE.to_owned()), body: "7\n".to_owned() });
    let client = FakeWitness { answers: endless, ..FakeWitness::default() };
    assert!(matches!(cosign(&witness(1), &client, &forked, 300).await, Err(NotCosigned::Away(_))));
    assert_eq!(*client.requests.lock(), TRIES);
}

#[tokio::test]
async fn one_witness_that_is_away_does_not_cost_the_others_cosignature() {
    let absent =
        WitnessEndpoint::parse(&format!("http://nowhere.example {}", witness_key(9).verifier())).expect("a witness");
    let all = vec![witness(1), absent, witness(2)];
    let witnesses = Witnesses::new(all, FakeWitness::default(), Duration::from_secs(5));
    let tree = KnownTree::new(5, u64::MAX);
    let mut checkpoint = tree.checkpoint(5);
    let outcomes = witnesses.cosign(&mut checkpoint, &tree).await;
    let good: Vec<_> = outcomes.iter().map(|(name, outcome)| (*name, outcome.is_ok())).collect();
    assert_eq!(good, [("witness1.example", true), ("witness9.example", false), ("witness2.example", true)]);
    assert_eq!(cosignature::cosignatures(&checkpoint, &witnesses.keys()).expect("valid").len(), 2);
}

#[test]
fn a_witness_is_a_url_and_a_key() {
    for text in ["", "https://witness.example", "ftp://witness.example key", "https://witness.example key"] {
        assert!(WitnessEndpoint::parse(text).is_err(), "{text}");
    }
}
