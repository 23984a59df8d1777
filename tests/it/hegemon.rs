//! `profile = "hegemon"`: the programs of the public repository write to the ledger as they are.
//!
//! `hegemon/posts.jsonl` holds what its unmodified engine, injection guard, tool policy and sanitizer node posted in two runs of
//! the same texts, for all five agents: one line for each post, with the webhook and the body.

use crate::support::daemon::{Daemon, ledgerd, text_of};
use crate::support::events::next_event;
use crate::support::http::ask;
use crate::support::ledger::check_ledger;
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::world::{Builder, USAGE_REPORTERS, World};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

const POSTS: &str = include_str!("hegemon/posts.jsonl");
const TOKEN: &str = "a-secret-of-the-agents";
const ROWS: &str = "select count(*) from audit_events where actor <> 'ARCHITECT'";

fn builder() -> Builder {
    let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
    World::builder().env("LEDGERD__PROFILE", "hegemon").env("LEDGERD__WEBHOOKS__TOKENS", &format!("{hash} *"))
}

async fn post(daemon: &Daemon, webhook: &str, body: &str) -> Value {
    // What `http://agents:TOKEN@host/…` makes every HTTP client send.
    let login = format!("Basic {}", BASE64.encode(format!("agents:{TOKEN}")));
    let headers = [("Authorization", login.as_str()), ("Content-Type", "application/json")];
    let path = format!("/webhook/{webhook}");
    let answer = ask(daemon.http_port(), "POST", &path, &headers, body.as_bytes()).await.expect("an answer");
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

async fn audit(daemon: &Daemon, event: &Value) -> Value {
    post(daemon, "hegemon-audit-log", &event.to_string()).await
}

#[tokio::test]
async fn every_post_of_the_unmodified_agents_becomes_a_row_or_adds_to_its_day() {
    let world = builder().start().await;
    world.ledgerd_ok(&["setup", "--defaults"]).await;
    let daemon = world.daemon().await;
    let posts: Vec<(String, String)> =
        POSTS.lines().map(|line| serde_json::from_str(line).expect("a webhook and a body")).collect();
    let mut stored = BTreeSet::new();
    for (webhook, body) in &posts {
        let answer = post(&daemon, webhook, body).await;
        if webhook == "hegemon-audit-log" {
            let id = answer["event_id"].as_str().expect("an id").to_owned();
            assert!(stored.insert(id), "{body}: {answer}");
        }
    }
    assert_eq!((posts.len(), stored.len()), (294, 244));

    let database = &world.database;
    assert_eq!(database.count(ROWS).await, 244);
    let ids: Vec<String> = stored.into_iter().map(|id| format!("'{id}'")).collect();
    let told = format!("select count(*) from audit_events where event_id in ({})", ids.join(", "));
    assert_eq!(database.count(&told).await, 244, "the answers name the ids that are stored");
    assert_eq!(database.count("select count(*) from ledger.token_usage").await, 50);
    assert_eq!(database.count("select count(distinct agent_name) from token_ledger where total_cost > 0").await, 5);
    assert_eq!(database.count("select count(*) from ledger.dead_letter").await, 0);
    let intake = "select count(*) from ledger.entry where subject = 'ledger.N8N.N8N_SANITIZER'";
    assert_eq!(database.count(intake).await, 4);

    // The same bytes with their timestamp are the same event, the first of an id or not.
    let scans = |body: &&(String, String)| body.1.contains("INJECTION_SCAN");
    for (webhook, body) in posts.iter().filter(scans).take(30) {
        post(&daemon, webhook, body).await;
    }
    assert_eq!(database.count(ROWS).await, 244);
    // A failed call does not say when it happened: each is another.
    let failed = posts.iter().find(|(_, body)| body.contains("MODEL_CALL_FAILED")).expect("there are such");
    post(&daemon, &failed.0, &failed.1).await;
    assert_eq!(database.count(ROWS).await, 245);
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn what_their_documents_prescribe_beyond_the_specification_becomes_rows() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    let heartbeat = json!({"checks_passed": 18, "checks_failed": 0, "degraded_mode": false, "failed_checks": []});
    let vote = json!({"proposal_id": "SRN-1", "votes": {}, "result": "TIMEOUT", "threshold_required": 3, "threshold_met": false});
    let mut events = vec![
        ("SYS-ARCHITECT-1708451234567", "ARCHITECT", "BUDGET_LIMIT_UPDATED", "SUCCESS", Value::Null),
        ("SYS-WRK-006-1708451234567", "WRK-006", "LEDGER_WRITE", "FAILURE", Value::Null),
        ("PROP-SRN-FIN-01-1708451234567", "SRN-FIN-01", "FINANCIAL_MODEL_COMPLETE", "SUCCESS", Value::Null),
        ("PROP-SRN-RSK-01-1708451234567", "SRN-RSK-01", "RISK_SCORE_COMPLETE", "FAILURE", Value::Null),
        ("EXEC-BRM-WFB-01-1708451234567", "BRM-WFB-01", "WORKFLOW_DESIGNED", "PENDING_BROM_REVIEW", Value::Null),
        ("VOTE-RXY-CEO-1708451234567", "RXY-CEO", "VOTE_RECORDED", "TIMEOUT", vote),
        ("EXEC-BRM-CTO-1708451234567", "WRK-006", "LEDGER_WRITTEN", "SUCCESS", Value::Null),
        ("ERR-RXY-CEO-", "RXY-CEO", "MODEL_CALL_FAILED", "FAILURE", json!({"error": "x"})),
    ];
    for outcome in ["HIGH", "MEDIUM", "LOW", "NEGATIVE", "SUCCESS"] {
        events.push(("CLR-VRA-ROI-01-1708451234567", "VRA-ROI-01", "ROI_SCORED", outcome, Value::Null));
    }
    for (boot, ms, actor) in [
        ("SYS-RXY-CEO-BOOTSTRAP", "SYS-RXY-CEO-1708451234567", "RXY-CEO"),
        ("SYS-SRN-CIO-BOOTSTRAP", "SYS-SRN-CIO-1708451234567", "SRN-CIO"),
        ("SYS-BRM-CTO-BOOTSTRAP", "SYS-BRM-CTO-1708451234567", "BRM-CTO"),
        ("SYS-VRA-CFO-BOOTSTRAP", "SYS-VRA-CFO-1708451234567", "VRA-CFO"),
        ("SYS-AST-GOV-BOOTSTRAP", "SYS-AST-GOV-1708451234567", "AST-GOV"),
    ] {
        events.push((boot, actor, "SYSTEM_BOOT", "SUCCESS", json!({"boot_type": "first_run"})));
        for outcome in ["SUCCESS", "WARNING", "FAILURE"] {
            events.push((ms, actor, "HEARTBEAT_CHECK", outcome, heartbeat.clone()));
        }
    }
    let rows = "select count(*) from audit_events where action <> 'SCHEMA_MIGRATION'";
    for (timestamp, times) in
        [("2026-02-20T17:47:14.568123+00:00", 1), ("2026-02-21T17:47:14.568123", 2), ("2026-02-22T17:47:14Z", 3)]
    {
        for (event_id, actor, action, outcome, details) in &events {
            let event = json!({"event_id": event_id, "actor": actor, "action": action, "outcome": outcome,
                "details": details, "task_id": null, "timestamp": timestamp});
            audit(&daemon, &event).await;
        }
        let wanted = i64::try_from(times * events.len()).expect("few");
        assert_eq!(world.database.count(rows).await, wanted, "at {timestamp}");
    }
}

#[tokio::test]
async fn check_prints_the_profile_and_what_was_written_down_instead() {
    let world = builder().env("LEDGERD__AUDIT__REPEATED_ID", "conflict").start().await;
    let text = text_of(&world.ledgerd(&["check"]).await);
    for line in [
        "profile: hegemon",
        "audit.event_id = \"any\"",
        "audit.missing_timestamp = \"stamp\"",
        "audit.repeated_id = \"distinct\"; you wrote \"conflict\" in the environment, which counts",
        "registry.actions_extra_files = [\"registry/hegemon.yaml\"]",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let strict = text_of(&World::start().await.ledgerd(&["check"]).await);
    assert!(strict.contains("profile: strict: no default is changed"), "{strict}");
}

#[tokio::test]
async fn an_author_of_tool_usage_is_bound_to_its_agent_id_and_is_on_record() {
    const OWN: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let folder = scratch_folder("usage");
    let file = folder.path().join("agents.yaml");
    std::fs::write(&file, format!("BRM-CTO: {}\n", OWN.to_uppercase())).expect("the folder is ours");
    let path = file.display().to_string();
    let settings = World::builder().limited_role().env("LEDGERD__USAGE__AGENTS_FILE", &path);
    let world = settings.env(USAGE_REPORTERS, "").start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let other = "11111111-d9cb-469f-a165-70867728950e";
    world.database.execute(&format!("insert into agent_registry (id) values ('{other}')")).await;
    published.publish(&world.publisher, next_event("USAGE").good()).await;
    published.publish(&world.publisher, next_event("USAGE").with("agent_id", other).bad("actor_mismatch")).await;
    let of_nobody = next_event("USAGE").published_by("WRK-010");
    published.publish(&world.publisher, of_nobody.bad("action_not_allowed")).await;
    published.publish(&world.publisher, next_event("USAGE").published_by(OWN).good()).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (2, 2));
    let authors = format!("select count(*) from ledger.tool_usage where author in ('BRM-CTO', '{OWN}')");
    assert_eq!(world.database.count(&authors).await, 2);

    for (text, says) in
        [("BRM-CFO: 0f8fad5b-d9cb-469f-a165-70867728950e", "BRM-CFO"), ("BRM-CTO: 7", "no UUID"), ("[", "agents.yaml")]
    {
        std::fs::write(&file, text).expect("the folder is ours");
        let output = ledgerd(&["run"], &world.environment).await;
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text_of(&output).contains(says), "{text}: {}", text_of(&output));
    }
}
