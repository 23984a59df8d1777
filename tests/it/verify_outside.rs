//! What lies outside the database binds it: every line of an anchor, and the word of the witnesses.

use crate::support::postgres::Database;
use crate::support::process::scratch_folder;
use crate::support::signed::{head_at, key, log_key, sign_at, signed, store, verifier_key};
use crate::support::world::World;
use crate::verify::{Said, settled_world, unguarded, verify};
use serde_json::json;
use std::path::Path;
use tlog::checkpoint::{Log, SignedCheckpoint};
use tlog::cosignature::{Timestamp, WitnessSignerKey};
use tlog::key::KeyName;
use tlog::tree::TreeHead;
use tlog::witness::AddCheckpoint;

/// Some checkpoints of a ledger, and an anchor that holds them.
struct AnchoredLog {
    world: World,
    database: Database,
    checkpoints: Vec<SignedCheckpoint>,
}

impl AnchoredLog {
    async fn new() -> Self {
        let world = settled_world().await;
        let database = unguarded(&world.database).await;
        let size = database.count("select size from ledger.tree_head").await.unsigned_abs();
        let mut checkpoints = Vec::new();
        for size in [10, 100, 200, size] {
            checkpoints.push(sign_at(&database, size).await);
        }
        Self { world, database, checkpoints }
    }

    fn notes(&self) -> Vec<String> {
        self.checkpoints.iter().map(ToString::to_string).collect()
    }

    /// Verifies against an anchor file, with the log's key.
    async fn verify(&self, anchor: &Path, words: &[&str]) -> Said {
        let (key, anchor) = (verifier_key(), anchor.to_str().expect("UTF-8"));
        verify(&self.world, &self.database, &[&["--anchor", anchor, "--key", &key], words].concat()).await
    }
}

fn write_anchor(path: &Path, notes: &[String]) {
    let lines: Vec<String> = notes.iter().map(|note| json!({ "checkpoint": note }).to_string() + "\n").collect();
    std::fs::write(path, lines.concat()).expect("the folder is ours");
}

/// Another tree of that size, signed by the log's own key.
fn forked(checkpoint: &SignedCheckpoint) -> String {
    signed(TreeHead { root: [7; 32], ..checkpoint.head() }, &key()).to_string()
}

fn witness_key(seed: u8) -> WitnessSignerKey {
    let name = KeyName::parse(&format!("witness{seed}.example")).expect("a name");
    WitnessSignerKey::from_seed(name, &[seed; 32]).expect("a key")
}

/// Keeps a witness's cosignature, as the daemon does when the witness answers.
async fn cosign(database: &Database, checkpoint: &SignedCheckpoint, seed: u8) {
    let logs = [Log::of_key(key().verifier().clone())];
    let request = AddCheckpoint::parse(format!("old 0\n\n{checkpoint}").as_bytes()).expect("a request");
    let accepted = request.authenticate(&logs).expect("ours").judge(None).expect("its first");
    let at = Timestamp::from_posix_seconds(1_771_609_634).expect("a time");
    let line = accepted.cosign(&witness_key(seed), at).to_string();
    let (size, head) = (checkpoint.head().size, format!("witness{seed}.example"));
    database
        .execute(&format!("insert into ledger.cosignature (origin, tree_size, witness, line) values ('example.com/ledger', {size}, '{head}', '{line}')"))
        .await;
}

#[tokio::test]
async fn every_line_of_an_anchor_is_checked_and_a_signed_contradiction_is_the_proof_of_a_fork() {
    let log = AnchoredLog::new().await;
    let folder = scratch_folder("anchor");
    let (anchor, older) = (folder.path().join("anchor"), folder.path().join("anchor.1"));
    let good = log.notes();
    write_anchor(&anchor, &good);
    let said = log.verify(&anchor, &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);

    let with = |place: usize, note: String| {
        let mut notes = good.clone();
        notes[place] = note;
        notes
    };
    let fork = forked(&log.checkpoints[1]);
    write_anchor(&anchor, &with(1, fork.clone()));
    let said = log.verify(&anchor, &[]).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.differences()[0].ends_with("100: root") && said.text.contains("the proof of a fork"), "{}", said.text);

    write_anchor(&anchor, &with(2, signed(log.checkpoints[2].head(), &log_key("example.com/ledger", 9)).to_string()));
    let said = log.verify(&anchor, &[]).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.differences()[0].ends_with("checkpoint 3: note"), "{}", said.text);

    write_anchor(&older, &[good[0].clone(), fork]);
    write_anchor(&anchor, &good[2..]);
    let said = log.verify(&anchor, &[]).await;
    assert_eq!(said.code, Some(3), "the file that was put aside counts: {}", said.text);
}

#[tokio::test]
async fn a_checkpoint_that_an_anchor_has_and_the_database_lost_is_named() {
    let log = AnchoredLog::new().await;
    let folder = scratch_folder("anchor");
    let anchor = folder.path().join("anchor");
    write_anchor(&anchor, &log.notes());
    log.database.execute("delete from ledger.checkpoint where tree_size = 100").await;
    let said = log.verify(&anchor, &[]).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert_eq!(said.differences(), ["ledger.checkpoint 100: tree_size"]);

    // What was signed last may not be stored yet.
    store(&log.database, &log.checkpoints[1]).await;
    log.database.execute("delete from ledger.checkpoint where tree_size > 200").await;
    let said = log.verify(&anchor, &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
}

#[tokio::test]
async fn a_cosignature_is_what_its_witness_signed() {
    let log = AnchoredLog::new().await;
    let folder = scratch_folder("anchor");
    let anchor = folder.path().join("anchor");
    write_anchor(&anchor, &log.notes());
    let newest = log.checkpoints.last().expect("some");
    cosign(&log.database, newest, 21).await;
    cosign(&log.database, &log.checkpoints[0], 21).await;
    let key = witness_key(21).verifier().to_string();
    let said = log.verify(&anchor, &["--witness", &key]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);

    let changes = [
        // A line that was moved is of another tree; one that was changed is of none.
        ("update ledger.cosignature set tree_size = 100 where tree_size = 10", "100 witness21.example: line"),
        ("update ledger.cosignature set tree_size = 11 where tree_size = 10", "11 witness21.example: tree_size"),
        (
            "update ledger.cosignature set witness = 'another.example' where tree_size = 10",
            "10 another.example: witness",
        ),
        ("update ledger.cosignature set line = 'x' where tree_size = 10", "10 witness21.example: line"),
    ];
    log.database.execute("create table kept as table ledger.cosignature").await;
    for (change, named) in changes {
        log.database.execute(change).await;
        let said = log.verify(&anchor, &["--witness", &key]).await;
        assert_eq!(said.code, Some(3), "{change}: {}", said.text);
        assert_eq!(said.differences(), [format!("ledger.cosignature {named}")], "{change}");
        log.database.execute("delete from ledger.cosignature; insert into ledger.cosignature table kept").await;
    }
}

#[tokio::test]
async fn a_stolen_key_alone_signs_nothing_that_passes() {
    let log = AnchoredLog::new().await;
    let folder = scratch_folder("anchor");
    let anchor = folder.path().join("anchor");
    let keys = [21, 22].map(|seed| witness_key(seed).verifier().to_string());
    let newest = log.checkpoints.last().expect("some").clone();
    let words = ["--witness", &keys[0], "--witness", &keys[1]];
    write_anchor(&anchor, &log.notes());
    cosign(&log.database, &newest, 21).await;
    let said = log.verify(&anchor, &words).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("expected the cosignatures of 2 known witnesses, found 1"), "{}", said.text);
    let said = log.verify(&anchor, &[&words[..], &["--witnesses-min", "1"]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.text);

    // Whoever has the key signs what the witnesses have not seen.
    log.database.execute("delete from ledger.cosignature; delete from ledger.checkpoint").await;
    let head = head_at(&log.database, newest.head().size).await;
    store(&log.database, &signed(head, &key())).await;
    let nothing = folder.path().join("no-anchor");
    let said = log.verify(&nothing, &[]).await;
    assert_eq!(said.code, Some(0), "the key alone is content: {}", said.text);
    let said = log.verify(&nothing, &words[..2]).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("is not cosigned"), "{}", said.text);
}
