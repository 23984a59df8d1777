//! What a publisher hears that asks: after the commit, on a subject of its own, and never at the ledger's cost.

use crate::starting::change_consumer;
use crate::support::daemon::{ledgerd_with_input, text_of};
use crate::support::events::{LANES, Outgoing, event, id_field, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde_json::Value;
use std::time::{Duration, Instant};

const STREAM: &str = "LEDGER_RECEIPTS";
const ASKING: &[(&str, &str)] = &[("Ledger-Receipt", "1")];

/// What stands on a subject, once something does.
async fn newest(jetstream: &jetstream::Context, subject: &str) -> Value {
    let stream = jetstream.get_stream(STREAM).await.expect("setup made it");
    eventually(subject, SOON, async || {
        let message = stream.get_last_raw_message_by_subject(subject).await.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&message.payload).expect("JSON"))
    })
    .await
}

async fn receipt_with(jetstream: &jetstream::Context, subject: &str, sequence: u64) -> Value {
    eventually(subject, SOON, async || {
        let receipt = newest(jetstream, subject).await;
        if receipt["sequence"].as_u64() == Some(sequence) { Ok(receipt) } else { Err(receipt.to_string()) }
    })
    .await
}

fn actor_of(outgoing: &Outgoing) -> &str {
    outgoing.subject.rsplit('.').next().expect("an actor")
}

#[tokio::test]
async fn each_outcome_on_each_lane_is_told_to_those_who_ask() {
    let world = World::builder().limited_role().start().await;
    let _daemon = world.daemon().await;
    let jetstream = world.jetstream().await;
    let mut published = Published::default();
    let mut asked = 0;
    for lane in LANES {
        let record = next_event(lane).good();
        let sequence = published.publish_with_headers(&world.publisher, ASKING, record.clone()).await;
        let fields: Value = serde_json::from_slice(&record.payload).expect("JSON");
        let id = fields[id_field(lane)].as_str().expect("an id");
        let name = if lane == "METRIC" { format!("seq-{sequence}") } else { id.to_owned() };
        let receipt = receipt_with(&jetstream, &format!("receipt.{}.{name}", actor_of(&record)), sequence).await;
        let told = (receipt["status"].as_str(), receipt["event_id"].as_str(), receipt["stream"].as_str());
        assert_eq!(told, (Some("LOGGED"), Some(id), Some("LEDGER")), "{receipt}");
        let leaf = receipt["leaf_hash"].as_str().expect("a hash");
        let leaves = format!(
            "select count(*) from ledger.entry where encode(leaf_hash, 'hex') = '{leaf}' and sequence = {sequence}"
        );
        assert_eq!(world.database.count(&leaves).await, 1, "{receipt}");
        if let Some(hash) = receipt["integrity_hash"].as_str() {
            let rows =
                format!("select count(*) from audit_events where event_id = '{id}' and integrity_hash = '{hash}'");
            assert_eq!(world.database.count(&rows).await, 1, "{receipt}");
        }
        assert_eq!(receipt["integrity_hash"].is_string(), fields["event_id"].is_string(), "{receipt}");
        asked += 1;
    }

    let once = next_event("EXEC");
    published.publish(&world.publisher, once.good()).await;
    let subject = format!("receipt.BRM-CTO.{}", once.event_id());
    let again = published.publish_with_headers(&world.publisher, ASKING, once.again()).await;
    let receipt = receipt_with(&jetstream, &subject, again).await;
    assert_eq!(receipt["status"], "DUPLICATE", "{receipt}");
    assert!(receipt["integrity_hash"].is_string(), "{receipt}");
    let other = once.clone().with("outcome", "FAILURE").with("action", "EXECUTION_COMPLETED").bad("conflict");
    let conflict = published.publish_with_headers(&world.publisher, ASKING, other).await;
    let receipt = receipt_with(&jetstream, &subject, conflict).await;
    assert_eq!((&receipt["status"], &receipt["reason"]), (&"REJECTED".into(), &"conflict".into()), "{receipt}");
    assert!(receipt["detail"].is_string() && receipt["integrity_hash"].is_null(), "{receipt}");
    // Neither the bytes nor the headers choose where a receipt goes, beyond a name among the actor's own.
    let broken = Outgoing { payload: b"what is this?".to_vec(), ..next_event("EXEC").bad("malformed_json") };
    let named = [("Ledger-Receipt", "1"), ("Nats-Msg-Id", "> receipt.RXY-CEO.x")];
    published.publish_with_headers(&world.publisher, &named, broken).await;
    asked += 2;
    settled(&world, &published).await;
    let mut stream = jetstream.get_stream(STREAM).await.expect("setup made it");
    // One subject was told of twice, and keeps the last.
    assert_eq!(stream.info().await.expect("it answers").state.messages, asked);
    let last = stream.info().await.expect("it answers").state.last_sequence;
    let last = stream.get_raw_message(last).await.expect("it is there");
    assert!(last.subject.starts_with("receipt.BRM-CTO.receiptRXY-CEOx~"), "{}", last.subject);
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn a_reply_subject_that_names_a_receipt_makes_none() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let client = world.nats().connect().await;
    let forged = next_event("VOTE");
    let subject = format!("receipt.RXY-CEO.{}", forged.event_id());
    // The server's own answer lands there, whoever may publish there.
    let mine = next_event("EXEC").good();
    client.publish_with_reply(mine.subject, subject.clone(), mine.payload.into()).await.expect("connected");
    let jetstream = world.jetstream().await;
    let answer = newest(&jetstream, &subject).await;
    assert!(answer["seq"].is_u64() && answer["status"].is_null(), "{answer}");
    // Who waits there hears of its own record and of nothing else.
    let input = String::from_utf8(forged.payload()).expect("UTF-8");
    let output = ledgerd_with_input(&["--json", "emit", "--wait", "-"], &world.operator, &input).await;
    assert!(output.status.success(), "{}", text_of(&output));
    let emitted: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&emitted["receipt"]["status"], &emitted["receipt"]["subject"]), (&"LOGGED".into(), &subject.into()));
}

#[tokio::test]
async fn killed_between_the_commit_and_the_receipt() {
    kill_between_the_commit_and_the_receipt(async |_| {}).await;
}

/// The restarted server has forgotten the consumers, and so what was acknowledged.
#[tokio::test]
async fn killed_between_the_commit_and_the_receipt_and_the_server_is_restarted_too() {
    kill_between_the_commit_and_the_receipt(async |world| {
        world.nats().kill();
        world.nats().restart().await;
    })
    .await;
}

async fn kill_between_the_commit_and_the_receipt(meanwhile: impl AsyncFnOnce(&World)) {
    let world = World::builder().nats_proxy().start().await;
    let mut daemon = world.daemon().await;
    let mut held = world.nats_proxy().hold_when(Direction::ToServer, b"PUB receipt.");
    let record = next_event("EXEC");
    let mut published = Published::default();
    let sequence = published.publish_with_headers(&world.publisher, ASKING, record.good()).await;
    held.happened().await;
    daemon.sigkill();
    world.nats_proxy().drop_held().await;
    let committed = format!("select count(*) from audit_events where event_id = '{}'", record.event_id());
    assert_eq!(world.database.count(&committed).await, 1);
    meanwhile(&world).await;
    world.nats_proxy().release();
    let _again = world.daemon().await;
    let subject = format!("receipt.BRM-CTO.{}", record.event_id());
    let receipt = receipt_with(&world.jetstream().await, &subject, sequence).await;
    assert_eq!(receipt["status"], "LOGGED", "{receipt}");
    assert_eq!(check_ledger(&world, &published).await.rows, 1);
}

/// A reload does this, and so does any other loss of the connection. The record is acknowledged over the next one and does not
/// come again, so nothing but a second telling reaches its publisher.
#[tokio::test]
async fn a_connection_that_breaks_under_a_receipt_does_not_cost_it() {
    let world = World::builder().nats_proxy().start().await;
    let daemon = world.daemon().await;
    let mut held = world.nats_proxy().hold_when(Direction::ToServer, b"PUB receipt.");
    let record = next_event("EXEC");
    let mut published = Published::default();
    let sequence = published.publish_with_headers(&world.publisher, ASKING, record.good()).await;
    held.happened().await;
    world.nats_proxy().drop_held().await;
    settled(&world, &published).await;
    let subject = format!("receipt.BRM-CTO.{}", record.event_id());
    let receipt = receipt_with(&world.jetstream().await, &subject, sequence).await;
    assert_eq!(receipt["status"], "LOGGED", "{receipt}");
    assert!(!daemon.log_contains("published unconfirmed"), "{}", daemon.log());
}

#[tokio::test]
async fn without_the_stream_of_receipts_the_ledger_goes_on_and_whoever_listens_hears() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let jetstream = world.jetstream().await;
    jetstream.delete_stream(STREAM).await.expect("setup made it");
    let mut heard = world.nats().connect().await.subscribe("receipt.BRM-CTO.*").await.expect("connected");
    let mut published = Published::default();
    let started = Instant::now();
    for _ in 0..30 {
        published.publish_with_headers(&world.publisher, ASKING, next_event("EXEC").good()).await;
        heard.next().await.expect("a receipt");
    }
    assert_eq!(check_ledger(&world, &published).await.rows, 30);
    // The first is waited for, and none of the others.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    daemon.says("receipts are published unconfirmed for now").await;
    assert_eq!(daemon.log_lines_matching("published unconfirmed").len(), 1);
    let unconfirmed = daemon.metric("ledgerd_receipts_total", "unconfirmed").await;
    assert!((unconfirmed - 30.0).abs() < 0.5, "{unconfirmed}");
}

#[tokio::test]
async fn emit_waits_and_its_exit_code_says_what_became_of_the_event() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let first = event("EXEC", "BRM-CTO", 1);
    let input = String::from_utf8(first.payload()).expect("UTF-8");
    // Whoever guesses its id and uses it first as a message id hides nothing.
    let guess = jetstream::message::PublishMessage::build().message_id(first.event_id()).payload("{}".into());
    world.publisher.try_publish("ledger.EXEC.SRN-CIO", guess).await.expect("the stream takes it");
    for (outcome, status, code) in [("SUCCESS", "LOGGED", 0), ("SUCCESS", "DUPLICATE", 0), ("BLOCKED", "REJECTED", 1)] {
        let arguments = ["--json", "emit", "--wait", "--outcome", outcome, "-"];
        let output = ledgerd_with_input(&arguments, &world.operator, &input).await;
        assert_eq!(output.status.code(), Some(code), "{}", text_of(&output));
        let emitted: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(emitted["receipt"]["status"], status, "{emitted}");
    }
    let output = ledgerd_with_input(&["emit", "--wait", "--outcome", "BLOCKED", "-"], &world.operator, &input).await;
    assert!(text_of(&output).contains("rejected: outcome_not_allowed: "), "{}", text_of(&output));
    assert!(text_of(&output).contains("leaf "), "{}", text_of(&output));

    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    let late = event("EXEC", "BRM-CTO", 2);
    let input = String::from_utf8(late.payload()).expect("UTF-8");
    let output = ledgerd_with_input(&["emit", "--wait=700ms", "-"], &world.operator, &input).await;
    assert_eq!(output.status.code(), Some(69), "{}", text_of(&output));
    assert!(text_of(&output).contains("safe in the stream"), "{}", text_of(&output));
    let _again = world.daemon().await;
    let stored = format!("select count(*) from audit_events where event_id = '{}'", late.event_id());
    eventually("it is stored", SOON, async || {
        let count = world.database.count(&stored).await;
        when(count == 1, || count.to_string())
    })
    .await;
}

/// As after an outage: whole batches in which everybody asks.
#[tokio::test]
async fn a_backlog_in_which_everybody_asks_is_told_and_a_kill_in_the_middle_loses_no_receipt() {
    // More than the client has room for at a time.
    const MESSAGES: u64 = 5500;
    let world = World::builder()
        .env("LEDGERD__PIPELINE__BATCH_MESSAGES_MAX", "10000")
        .env("LEDGERD__PIPELINE__BATCH_BYTES_MAX", "16777216")
        .start()
        .await;
    change_consumer(&world, "EXEC", "max_ack_pending", 10_000).await;
    let jetstream = world.jetstream().await;
    let mut answers = Vec::new();
    for _ in 0..MESSAGES {
        let record = next_event("EXEC");
        let message =
            jetstream::message::PublishMessage::build().payload(record.payload().into()).header("Ledger-Receipt", "1");
        answers.push(jetstream.send_publish(record.subject(), message).await.expect("connected"));
        if answers.len() == 1000 {
            for answer in answers.drain(..) {
                answer.await.expect("the stream takes it");
            }
        }
    }
    for answer in answers {
        answer.await.expect("the stream takes it");
    }
    let told = async |wanted: u64| {
        eventually(&format!("{wanted} receipts"), SOON, async || {
            let mut stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
            let told = stream.info().await.map_err(|error| error.to_string())?.state.messages;
            when(told >= wanted, || told.to_string())
        })
        .await;
    };
    let mut daemon = world.spawn_daemon();
    told(700).await;
    daemon.sigkill();
    let daemon = world.daemon().await;
    told(MESSAGES).await;
    let unconfirmed = daemon.metric("ledgerd_receipts_total", "unconfirmed").await;
    assert!(unconfirmed < 0.5, "{unconfirmed}");
    let rows = "select count(*) from audit_events where event_id like 'EXEC-%'";
    assert_eq!(world.database.count(rows).await, i64::try_from(MESSAGES).expect("few"));
}
