//! Answers of others: whoever subscribes to a subject sees the publisher's inbox, and some clients answer every message that has one.

use crate::support::daemon::Daemon;
use crate::support::events::next_event;
use crate::support::http::ask;
use crate::support::ledger::{check_ledger, settled};
use crate::support::nats::NatsSettings;
use crate::support::published::Published;
use crate::support::records::{metric, spend};
use crate::support::requeued::{newest_letter, requeued_from};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use crate::tables::{DAY, publish_in_turn};
use async_nats::jetstream::stream::DiscardPolicy;
use futures_util::StreamExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// What `FastStream` says where its subscriber returns nothing, or something; other errors, and another stream's confirmation.
const FOREIGN: &[&str] = &[
    "",
    "null",
    "thank you",
    r#"{"status":"ok"}"#,
    r#"{"error":"no"}"#,
    r#"{"stream":"ANOTHER","seq":1}"#,
    r#"{"error":{"code":500,"err_code":10077},"stream":"ANOTHER","seq":0}"#,
];

/// A plain subscriber that answers whatever has a reply subject, at once.
struct Answerer {
    /// How often it heard a message on each subject.
    heard: Arc<Mutex<BTreeMap<String, usize>>>,
    answering: JoinHandle<()>,
}

impl Answerer {
    async fn start(world: &World, answers: &'static [&'static str]) -> Self {
        let client = world.nats().connect().await;
        let mut subscriptions = Vec::new();
        for subjects in ["receipt.>", "alert.>", "dlq.>", "ledger.>"] {
            subscriptions.push(client.subscribe(subjects).await.expect("connected"));
        }
        client.flush().await.expect("the server has them");
        let mut messages = futures_util::stream::select_all(subscriptions);
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = heard.clone();
        let answering = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                *noted.lock().expect("nobody panics").entry(message.subject.to_string()).or_default() += 1;
                // The test's own publications are none of its business.
                let Some(reply) = message.reply.filter(|reply| reply.starts_with("_INBOX_")) else { continue };
                for answer in answers {
                    client.publish(reply.clone(), (*answer).into()).await.expect("connected");
                }
            }
        });
        Self { heard, answering }
    }

    /// The subjects that begin so, with how often each was heard.
    fn heard(&self, prefix: &str) -> Vec<(String, usize)> {
        let heard = self.heard.lock().expect("nobody panics");
        heard.iter().filter(|(subject, _)| subject.starts_with(prefix)).map(|(it, n)| (it.clone(), *n)).collect()
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

async fn receipts(daemon: &Daemon, result: &str) -> f64 {
    daemon.metric("ledgerd_receipts_total", result).await
}

async fn unpublished(world: &World) -> i64 {
    let waiting = "select (select count(*) from ledger.dead_letter where published_at is null)
        + (select count(*) from ledger.budget_alert where published_at is null)";
    world.database.count(waiting).await
}

const TOKEN: &str = "a-secret";

async fn start() -> World {
    let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
    let slow = NatsSettings { writes_through: true, ..NatsSettings::default() };
    World::builder().nats_settings(slow).env("LEDGERD__WEBHOOKS__TOKENS", &format!("{hash} BRM-CTO")).start().await
}

#[tokio::test]
async fn a_subscriber_that_answers_everything_changes_nothing() {
    const EACH: u32 = 20;
    let world = start().await;
    let daemon = world.daemon().await;
    let answerer = Answerer::start(&world, FOREIGN).await;
    let mut published = Published::default();
    for _ in 0..EACH {
        let asking = [("Ledger-Receipt", "1")];
        published.publish_with_headers(&world.publisher, &asking, next_event("EXEC").good()).await;
        let bad = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
        published.publish(&world.publisher, bad).await;
    }
    let mut messages = vec![metric("VRA-CFO", "daily_limit_VRA-CFO", 3.0).good()];
    messages.extend([2.0, 0.5, 0.3, 0.3].map(|usd| spend("VRA-CFO", usd, DAY).good()));
    publish_in_turn(&world, &mut published, messages).await;
    settled(&world, &published).await;
    eventually("everything is published", SOON, async || {
        let (waiting, confirmed) = (unpublished(&world).await, receipts(&daemon, "\"confirmed\"").await);
        when(waiting == 0 && (confirmed - f64::from(EACH)).abs() < f64::EPSILON, || {
            format!("{waiting} wait, {confirmed} receipts confirmed")
        })
    })
    .await;
    assert!(receipts(&daemon, "unconfirmed").await.abs() < f64::EPSILON);
    for (prefix, expected) in [("receipt.", EACH), ("dlq.", EACH)] {
        let heard = answerer.heard(prefix);
        assert_eq!(heard.len(), expected as usize, "{heard:?}");
        assert!(heard.iter().all(|(_, times)| *times == 1), "published twice: {heard:?}");
    }
    // Each change of the day's status is told once.
    assert_eq!(answerer.heard("alert."), [("alert.budget.VRA-CFO".to_owned(), 3)]);

    let event = next_event("EXEC");
    let answer = ask(
        daemon.http_port(),
        "POST",
        "/webhook/hegemon-audit-log",
        &[("X-Hegemon-Token", TOKEN)],
        &event.good().payload,
    )
    .await
    .expect("an answer");
    assert_eq!((answer.status, answer.text().contains("LOGGED")), (200, true), "{}", answer.text());
    let emit = ["--json", "emit", "--actor", "BRM-CTO", "--action", "EXECUTION_STARTED", "--outcome", "SUCCESS"];
    let emitted: Value = serde_json::from_str(&world.ledgerd_ok(&emit).await).expect("JSON");
    let last =
        world.jetstream().await.get_stream("LEDGER").await.expect("setup made it").cached_info().state.last_sequence;
    assert_eq!(emitted["sequence"].as_u64(), Some(last), "{emitted}");

    let reference = newest_letter(&world).await;
    let requeued: Value =
        serde_json::from_str(&world.ledgerd_ok(&["--json", "dlq", "requeue", &reference, "--by", "Ops"]).await)
            .expect("JSON");
    assert_eq!(requeued[0]["result"], "requeued", "{requeued}");
    assert_eq!(requeued_from(&world, &reference).await.len(), 1);
}

/// A confirmation in the stream's own name, for a message that it has refused.
const FORGED: &[&str] = &[
    r#"{"stream":"LEDGER_DLQ","seq":1}"#,
    r#"{"stream":"LEDGER_DLQ","seq":999}"#,
    r#"{"stream":"LEDGER_DLQ","seq":1,"duplicate":true}"#,
    r#"{"stream":"LEDGER_ALERTS","seq":1}"#,
    r#"{"stream":"LEDGER_ALERTS","seq":999}"#,
];

/// Lets a stream take no more than it has, and say nothing; or any number, and confirm each.
async fn bound(world: &World, stream: &str, messages_max: i64) {
    let jetstream = world.jetstream().await;
    let mut config = jetstream.get_stream(stream).await.expect("setup made it").cached_info().config.clone();
    config.max_messages = messages_max;
    config.no_ack = messages_max > 0;
    config.discard = DiscardPolicy::New;
    jetstream.update_stream(config).await.expect("the server takes it");
}

#[tokio::test]
async fn a_forged_confirmation_of_what_the_stream_refused_marks_nothing_as_published() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let bad = || next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    let limit = metric("VRA-CFO", "daily_limit_VRA-CFO", 3.0).good();
    publish_in_turn(&world, &mut published, vec![bad(), limit, spend("VRA-CFO", 2.2, DAY).good()]).await;
    eventually("both are published", SOON, async || {
        let waiting = unpublished(&world).await;
        when(waiting == 0, || format!("{waiting} wait"))
    })
    .await;
    for stream in ["LEDGER_DLQ", "LEDGER_ALERTS"] {
        bound(&world, stream, 1).await;
    }
    let answerer = Answerer::start(&world, FORGED).await;
    for message in [bad(), spend("VRA-CFO", 1.0, DAY).good()] {
        published.publish(&world.publisher, message).await;
    }
    let tries = |prefix: &str| answerer.heard(prefix).iter().map(|(_, times)| times).sum::<usize>();
    eventually("each was tried more than once", SOON, async || {
        when(tries("dlq.") > 1 && tries("alert.") > 1, || format!("{:?}", answerer.heard("")))
    })
    .await;
    assert_eq!(unpublished(&world).await, 2);

    for stream in ["LEDGER_DLQ", "LEDGER_ALERTS"] {
        bound(&world, stream, -1).await;
    }
    eventually("both are published", SOON, async || {
        let waiting = unpublished(&world).await;
        when(waiting == 0, || format!("{waiting} wait"))
    })
    .await;
    for stream in ["LEDGER_DLQ", "LEDGER_ALERTS"] {
        let messages =
            world.jetstream().await.get_stream(stream).await.expect("it is there").cached_info().state.messages;
        assert_eq!(messages, 2, "{stream}");
    }
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn a_forged_confirmation_makes_no_webhook_say_that_a_record_is_safe() {
    let world = start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    publish_in_turn(&world, &mut published, vec![next_event("EXEC").good()]).await;
    bound(&world, "LEDGER", 1).await;
    let answers = &[r#"{"stream":"LEDGER","seq":1}"#, r#"{"stream":"LEDGER","seq":2}"#];
    let _answerer = Answerer::start(&world, answers).await;
    let event = next_event("EXEC").good();
    let post = async || {
        let headers = [("X-Hegemon-Token", TOKEN)];
        let answer = ask(daemon.http_port(), "POST", "/webhook/hegemon-audit-log", &headers, &event.payload).await;
        answer.expect("an answer").status
    };
    assert_eq!(post().await, 503);
    bound(&world, "LEDGER", -1).await;
    assert_eq!(post().await, 200);
    assert_eq!(world.database.count("select count(*) from audit_events where action = 'EXECUTION_STARTED'").await, 2);
}
