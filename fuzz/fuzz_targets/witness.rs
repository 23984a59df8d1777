//! A witness's request and its answer: whatever bytes are read as a request are written as the same bytes; and each proof in one
//! is judged, between any two trees.
//!
//! `make fuzz` runs it. In front of the request stand eight bytes, the size that the witness knows, and one, whether it knows any.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tlog::checkpoint::{Checkpoint, Log, SignedCheckpoint};
use tlog::key::KeyName;
use tlog::note::SignerKey;
use tlog::proof::ConsistencyProof;
use tlog::tree::TreeHead;
use tlog::witness::{AddCheckpoint, CosignRefusal};

static KEY: LazyLock<SignerKey> = LazyLock::new(|| {
    let name = KeyName::parse("example.com/behind-the-sofa").expect("a name");
    SignerKey::from_seed(name, &[7; 32]).expect("a key")
});

fuzz_target!(|input: (u64, bool, &[u8])| {
    let (latest, known, bytes) = input;
    let Ok(request) = AddCheckpoint::parse(bytes) else { return };
    assert_eq!(request.to_string().as_bytes(), bytes);
    let refusal = request.authenticate(&[Log::of_key(KEY.verifier().clone())]).expect_err("the log did not sign it");
    assert!([400, 403, 404].contains(&refusal.status()));
    judge_signed(bytes, latest, known);
});

/// The same proof with a checkpoint that the log signed: it leads nowhere, but from nothing or to the same tree.
fn judge_signed(bytes: &[u8], latest: u64, known: bool) {
    let Some((head, text)) = std::str::from_utf8(bytes).expect("a request").split_once("\n\n") else { return };
    let Some((text, _)) = text.rsplit_once("\n\n") else { return };
    let Ok(checkpoint) = Checkpoint::parse(&format!("{text}\n")) else { return };
    let first = ConsistencyProof { path: Vec::new() };
    let Ok(signed) = SignedCheckpoint::sign(checkpoint.head(), &TreeHead::EMPTY, &first, &KEY) else { return };
    let body = format!("{head}\n\n{signed}");
    let request = AddCheckpoint::parse(body.as_bytes()).expect("as it was written");
    let Ok(request) = request.authenticate(&[Log::of_key(KEY.verifier().clone())]) else { return };
    let latest = known.then_some(TreeHead { size: latest, root: checkpoint.head().root });
    match request.judge(latest) {
        Ok(accepted) => {
            let before = latest.unwrap_or(TreeHead::EMPTY);
            assert!(before.size == 0 || before == accepted.checkpoint().head());
        }
        Err(CosignRefusal::Stale { size }) => assert_eq!(size, latest.map_or(0, |latest| latest.size)),
        Err(refusal) => assert!([409, 422].contains(&refusal.status())),
    }
}
