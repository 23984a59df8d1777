//! Signed checkpoints: released as the tree grows, and never over a tree that is not the one that was signed before.

use crate::support::events::{good_events, next_event};
use crate::support::forge;
use crate::support::ledger::{check_ledger, settled};
use crate::support::process::scratch_folder;
use crate::support::proxy::{Direction, TcpProxy};
use crate::support::published::Published;
use crate::support::world::{Builder, World};
use crate::support::{SOON, eventually, when};
use futures_util::StreamExt as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LOG: &str = "example.com/ledger";
const KEY_FILE: &str = "LEDGERD__CHECKPOINT__KEY_FILE";
const ANCHOR_FILE: &str = "LEDGERD__CHECKPOINT__ANCHOR_FILE";

/// A world whose log is signed: its key and its anchor are in a folder of their own.
struct SignedLog {
    world: World,
    folder: TempDir,
    verifier_key: String,
}

impl SignedLog {
    async fn start(builder: Builder) -> Self {
        let folder = scratch_folder("log");
        let key = folder.path().join("key");
        let world = builder
            .env(KEY_FILE, path(&key))
            .env(ANCHOR_FILE, path(&folder.path().join("anchor")))
            .env("LEDGERD__CHECKPOINT__INTERVAL", "50ms")
            .start()
            .await;
        let said = world.ledgerd_ok(&["keygen", "--name", LOG, "--out", path(&key)]).await;
        Self { world, folder, verifier_key: said.trim().to_owned() }
    }

    fn anchor(&self) -> PathBuf {
        self.folder.path().join("anchor")
    }

    /// The notes of the anchor file, in their order.
    fn anchored(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.anchor()).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
        lines.filter_map(|line| line["checkpoint"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until the whole tree is signed, kept, and anchored.
    async fn signed_up_to_date(&self) -> String {
        eventually("the tree as it stands is signed", SOON, async || {
            let size = self.world.database.count("select size from ledger.tree_head").await;
            let signed = self.world.database.count("select coalesce(max(tree_size), 0) from ledger.checkpoint").await;
            when(signed == size, || format!("{signed} of {size} leaves"))
        })
        .await;
        self.anchored().pop().expect("what is kept was anchored before")
    }
}

/// Opens a note as others do: with an implementation that is not ours.
fn open(note: &str, verifier_key: &str) -> (String, i64) {
    let key = signed_note::StandardVerifier::new(verifier_key).expect("a verifier key that others read");
    let known = signed_note::VerifierList::new(vec![Box::new(key)]);
    let note = signed_note::Note::from_bytes(note.as_bytes()).expect("a note that others read");
    note.verify(&known).expect("the log's own signature");
    let text = String::from_utf8(note.text().to_vec()).expect("UTF-8");
    let mut lines = text.lines().map(str::to_owned);
    let origin = lines.next().expect("an origin");
    (origin, lines.next().expect("a size").parse().expect("a number"))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn a_tree_that_grows_is_signed_anchored_announced_and_shown() {
    let log = SignedLog::start(World::builder().limited_role()).await;
    let client = log.world.nats().connect().await;
    let mut heard = client.subscribe("ledger.checkpoint").await.expect("subscribed");
    client.flush().await.expect("the server has it");
    let _daemon = log.world.daemon().await;
    let mut published = Published::default();
    for _ in 0..5 {
        published.publish_all(&log.world.publisher, good_events(300)).await;
        settled(&log.world, &published).await;
        let note = log.signed_up_to_date().await;
        let (origin, size) = open(&note, &log.verifier_key);
        assert_eq!((origin.as_str(), size), (LOG, log.world.database.count("select size from ledger.tree_head").await));
        let shown = log.world.ledgerd_ok(&["checkpoint"]).await;
        assert_eq!(shown, note);
    }
    let message = heard.next().await.expect("it is announced");
    open(std::str::from_utf8(&message.payload).expect("UTF-8"), &log.verifier_key);
    // The check recomputes the root that was signed.
    check_ledger(&log.world, &published).await;
    let differing = "select count(*) from ledger.checkpoint join ledger.tree_head on size = tree_size where checkpoint.root <> tree_head.root";
    assert_eq!(log.world.database.count(differing).await, 0);
}

#[tokio::test]
async fn a_restored_backup_is_not_signed_until_the_loss_is_declared() {
    let mut log = SignedLog::start(World::builder()).await;
    let mut published = Published::default();
    published.publish_all(&log.world.publisher, good_events(150)).await;
    let mut daemon = log.world.daemon().await;
    check_ledger(&log.world, &published).await;
    log.signed_up_to_date().await;
    daemon.sigterm();
    daemon.wait_exit().await;
    let backup = log.world.database.copy().await;

    let mut later = published.clone();
    let mut daemon = log.world.daemon().await;
    later.publish_all(&log.world.publisher, good_events(150)).await;
    check_ledger(&log.world, &later).await;
    log.signed_up_to_date().await;
    daemon.sigterm();
    daemon.wait_exit().await;
    let signed_before = log.anchored().len();

    // Its acknowledged messages are gone from the consumers; what comes now follows the older state.
    log.world.use_database(backup);
    let mut daemon = log.world.daemon().await;
    daemon.says("refusing to sign the tree: it has").await;
    daemon.says("ledgerd checkpoint --new-epoch").await;
    assert!((daemon.metric("ledgerd_checkpoint_refusing", "").await - 1.0).abs() < f64::EPSILON);
    log.world.publisher.publish(&next_event("EXEC").subject(), next_event("EXEC").payload()).await;
    eventually("records go on being stored", SOON, async || {
        let rows = log
            .world
            .database
            .count("select count(*) from audit_events where task_id is not distinct from task_id")
            .await;
        when(rows > 0, || "no row".to_owned())
    })
    .await;
    assert_eq!(log.anchored().len(), signed_before, "nothing was signed");

    let declared = log.world.ledgerd_ok(&["checkpoint", "--new-epoch", "the disk was lost"]).await;
    let key = declared.lines().last().expect("the new verifier key").to_owned();
    eventually("the log goes on under its new name", SOON, async || {
        when(log.anchored().len() > signed_before, || "nothing is signed".to_owned())
    })
    .await;
    let (origin, _) = open(&log.anchored().pop().expect("signed"), &key);
    assert_eq!(origin, format!("{LOG}/2"));
    eventually("it refuses no more", SOON, async || {
        let refusing = daemon.metric("ledgerd_checkpoint_refusing", "").await;
        when(refusing < 0.5, || "it refuses".to_owned())
    })
    .await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
}

#[tokio::test]
async fn a_tree_that_was_rewritten_is_not_signed_over() {
    let log = SignedLog::start(World::builder()).await;
    let mut published = Published::default();
    published.publish_all(&log.world.publisher, good_events(150)).await;
    let daemon = log.world.daemon().await;
    check_ledger(&log.world, &published).await;
    log.signed_up_to_date().await;
    let signed_before = log.anchored().len();
    forge::arm(&log.world.database).await;
    log.world.database.execute("update ledger.entry set leaf_hash = sha256('forged') where leaf_index = 7").await;
    forge::disarm_and_guard(&log.world.database).await;
    published.publish_all(&log.world.publisher, good_events(15)).await;
    daemon.says("refusing to sign the tree").await;
    assert_eq!(log.anchored().len(), signed_before, "nothing was signed");
}

#[tokio::test]
async fn killed_between_the_anchor_and_the_database() {
    let log = SignedLog::start(World::builder().postgres_proxy()).await;
    let proxy: &TcpProxy = log.world.postgres_proxy();
    let mut hold = proxy.hold_when(Direction::ToServer, b"insert into ledger.checkpoint");
    let mut daemon = log.world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&log.world.publisher, good_events(150)).await;
    hold.happened().await;
    daemon.sigkill();
    proxy.drop_held().await;
    assert!(!log.anchored().is_empty(), "the anchor comes first");
    let _again = log.world.daemon().await;
    check_ledger(&log.world, &published).await;
    let note = log.signed_up_to_date().await;
    open(&note, &log.verifier_key);
}

#[tokio::test]
async fn two_instances_with_an_anchor_each_sign_one_tree() {
    let log = SignedLog::start(World::builder()).await;
    let second_anchor = log.folder.path().join("anchor-of-the-second");
    let first = log.world.daemon().await;
    let mut second = log.world.spawn_daemon_with(&[(ANCHOR_FILE, path(&second_anchor))]);
    second.ready().await;
    let mut published = Published::default();
    for _ in 0..4 {
        published.publish_all(&log.world.publisher, good_events(400)).await;
        log.signed_up_to_date().await;
    }
    check_ledger(&log.world, &published).await;
    for daemon in [&first, &second] {
        assert!(daemon.metric("ledgerd_checkpoint_refusing", "").await < 0.5, "{}", daemon.log());
    }
    assert!(second_anchor.exists());
}

#[tokio::test]
async fn an_anchor_that_cannot_be_written_is_told_and_holds_up_no_record() {
    let mut log = SignedLog::start(World::builder()).await;
    let nowhere = log.folder.path().join("no/such/folder/anchor");
    log.world.environment.insert(ANCHOR_FILE.to_owned(), path(&nowhere).to_owned());
    let daemon = log.world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&log.world.publisher, good_events(150)).await;
    check_ledger(&log.world, &published).await;
    daemon.says("cannot write the checkpoint to").await;
    assert_eq!(log.world.database.count("select count(*) from ledger.checkpoint").await, 0, "unanchored is unreleased");
    std::fs::create_dir_all(nowhere.parent().expect("a folder")).expect("made");
    log.signed_up_to_date_in_the_database().await;
}

impl SignedLog {
    async fn signed_up_to_date_in_the_database(&self) {
        eventually("it is signed at last", SOON, async || {
            let signed = self.world.database.count("select count(*) from ledger.checkpoint").await;
            when(signed > 0, || "nothing is signed".to_owned())
        })
        .await;
    }
}

#[tokio::test]
async fn a_key_is_made_once_and_read_by_nobody_else() {
    let log = SignedLog::start(World::builder()).await;
    let key = log.folder.path().join("key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = log.world.ledgerd(&["keygen", "--name", LOG, "--out", path(&key)]).await;
    assert_eq!(again.status.code(), Some(1));
    let bad = log.world.ledgerd(&["keygen", "--name", "a b", "--out", path(&key)]).await;
    assert_eq!(bad.status.code(), Some(64));
}
