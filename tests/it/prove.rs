//! Proofs of entries, as a stranger checks them: with the file and the log's key alone.

use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::events::{LANES, next_event};
use crate::support::forge;
use crate::support::ledger::check_ledger;
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::signed::{fill, log_key, sign, sign_at, signed, store, verifier_key};
use crate::support::world::World;
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use tlog::tree::TreeHead;

/// No configuration, no servers: what a stranger has.
async fn verify(file: &Path, arguments: &[&str]) -> Output {
    let file = file.to_str().expect("UTF-8");
    ledgerd(&[&["verify-proof", file], arguments].concat(), &Environment::new()).await
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text_of(output)))
}

async fn prove_to(world: &World, file: &Path, arguments: &[&str]) -> Value {
    let out = ["--out", file.to_str().expect("UTF-8"), "--json"];
    let output = world.ledgerd(&[&["prove"], arguments, &out].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", text_of(&output));
    json(&output)
}

#[tokio::test]
async fn a_stranger_sees_what_became_of_every_kind_of_entry() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    for lane in LANES {
        published.publish(&world.publisher, next_event(lane).good()).await;
    }
    let twice = next_event("EXEC");
    published.publish(&world.publisher, twice.good()).await;
    published.publish(&world.publisher, twice.again()).await;
    let conflict = twice.clone().with("task_id", "TASK-other").bad("conflict");
    published.publish(&world.publisher, conflict).await;
    let bad = next_event("SEC").without("actor").bad("missing_field");
    published.publish_with_headers(&world.publisher, &[("Trace", "a: b")], bad).await;
    let block = b"NATS/1.0\r\nno colon\r\n\r\n";
    published.publish_raw(&world.publisher, block, next_event("VOTE").good()).await;
    check_ledger(&world, &published).await;
    let checkpoint = sign(&world.database).await;
    let size = checkpoint.head().size;

    let folder = scratch_folder("proofs");
    let file = folder.path().join("one.tlog-proof");
    let key = verifier_key();
    let mut dispositions = Vec::new();
    for index in 0..size {
        prove_to(&world, &file, &["--index", &index.to_string()]).await;
        let output = verify(&file, &["--key", &key, "--json"]).await;
        assert!(output.status.success(), "{index}: {}", text_of(&output));
        let proven = json(&output);
        assert_eq!((proven["index"].as_u64(), proven["tree_size"].as_u64()), (Some(index), Some(size)));
        let subject = proven["subject"].as_str().expect("a subject");
        let disposition = proven["disposition"].as_str().expect("one of three").to_owned();
        let of_stream = published
            .all()
            .iter()
            .find(|it| proven["stream"] == "LEDGER" && proven["sequence"].as_u64() == Some(it.sequence));
        if let Some(publication) = of_stream {
            assert_eq!(subject, publication.outgoing.subject);
            let payload = String::from_utf8_lossy(&publication.outgoing.payload);
            assert_eq!(proven["payload"].as_str(), Some(&*payload), "a duplicate's bytes are its first copy's");
            assert_eq!(proven["headers"].is_null(), publication.headers.in_custody().is_none());
        } else {
            assert!(proven["payload"].as_str().expect("a migration").contains("SCHEMA_MIGRATION"));
        }
        assert_eq!(proven["reason"].is_null(), disposition != "rejected", "{proven}");
        dispositions.push(disposition);
    }
    let count = |disposition: &str| dispositions.iter().filter(|found| *found == disposition).count();
    assert_eq!((count("duplicate"), count("rejected")), (1, 2));
    assert_eq!(count("recorded") + 3, dispositions.len());

    // By its name: the recorded one is meant, and the others are listed.
    let report = prove_to(&world, &file, &[twice.event_id(), "--lane", "EXEC"]).await;
    let others: Vec<_> =
        report["others"].as_array().expect("a list").iter().map(|it| it["disposition"].clone()).collect();
    assert_eq!(
        (report["disposition"].as_str(), others),
        (Some("recorded"), vec!["duplicate".into(), "rejected".into()])
    );
    let listed = world.ledgerd_ok(&["prove", twice.event_id(), "--list"]).await;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let text = verify(&file, &["--key", &key, "--event-id", twice.event_id()]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("PROVEN: this record is in the log example.com/ledger at index"), "{text}");
    let rejected = report["others"].as_array().expect("a list").iter().find(|it| it["disposition"] == "rejected");
    let index = rejected.expect("a conflict")["index"].to_string();
    prove_to(&world, &folder.path().join("rejected"), &["--index", &index]).await;
    let text = verify(&folder.path().join("rejected"), &["--key", &key]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.starts_with("PROVEN: this REJECTED message, which is no record,"), "{text}");
    assert!(text.contains("\n    {\""), "the publisher's bytes are indented: {text}");
    let other = verify(&file, &["--key", &key, "--event-id", "EXEC-BRM-CTO-1"]).await;
    assert_eq!(other.status.code(), Some(3), "{}", text_of(&other));
    assert_eq!(world.ledgerd(&["prove", twice.event_id(), "--lane", "VOTE"]).await.status.code(), Some(1));

    // Without the bytes the proof still stands.
    prove_to(&world, &file, &[twice.event_id(), "--without-content"]).await;
    let proven = json(&verify(&file, &["--key", &key, "--json"]).await);
    assert_eq!((&proven["proven"], &proven["payload"]), (&Value::Bool(true), &Value::Null));
    drop(daemon);
}

#[tokio::test]
async fn entries_are_proven_at_the_edges_of_tiles() {
    let world = World::builder().without_streams().start().await;
    let folder = scratch_folder("proofs");
    let first = world.database.count("select size from ledger.tree_head").await.unsigned_abs();
    for size in [first, first + 1, 255, 256, 257, 511, 65_535, 65_536, 65_537] {
        fill(&world.database, size).await;
        sign(&world.database).await;
        for index in [0, size / 2, size - 1] {
            let file = folder.path().join(format!("{size}-{index}.tlog-proof"));
            prove_to(&world, &file, &["--index", &index.to_string()]).await;
            let output = verify(&file, &["--key", &verifier_key(), "--json"]).await;
            assert!(output.status.success(), "{index} of {size}: {}", text_of(&output));
            let proven = json(&output);
            assert_eq!((proven["index"].as_u64(), proven["tree_size"].as_u64()), (Some(index), Some(size)));
        }
    }
    // Any other key, and any other file, is refused.
    let file = folder.path().join("65537-65536.tlog-proof");
    let other = log_key("example.com/ledger", 9).verifier().to_string();
    assert_eq!(verify(&file, &["--key", &other]).await.status.code(), Some(3));
    let other = log_key("example.com/other", 1).verifier().to_string();
    let output = verify(&file, &["--key", &other]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(text_of(&output).contains("expected a checkpoint of the log example.com/other"), "{}", text_of(&output));
    let good = std::fs::read(&file).expect("it was just written");
    for at in (0..good.len()).step_by(good.len() / 12) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, bad).expect("ours");
        let output = verify(&file, &["--key", &verifier_key()]).await;
        assert_eq!(output.status.code(), Some(3), "{at}: {}", text_of(&output));
        assert!(text_of(&output).contains("NOT PROVEN"));
    }
    assert_eq!(verify(&folder.path().join("none"), &["--key", &verifier_key()]).await.status.code(), Some(1));
    assert_eq!(verify(&file, &["--key", "none"]).await.status.code(), Some(64));
    assert_eq!(verify(&file, &[]).await.status.code(), Some(64));
    let many = ["--key", &verifier_key(), "--witnesses-min", "1"];
    assert_eq!(verify(&file, &many).await.status.code(), Some(64));
}

#[tokio::test]
async fn what_cannot_be_proven_says_what_to_do() {
    let world = World::builder().without_streams().start().await;
    fill(&world.database, 20).await;
    let failed = async |arguments: &[&str]| {
        let output = world.ledgerd(arguments).await;
        (output.status.code(), text_of(&output))
    };
    let (code, text) = failed(&["prove", "FILLED-19", "--out", "-"]).await;
    assert!(code == Some(1) && text.contains("no checkpoint was ever signed") && text.contains("keygen"), "{text}");
    sign_at(&world.database, 19).await;
    let (code, text) = failed(&["prove", "FILLED-19", "--out", "-"]).await;
    assert!(code == Some(1) && text.contains("entry 19 is not under a signed checkpoint yet"), "{text}");
    let (code, text) = failed(&["prove", "EXEC-NOBODY-1", "--out", "-"]).await;
    assert!(code == Some(1) && text.contains("no entry of EXEC-NOBODY-1"), "{text}");
    assert_eq!(failed(&["prove"]).await.0, Some(64));
    let proof = world.ledgerd_ok(&["prove", "FILLED-18", "--out", "-"]).await;
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\nextra "), "{proof}");

    // It is found while the daemon signs.
    let waiting = tokio::join!(world.ledgerd(&["prove", "FILLED-19", "--out", "-"]), sign(&world.database));
    assert!(waiting.0.status.success(), "{}", text_of(&waiting.0));

    // A metric has no name of its own, so two of them are for the caller to tell apart.
    forge::arm(&world.database).await;
    world.database.execute("update ledger.entry set record_id = 'FILLED-18' where leaf_index = 17").await;
    let (code, text) = failed(&["prove", "FILLED-18", "--out", "-"]).await;
    assert!(code == Some(64) && text.contains("--index"), "{text}");
    let (code, text) = failed(&["prove", "--index", "17", "--out", "-"]).await;
    assert!(code == Some(3) && text.contains("entry 17 is not what was logged"), "{text}");
    world.database.execute("update ledger.entry set payload = 'x' where leaf_index = 18").await;
    let (code, text) = failed(&["prove", "--index", "18", "--out", "-"]).await;
    assert!(code == Some(3) && text.contains("entry 18 is not what was logged"), "{text}");

    // A checkpoint of another tree.
    let head = TreeHead { size: 20, root: [7; 32] };
    store(&world.database, &signed(head, &log_key("example.com/ledger/2", 1))).await;
    let (code, text) = failed(&["prove", "FILLED-16", "--out", "-"]).await;
    assert!(code == Some(3) && text.contains("not the one that was signed at size 20"), "{text}");
}
