//! Webhooks as agents and n8n call them today: each answer says whether the record is safe.

use crate::support::daemon::{Daemon, ledgerd, text_of};
use crate::support::events::{event, spec_hash};
use crate::support::http::{HttpAnswer, ask};
use crate::support::port::free_port;
use crate::support::process::scratch_folder;
use crate::support::shipped_nats::login;
use crate::support::world::{Builder, World};
use crate::support::{SOON, eventually, when};
use async_nats::jetstream::message::PublishMessage;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const AUDIT: &str = "/webhook/hegemon-audit-log";
const TOKENS: &str = "/webhook/hegemon-token-log";
/// The engine's, and that of somebody who writes for one actor alone.
const TOKEN: &str = "a-secret-of-the-engine";
const OTHERS_TOKEN: &str = "a-secret-of-n8n";

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As agents write: any suffix of an id, and sometimes no timestamp.
fn builder() -> Builder {
    let tokens = format!("{} RXY-CEO BRM-CTO WRK-006, {} N8N_SANITIZER", hash(TOKEN), hash(OTHERS_TOKEN));
    World::builder()
        .env("LEDGERD__WEBHOOKS__TOKENS", &tokens)
        .env("LEDGERD__AUDIT__EVENT_ID", "any")
        .env("LEDGERD__AUDIT__MISSING_TIMESTAMP", "stamp")
}

async fn post(daemon: &Daemon, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
    ask(daemon.http_port(), "POST", path, headers, body).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// With the engine's token.
async fn send(daemon: &Daemon, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("X-Hegemon-Token", TOKEN), ("Content-Type", "application/json")];
    let answer = post(daemon, path, &headers, body.to_string().as_bytes()).await;
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

fn injection_guard(input_sha256: &str, timestamp: &str) -> Value {
    json!({
        "event_id": format!("SEC-RXY-CEO-{input_sha256}"), "actor": "RXY-CEO", "action": "INJECTION_SCAN",
        "outcome": "WARNING", "task_id": "", "timestamp": timestamp,
        "details": {"severity": "HIGH", "matched_patterns": ["HIGH"], "input_source": "telegram", "input_length": 142,
            "blocked": false, "sanitized": true},
    })
}

fn tool_policy() -> Value {
    json!({
        "event_id": "TOOL-BRM-CTO-n8n_trigger-2026-02-20T174714", "actor": "BRM-CTO",
        "action": "TOOL_REQUEST_N8N_TRIGGER", "outcome": "DENIED_NEEDS_VOTE", "timestamp": "2026-02-20T17:47:14.123456Z",
        "details": {"tool_name": "n8n_trigger", "agent_tier": "TIER_1_COUNCIL", "council_vote_ref": null,
            "architect_approval_ref": null},
    })
}

fn failed_model_call() -> Value {
    json!({
        "event_id": "ERR-RXY-CEO-TASK-7", "actor": "RXY-CEO", "action": "MODEL_CALL_FAILED", "outcome": "FAILURE",
        "details": {"error": "timeout"},
    })
}

fn usage() -> Value {
    json!({
        "agent_name": "RXY-CEO", "model_used": "claude-sonnet-4", "tokens_input": 1200, "tokens_output": 340,
        "task_id": "TASK-7", "operation_type": "vote",
    })
}

#[tokio::test]
async fn what_agents_send_today_is_logged_and_its_hash_comes_back() {
    let folder = scratch_folder("registry");
    let extra = folder.path().join("engine.yaml");
    let text = "groups: [{name: Engine, actors: [RXY-CEO], actions: {MODEL_CALL_FAILED: {outcomes: [FAILURE], description: x}}}]";
    std::fs::write(&extra, text).expect("the folder is ours");
    let extra = extra.display().to_string();
    let world = builder().limited_role().env("LEDGERD__REGISTRY__ACTIONS_EXTRA_FILES", &extra).start().await;
    let daemon = world.daemon().await;
    world.ledgerd_ok(&["setup", "--defaults"]).await;

    let scan = injection_guard("0123456789abcdef", "2026-02-20T17:47:14.123456Z");
    let hash_of = |event: &Value| {
        let [id, actor, action, outcome, timestamp] =
            ["event_id", "actor", "action", "outcome", "timestamp"].map(|field| event[field].as_str().expect("a text"));
        spec_hash(id, actor, action, outcome, timestamp)
    };
    for event in [&scan, &tool_policy()] {
        let expected = json!({"event_id": event["event_id"], "integrity_hash": hash_of(event), "status": "LOGGED"});
        assert_eq!(send(&daemon, AUDIT, event).await, (200, expected.clone()));
        // The same again is logged, once.
        assert_eq!(send(&daemon, AUDIT, event).await, (200, expected));
    }
    // The same input at another time: the id is taken.
    let (status, answer) =
        send(&daemon, AUDIT, &injection_guard("0123456789abcdef", "2026-02-21T00:00:00.000001Z")).await;
    assert_eq!((status, &answer["status"], &answer["reason"]), (422, &"FAILED".into(), &"conflict".into()), "{answer}");
    assert!(answer["detail"].is_string() && answer["event_id"] == scan["event_id"], "{answer}");
    let (status, answer) = send(&daemon, AUDIT, &failed_model_call()).await;
    assert_eq!((status, answer["integrity_hash"].as_str().map(str::len)), (200, Some(64)), "{answer}");
    assert_eq!(
        world
            .database
            .count("select count(*) from audit_events_integrity where intact and event_id like 'ERR-%'")
            .await,
        1
    );

    // A call has no id: a key makes it one, for its owner alone.
    let body = usage().to_string();
    let key = [("X-Hegemon-Token", TOKEN), ("Idempotency-Key", "call-1")];
    let [first, second] =
        [post(&daemon, TOKENS, &key, body.as_bytes()).await, post(&daemon, TOKENS, &key, body.as_bytes()).await];
    assert_eq!((first.status, second.status), (200, 200), "{} {}", first.text(), second.text());
    assert_eq!(first.text(), second.text());
    let (status, answer) = send(&daemon, TOKENS, &usage()).await;
    assert_eq!((status, &answer["status"]), (200, &"LOGGED".into()), "{answer}");
    assert_eq!(
        world.database.count("select total_tokens_input::bigint from token_ledger where agent_name = 'RXY-CEO'").await,
        2400
    );
    let answers = daemon.metric("ledgerd_webhook_answers_total", "webhook=\"tokens\",code=\"200\"").await;
    assert!((answers - 3.0).abs() < 0.5, "{answers}");
}

#[tokio::test]
async fn who_may_not_write_is_told_why_and_no_token_is_in_the_log() {
    let world = builder().env("LEDGERD__LOG__LEVEL", "trace").start().await;
    let daemon = world.daemon().await;
    let good = tool_policy().to_string();
    let too_large = json!({"actor": "RXY-CEO", "details": {"x": "x".repeat(300_000)}}).to_string();
    for (token, body, status, reason) in [
        ("", good.as_str(), 401, "unauthorized"),
        ("not-the-token", &good, 401, "unauthorized"),
        (OTHERS_TOKEN, &good, 403, "actor_mismatch"),
        (TOKEN, "event_id=1", 400, "malformed_json"),
        (TOKEN, "[]", 422, "wrong_type"),
        (TOKEN, "{}", 422, "missing_field"),
        (TOKEN, too_large.as_str(), 413, "too_large"),
        // On record as a dead letter of the system's lane.
        (
            TOKEN,
            r#"{"event_id":"WHAT-RXY-CEO-1","actor":"RXY-CEO","action":"TASK_INTAKE","outcome":"SUCCESS"}"#,
            422,
            "bad_event_id",
        ),
    ] {
        let answer =
            post(&daemon, AUDIT, &[("X-Hegemon-Token", token), ("Content-Type", "text/plain")], body.as_bytes()).await;
        let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(
            (answer.status, &said["reason"], &said["status"]),
            (status, &reason.into(), &"FAILED".into()),
            "{said}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }
    assert_eq!(
        ask(daemon.http_port(), "GET", AUDIT, &[("X-Hegemon-Token", TOKEN)], b"").await.expect("an answer").status,
        405
    );
    let entries = "select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'";
    assert_eq!(world.database.count(entries).await, 1);
    assert_eq!(world.database.count("select count(*) from ledger.entry where subject = 'ledger.SYS.RXY-CEO'").await, 1);
    for token in [TOKEN, OTHERS_TOKEN, "not-the-token"] {
        assert!(!daemon.log_contains(token), "{token}");
    }
    assert_eq!(
        world
            .database
            .count("select count(*) from ledger.entry where position('a-secret' in encode(headers, 'escape')) > 0")
            .await,
        0
    );
}

#[tokio::test]
async fn the_permissions_of_the_shipped_server_file_suffice() {
    let mut world = builder().shipped_nats().start().await;
    world.environment.insert("LEDGERD__WEBHOOKS__NATS_URL".to_owned(), world.nats().url_of(&login("webhooks")));
    let mut daemon = world.daemon().await;
    world.operator.insert("LEDGERD__NATS__URL".to_owned(), world.nats().url_of(&login("BRM-CTO")));
    let emit =
        ["emit", "--wait", "--json", "--actor", "BRM-CTO", "--action", "EXECUTION_STARTED", "--outcome", "SUCCESS"];
    assert!(world.ledgerd_ok(&emit).await.contains("LOGGED"));
    let key = [("X-Hegemon-Token", TOKEN), ("Idempotency-Key", "k")];
    let body = event("EXEC", "BRM-CTO", 1).payload();
    let logged = async |daemon: &Daemon| {
        eventually("it is logged", SOON, async || {
            let answer = post(daemon, AUDIT, &key, &body).await;
            when(answer.status == 200, || answer.text())
        })
        .await;
    };
    logged(&daemon).await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    // Its receipt is in the stream alone now.
    logged(&world.daemon().await).await;
    assert!(!daemon.log_contains("ermissions"), "{}", daemon.log());
}

#[tokio::test]
async fn a_token_is_exchanged_by_a_reload_and_the_door_may_be_of_its_own() {
    let world = World::start().await;
    let folder = scratch_folder("config");
    let file = folder.path().join("ledgerd.toml");
    let port = free_port();
    let let_in = |token: &str, listen: &str| {
        let text = format!("[webhooks]\nlisten = \"{listen}\"\ntokens = [\"{} BRM-CTO\"]\n", hash(token));
        std::fs::write(&file, text).expect("the folder is ours");
    };
    let config = file.display().to_string();
    let_in(TOKEN, "");
    let nowhere = ledgerd(&["--config", &config, "run"], &world.environment).await;
    assert_eq!(nowhere.status.code(), Some(78), "{}", text_of(&nowhere));

    let address = format!("127.0.0.1:{port}");
    let_in(TOKEN, &address);
    let mut daemon = Daemon::spawn_with(&["--config", &config], &world.environment);
    daemon.ready().await;
    let body = event("EXEC", "BRM-CTO", 1).payload();
    let becomes = async |token: &str, wanted: u16| {
        eventually(&format!("{token} hears {wanted}"), SOON, async || {
            let heard = ask(port, "POST", AUDIT, &[("X-Hegemon-Token", token)], &body).await?;
            when(heard.status == wanted, || heard.text())
        })
        .await;
    };
    becomes(TOKEN, 200).await;
    assert_eq!(post(&daemon, AUDIT, &[("X-Hegemon-Token", TOKEN)], &body).await.status, 404);
    let_in(OTHERS_TOKEN, &address);
    daemon.sighup();
    becomes(TOKEN, 401).await;
    becomes(OTHERS_TOKEN, 200).await;
}

#[tokio::test]
async fn an_answer_says_whether_the_record_is_safe_whatever_is_away() {
    let world = builder()
        .postgres_proxy()
        .env("LEDGERD__WEBHOOKS__PATIENCE", "1s")
        .env("LEDGERD__WEBHOOKS__REQUESTS_MAX", "1")
        .start()
        .await;
    let mut daemon = world.daemon().await;
    let numbered = |n: u64| serde_json::from_slice::<Value>(&event("EXEC", "BRM-CTO", n).payload()).expect("JSON");
    let sent = async |daemon: &Daemon, n: u64, wanted: u16| {
        eventually(&format!("an answer {wanted}"), SOON, async || {
            let (status, answer) = send(daemon, AUDIT, &numbered(n)).await;
            if status == wanted { Ok(answer) } else { Err(format!("{status} {answer}")) }
        })
        .await
    };
    sent(&daemon, 1, 200).await;

    // A body that does not come takes a place for as long as the patience lasts, and no longer.
    eventually("429 beside it, and then 408", SOON, async || {
        let mut slow = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.http_port())).await.expect("it listens");
        let head = format!("POST {AUDIT} HTTP/1.0\r\nX-Hegemon-Token: {TOKEN}\r\nContent-Length: 100\r\n\r\n{{");
        slow.write_all(head.as_bytes()).await.expect("it reads");
        let other = post(&daemon, AUDIT, &[("X-Hegemon-Token", TOKEN)], numbered(2).to_string().as_bytes()).await;
        // The other one may have been there first.
        when((other.status, other.header("retry-after")) == (429, "1"), || other.text())?;
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.expect("it answers");
        when(answer.starts_with("HTTP/1.0 408 "), || answer)
    })
    .await;

    world.postgres_proxy().cut().await;
    let queued = sent(&daemon, 3, 202).await;
    assert_eq!((&queued["status"], &queued["event_id"]), (&"QUEUED".into(), &numbered(3)["event_id"]), "{queued}");
    world.postgres_proxy().heal().await;
    let stored = format!(
        "select count(*) from audit_events where event_id = {}",
        numbered(3)["event_id"].to_string().replace('"', "'")
    );
    eventually("it is committed", SOON, async || {
        let count = world.database.count(&stored).await;
        when(count == 1, || count.to_string())
    })
    .await;

    world.nats().kill();
    eventually("the loss is noticed", SOON, async || {
        let missing = daemon.readyz_text().await;
        when(missing.contains("[-] the connection of the webhooks"), || missing)
    })
    .await;
    let asked = Instant::now();
    let (status, answer) = send(&daemon, AUDIT, &numbered(4)).await;
    assert_eq!((status, &answer["reason"]), (503, &"not_safe".into()), "{answer}");
    assert!(asked.elapsed() < Duration::from_millis(900), "it said so at once");
    world.nats().restart().await;
    sent(&daemon, 4, 200).await;

    // A server that is there and says nothing.
    world.nats().freeze();
    let (status, answer) = send(&daemon, AUDIT, &numbered(5)).await;
    assert_eq!((status, &answer["reason"]), (503, &"not_safe".into()), "{answer}");
    world.nats().thaw();
    sent(&daemon, 5, 200).await;

    // The receipt of what was there before is found in the stream, by a daemon that has not heard it.
    let key = [("X-Hegemon-Token", TOKEN), ("Idempotency-Key", "6")];
    let body = numbered(6).to_string();
    let first = post(&daemon, AUDIT, &key, body.as_bytes()).await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    let mut daemon = world.daemon().await;
    let again = eventually("the webhooks are connected", SOON, async || {
        let again = post(&daemon, AUDIT, &key, body.as_bytes()).await;
        if again.status == 503 { Err(again.text()) } else { Ok(again) }
    })
    .await;
    assert_eq!((first.status, again.status, first.text()), (200, 200, again.text()));

    // What is asked while it stops is answered.
    world.postgres_proxy().cut().await;
    let last = numbered(7);
    let (answer, ()) = tokio::join!(send(&daemon, AUDIT, &last), async {
        eventually("it is in the stream", SOON, async || {
            let stream = world.jetstream().await.get_stream("LEDGER").await.map_err(|error| error.to_string())?;
            let newest = stream
                .get_last_raw_message_by_subject("ledger.EXEC.BRM-CTO")
                .await
                .map_err(|error| error.to_string())?;
            when(newest.payload == last.to_string().as_bytes(), || "not the newest".to_owned())
        })
        .await;
        crate::support::process::signal_all("TERM", &[daemon.pid()]);
    });
    assert_eq!(answer.0, 202, "{}", answer.1);
    assert_eq!(daemon.wait_exit().await, 0);
    world.postgres_proxy().heal().await;
    let _last = world.daemon().await;
    // Of the second it depends on who came first whether it was ever taken.
    eventually("each is a row, once", SOON, async || {
        let rows = world.database.count("select count(*) from audit_events where event_id like 'EXEC-%'").await;
        let expected = world
            .database
            .count("select count(distinct event_id) from audit_events where event_id like 'EXEC-%'")
            .await;
        when(rows == expected && (6..=7).contains(&rows), || format!("{rows} of {expected}"))
    })
    .await;
}

/// A subject keeps the receipt of the newest copy alone.
#[tokio::test]
async fn what_is_sent_again_is_answered_though_somebody_else_has_published_it_since() {
    let world = builder().env("LEDGERD__WEBHOOKS__PATIENCE", "1500ms").start().await;
    let mut daemon = world.daemon().await;
    let key = |key: &'static str| [("X-Hegemon-Token", TOKEN), ("Idempotency-Key", key)];
    let record = event("EXEC", "BRM-CTO", 1);
    let body = record.payload();
    let connected = async |daemon: &Daemon| {
        eventually("the webhooks are connected", SOON, async || {
            let answer = post(daemon, AUDIT, &key("first"), &body).await;
            if answer.status == 503 { Err(answer.text()) } else { Ok(answer) }
        })
        .await
    };
    let first = connected(&daemon).await;
    let other = record.clone().with("task_id", "another");
    let conflict = post(&daemon, AUDIT, &key("other"), &other.payload()).await;
    assert_eq!((first.status, conflict.status), (200, 422), "{} {}", first.text(), conflict.text());

    let receipts = world.jetstream().await.get_stream("LEDGER_RECEIPTS").await.expect("setup made it");
    let publish = async |payload: Vec<u8>, status: &str| {
        let message = PublishMessage::build().payload(payload.into()).header("Ledger-Receipt", "1");
        let sequence = world.publisher.try_publish(&record.subject(), message).await.expect("the stream takes it");
        let subject = format!("receipt.BRM-CTO.{}", record.event_id());
        eventually("the newest copy is told", SOON, async || {
            let told = receipts.get_last_raw_message_by_subject(&subject).await.map_err(|error| error.to_string())?;
            let told: Value = serde_json::from_slice(&told.payload).expect("JSON");
            when(told["sequence"] == sequence && told["status"] == status, || told.to_string())
        })
        .await;
    };
    publish(body.clone(), "DUPLICATE").await;
    // What it has heard itself it remembers for a while, and another daemon does not.
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    let daemon = world.daemon().await;
    let again = connected(&daemon).await;
    assert_eq!((again.status, again.text()), (200, first.text()), "its id and its hash");
    // What was rejected is not logged because another record of its name is.
    let again = post(&daemon, AUDIT, &key("other"), &other.payload()).await;
    assert_eq!(again.status, 202, "{}", again.text());
    // And what is logged is not rejected because another record of its name was.
    publish(other.payload(), "REJECTED").await;
    let again = post(&daemon, AUDIT, &key("first"), &body).await;
    assert_eq!(again.status, 202, "{}", again.text());
    assert_eq!(world.database.count("select count(*) from audit_events where event_id like 'EXEC-%'").await, 1);
}

/// A stream that has lost its end, or was made anew, gives a sequence to another message.
#[tokio::test]
async fn a_receipt_of_an_earlier_message_with_this_sequence_answers_nobody() {
    let world = builder().postgres_proxy().env("LEDGERD__WEBHOOKS__PATIENCE", "1s").start().await;
    let daemon = world.daemon().await;
    eventually("the webhooks are connected", SOON, async || {
        let (status, answer) = send(&daemon, TOKENS, &json!({"agent_name": "RXY-CEO"})).await;
        when(status == 422, || answer.to_string())
    })
    .await;
    let jetstream = world.jetstream().await;
    let mut stream = jetstream.get_stream("LEDGER").await.expect("setup made it");
    let next = stream.info().await.expect("it answers").state.last_sequence + 1;
    let subject = format!("receipt.RXY-CEO.seq-{next}");
    let earlier = json!({
        "status": "LOGGED", "event_id": null, "integrity_hash": null, "leaf_hash": "00", "leaf_index": 0,
        "committed_at": "2026-02-20T17:47:14Z", "reason": null, "detail": null, "stream": "LEDGER", "sequence": next,
        "subject": subject,
    });
    let kept = jetstream.publish(subject, earlier.to_string().into()).await.expect("connected");
    kept.await.expect("the stream takes it");
    world.postgres_proxy().cut().await;
    let (status, answer) = send(&daemon, TOKENS, &usage()).await;
    assert_eq!((status, &answer["status"]), (202, &"QUEUED".into()), "{answer}");
}

#[tokio::test]
async fn the_password_of_the_webhooks_is_rotated_by_a_reload_and_a_wrong_one_changes_nothing() {
    let world = builder().shipped_nats().start().await;
    let folder = scratch_folder("config");
    let file = folder.path().join("ledgerd.toml");
    let address = world.nats().url().replacen("nats://", "", 1);
    let has = |password: &str| {
        let text = format!("[webhooks]\nnats_url = \"nats://webhooks:{password}@{address}\"\n");
        std::fs::write(&file, text).expect("the folder is ours");
    };
    has("secret_WEBHOOKS");
    let mut daemon = Daemon::spawn_with(&["--config", &file.display().to_string()], &world.environment);
    daemon.ready().await;
    let logged = async |daemon: &Daemon, n: u64| {
        let body = event("EXEC", "BRM-CTO", n).payload();
        eventually("it is logged", SOON, async || {
            let answer = post(daemon, AUDIT, &[("X-Hegemon-Token", TOKEN)], &body).await;
            when(answer.status == 200, || answer.text())
        })
        .await;
    };
    logged(&daemon, 1).await;
    has("wrong");
    daemon.sighup();
    daemon.says("reload failed, what was in force stays in force: NATS, for the webhooks").await;
    logged(&daemon, 2).await;
    world.nats().reconfigure(|text| text.replace("$WEBHOOKS_PASSWORD", "rotated")).await;
    has("rotated");
    daemon.sighup();
    daemon.says("reloaded registry, agents and credentials").await;
    logged(&daemon, 3).await;
    assert!(!daemon.log_contains("waiting for NATS"), "the daemon's own connection has nothing to do with it");
}
