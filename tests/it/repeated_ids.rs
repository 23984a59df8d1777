//! `audit.repeated_id = "distinct"`: other content under a stored id is another event, and has an id of its own.

use crate::support::daemon::Daemon;
use crate::support::events::{event, spec_hash};
use crate::support::postgres::Database;
use crate::support::process::scratch_folder;
use crate::support::records::REGISTRIES;
use crate::support::requeued::newest_letter;
use crate::support::world::{Builder, World};
use crate::support::{SOON, eventually, when};
use async_nats::jetstream::message::PublishMessage;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const LANE: &str = "ledger.SEC.WRK-006";
const ID: &str = "SEC-WRK-006-0f1e2d3c4b5a6978";

fn builder() -> Builder {
    World::builder()
        .env("LEDGERD__AUDIT__EVENT_ID", "any")
        .env("LEDGERD__AUDIT__MISSING_TIMESTAMP", "stamp")
        .env("LEDGERD__AUDIT__REPEATED_ID", "distinct")
}

/// An event of one id; its task tells it from the others.
fn of_task(task: &str) -> Vec<u8> {
    event("SEC", "WRK-006", 1).with("event_id", ID).with("task_id", task).payload()
}

fn digits(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id that the first eight digits make.
fn second_id(payload: &[u8]) -> String {
    format!("{ID}~{}", &digits(payload)[..8])
}

/// What became of each message, in the order of the stream: disposition and stored id.
async fn fates(world: &World, messages: usize) -> Vec<(String, String)> {
    eventually("every message is settled", SOON, async || {
        let mut connection = world.database.connect().await;
        let fates: Vec<(String, String)> = sqlx::query_as(
            "select disposition, coalesce(record_id, '') from ledger.entry join ledger.epoch using (epoch)
            where stream = 'LEDGER' and sequence > 0 order by sequence",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
        when(fates.len() >= messages, || format!("{} of {messages}", fates.len()))?;
        Ok(fates)
    })
    .await
}

async fn publish_all(world: &World, payloads: &[&[u8]]) {
    for payload in payloads {
        world.publisher.publish(LANE, payload.to_vec()).await;
    }
}

fn recorded(id: &str) -> (String, String) {
    ("recorded".to_owned(), id.to_owned())
}

fn duplicate(id: &str) -> (String, String) {
    ("duplicate".to_owned(), id.to_owned())
}

/// In one batch, and each in a batch of its own.
#[tokio::test]
async fn a_copy_is_the_same_event_whether_the_other_came_before_or_after() {
    for in_one_batch in [true, false] {
        let world = builder().start().await;
        let (a, b) = (of_task("a"), of_task("b"));
        let mut daemon: Option<Daemon> = None;
        if !in_one_batch {
            daemon = Some(world.daemon().await);
        }
        for (count, payload) in (1..).zip([&a, &b, &a, &b]) {
            publish_all(&world, &[payload]).await;
            if !in_one_batch {
                fates(&world, count).await;
            }
        }
        if in_one_batch {
            daemon = Some(world.daemon().await);
        }
        let second = second_id(&b);
        let expected = [recorded(ID), recorded(&second), duplicate(ID), duplicate(&second)];
        assert_eq!(fates(&world, 4).await, expected, "in one batch: {in_one_batch}");
        let hash = "select count(*) from audit_events_integrity join audit_events using (event_id) where intact";
        assert_eq!(world.database.count(&format!("{hash} and event_id like '{ID}%'")).await, 2);
        world.ledgerd_ok(&["verify"]).await;
        drop(daemon);
    }
}

#[tokio::test]
async fn a_given_hash_is_checked_against_the_given_id_and_the_stored_one_covers_the_stored_id() {
    let world = builder().start().await;
    let _daemon = world.daemon().await;
    let first = event("SEC", "WRK-006", 1).with("event_id", ID);
    let second = first.clone().with("task_id", "b").hashed().payload();
    let wrong = first.clone().with("task_id", "c").with("integrity_hash", "0".repeat(64)).payload();
    publish_all(&world, &[&first.hashed().payload(), &second, &wrong]).await;
    let stored = second_id(&second);
    let fates = fates(&world, 3).await;
    assert_eq!(fates[1], recorded(&stored));
    assert_eq!(fates[2].0, "rejected");
    let said: Value = serde_json::from_slice(&second).expect("JSON");
    let [actor, action, outcome, timestamp] =
        ["actor", "action", "outcome", "timestamp"].map(|field| said[field].as_str().expect("a text"));
    let hash = spec_hash(&stored, actor, action, outcome, timestamp);
    let row = format!("select count(*) from audit_events where event_id = '{stored}' and integrity_hash = '{hash}'");
    assert_eq!(world.database.count(&row).await, 1);
}

#[tokio::test]
async fn nobody_keeps_an_event_out_by_taking_its_next_id_first() {
    let world = builder().start().await;
    let _daemon = world.daemon().await;
    let (a, b) = (of_task("a"), of_task("b"));
    let squatter = event("SEC", "WRK-006", 2).with("event_id", second_id(&b)).payload();
    publish_all(&world, &[&squatter, &a, &b, &b]).await;
    let whole = format!("{ID}~{}", digits(&b));
    let expected = [recorded(&second_id(&b)), recorded(ID), recorded(&whole), duplicate(&whole)];
    assert_eq!(fates(&world, 4).await, expected);
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn an_id_that_fills_its_column_loses_its_end_to_the_digits() {
    let world = builder().start().await;
    let _daemon = world.daemon().await;
    let id = format!("SEC-{}", "x".repeat(251));
    let long = |task: &str| event("SEC", "WRK-006", 1).with("event_id", id.clone()).with("task_id", task).payload();
    let (a, b) = (long("a"), long("b"));
    publish_all(&world, &[&a, &b, &b]).await;
    let second = format!("{}~{}", &id[..246], &digits(&b)[..8]);
    assert_eq!(fates(&world, 3).await, [recorded(&id), recorded(&second), duplicate(&second)]);
    world.ledgerd_ok(&["verify"]).await;
}

/// Without a message id each is another event. With one it is the same, also when the stream has long forgotten the id.
#[tokio::test]
async fn an_event_without_a_timestamp_is_the_same_by_its_message_id_alone() {
    for in_one_batch in [true, false] {
        let world = builder().start().await;
        let forgets = json!({"duplicate_window": 100_000_000});
        change_stream(&world, &forgets).await;
        let event = event("SEC", "WRK-006", 1).with("event_id", ID).without("timestamp").payload();
        let jetstream = world.jetstream().await;
        let publish = async |message_id: &str| {
            let message = PublishMessage::build().payload(event.clone().into());
            let message = if message_id.is_empty() { message } else { message.message_id(message_id) };
            jetstream.send_publish(LANE, message).await.expect("sent").await.expect("stored").sequence
        };
        let mut daemon = None;
        if !in_one_batch {
            daemon = Some(world.daemon().await);
        }
        let mut sequence = 0;
        for message_id in ["m", "", "m", "", "n", "n", "m"] {
            let wanted = sequence + 1;
            // Until the stream has forgotten the id, it says that it has the message.
            sequence = eventually("the stream takes it as a new message", SOON, async || {
                let sequence = publish(message_id).await;
                when(sequence == wanted, || sequence.to_string())?;
                Ok(sequence)
            })
            .await;
            if !in_one_batch {
                fates(&world, usize::try_from(sequence).expect("few")).await;
            }
        }
        if in_one_batch {
            daemon = Some(world.daemon().await);
        }
        let fates = fates(&world, 7).await;
        let dispositions: Vec<&str> = fates.iter().map(|(disposition, _)| disposition.as_str()).collect();
        let expected = ["recorded", "recorded", "duplicate", "recorded", "recorded", "duplicate", "duplicate"];
        assert_eq!(dispositions, expected, "{fates:?}");
        assert_eq!((&fates[0].1, &fates[2].1, &fates[6].1), (&ID.to_owned(), &ID.to_owned(), &ID.to_owned()));
        assert_eq!(fates[4].1, format!("{ID}~{}", &digits(&[&event[..], b"n"].concat())[..8]));
        assert_eq!(fates[5].1, fates[4].1);
        world.ledgerd_ok(&["verify"]).await;
        drop(daemon);
    }
}

/// A replay has the same ids, and what was requeued is one event of two messages.
#[tokio::test]
async fn replays_requeues_and_receipts_know_the_stored_id() {
    let mut world = builder().start().await;
    let mut daemon = world.daemon().await;
    let (a, b) = (of_task("a"), of_task("b"));
    let unstamped = |action: &str| {
        event("SEC", "WRK-006", 1).with("event_id", ID).with("action", action).without("timestamp").payload()
    };
    publish_all(&world, &[&a, &b, &unstamped("TASK_INTAKE"), &unstamped("NEW_ACTION")]).await;
    assert_eq!(fates(&world, 4).await[3].0, "rejected");

    let emitted = [
        "--json",
        "emit",
        "--wait",
        "--actor",
        "WRK-006",
        "--action",
        "TASK_INTAKE",
        "--outcome",
        "SUCCESS",
        "--event-id",
        ID,
    ];
    let said: Value = serde_json::from_str(&world.ledgerd_ok(&emitted).await).expect("JSON");
    let told = said["receipt"]["event_id"].as_str().expect("an id").to_owned();
    assert!(told.starts_with(&format!("{ID}~")), "{said}");
    assert_eq!(fates(&world, 5).await[4], recorded(&told));

    // The action is allowed now.
    daemon.sigterm();
    daemon.wait_exit().await;
    let folder = scratch_folder("registry");
    let file = folder.path().join("new.yaml");
    std::fs::write(&file, "groups: [{name: New, actors: any, actions: {NEW_ACTION: {outcomes: [SUCCESS]}}}]")
        .expect("ours");
    let file = file.display().to_string();
    for environment in [&mut world.environment, &mut world.operator] {
        environment.insert("LEDGERD__REGISTRY__ACTIONS_EXTRA_FILES".to_owned(), file.clone());
    }
    let mut daemon = world.daemon().await;
    let reference = newest_letter(&world).await;
    world.ledgerd_ok(&["dlq", "requeue", &reference, "--by", "Ops"]).await;
    let fates_before = fates(&world, 6).await;
    assert_eq!(fates_before[5].0, "recorded");
    world.ledgerd_ok(&["verify"]).await;
    daemon.sigterm();
    daemon.wait_exit().await;

    // A new database takes the message that was rejected at its first place, and knows the requeued one again.
    world.use_database(Database::on(Arc::clone(world.database.cluster())).await);
    world.ledgerd_ok(&["migrate"]).await;
    world.database.execute(REGISTRIES).await;
    world.ledgerd_ok(&["replay"]).await;
    let fates_after = fates(&world, 6).await;
    assert_eq!(fates_after[..3], fates_before[..3]);
    assert_eq!(fates_after[4], fates_before[4]);
    assert_eq!((&fates_after[3], &fates_after[5].1), (&fates_before[5], &fates_before[5].1));
    assert_eq!(fates_after[5].0, "duplicate");
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn an_erased_event_does_not_come_back_and_keeps_no_other_out() {
    let world = builder().start().await;
    let _daemon = world.daemon().await;
    let (a, b) = (of_task("a"), of_task("b"));
    publish_all(&world, &[&a]).await;
    fates(&world, 1).await;
    let approval = event("SYS", "ARCHITECT", 1)
        .with("action", "DELETION_AUTHORIZED")
        .with("outcome", "APPROVED")
        .with("details", json!({"table": "audit_events", "ids": [ID], "reason": "it holds a password"}));
    world.publisher.publish(&approval.subject(), approval.payload()).await;
    fates(&world, 2).await;
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    publish_all(&world, &[&b, &a, &b]).await;
    let fates = fates(&world, 5).await;
    let second = second_id(&b);
    assert_eq!((&fates[2], &fates[4]), (&recorded(&second), &duplicate(&second)));
    assert_eq!(fates[3].0, "rejected");
    world.ledgerd_ok(&["verify"]).await;
}

/// Changes settings of the stream.
async fn change_stream(world: &World, changes: &Value) {
    let jetstream = world.jetstream().await;
    let info: Value = jetstream.request("STREAM.INFO.LEDGER", &json!({})).await.expect("it is there");
    let mut config = info["config"].clone();
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let answer: Value = jetstream.request("STREAM.UPDATE.LEDGER", &config).await.expect("it answers");
    assert!(answer["error"].is_null(), "{answer}");
}
