//! The commands around the daemon, as a person or a script meets them.

use crate::starting::change_consumer;
use crate::support::daemon::{ledgerd_with_input, text_of};
use crate::support::events::{event, next_event};
use crate::support::ledger::check_ledger;
use crate::support::published::Published;
use crate::support::receiver::notify_setting;
use crate::support::world::World;
use serde_json::Value;
use std::collections::BTreeSet;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn emit_fills_in_what_is_absent_and_the_event_becomes_a_row() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let arguments = ["emit", "--actor", "BRM-CTO", "--action", "EXECUTION_STARTED", "--outcome", "SUCCESS", "--json"];
    let first = json(&world.ledgerd_ok(&arguments).await);
    assert_eq!((first["subject"].as_str(), first["sequence"].as_u64()), (Some("ledger.EXEC.BRM-CTO"), Some(1)));
    let event = event("SEC", "WRK-006", 7).with("details", serde_json::json!({"n": 1}));
    let input = String::from_utf8(event.without("timestamp").without("event_id").payload()).expect("UTF-8");
    let output = ledgerd_with_input(&["--json", "emit", "--lane", "SEC", "-"], &world.operator, &input).await;
    assert!(output.status.success(), "{}", text_of(&output));
    let intact = "select count(*) from audit_events_integrity where intact and event_id not like 'SYS-%'";
    crate::support::eventually("both are rows", crate::support::SOON, async || {
        let count = world.database.count(intact).await;
        crate::support::when(count == 2, || count.to_string())
    })
    .await;
    let whole = String::from_utf8(next_event("ERR").payload()).expect("UTF-8");
    let output = ledgerd_with_input(&["emit"], &world.operator, &whole).await;
    assert!(output.status.success(), "{}", text_of(&output));
    let nothing = world.ledgerd(&["emit", "--actor", "BRM-CTO"]).await;
    assert_eq!(nothing.status.code(), Some(64), "{}", text_of(&nothing));
}

#[tokio::test]
async fn status_and_dlq_show_what_the_ledger_holds() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    let bad = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    let bytes = String::from_utf8(bad.payload.clone()).expect("UTF-8");
    published.publish(&world.publisher, bad).await;
    check_ledger(&world, &published).await;

    let status = json(&world.ledgerd_ok(&["status", "--json"]).await);
    assert_eq!((status["rejected"].as_i64(), status["lanes"].as_array().map(Vec::len)), (Some(1), Some(15)));
    assert!(world.ledgerd_ok(&["status"]).await.contains("EXEC"));
    let list = json(&world.ledgerd_ok(&["dlq", "list", "--json"]).await);
    let reference = list[0]["reference"].as_str().expect("a reference");
    let shown = json(&world.ledgerd_ok(&["dlq", "show", reference, "--json"]).await);
    assert_eq!((shown["reason"].as_str(), shown["payload"].as_str()), (Some("unknown_action"), Some(bytes.as_str())));
    assert!(world.ledgerd_ok(&["dlq", "show", reference]).await.contains("NO_SUCH"));
    assert_eq!(world.ledgerd(&["dlq", "show", "nothing"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn check_says_line_by_line_what_is_right_and_what_is_not() {
    let world = World::builder().limited_role().start().await;
    // As the daemon's own role.
    let check = async || crate::support::daemon::ledgerd(&["check", "--json"], &world.environment).await;
    let lines = |output: &std::process::Output| json(&String::from_utf8_lossy(&output.stdout));
    let bad_lines = |value: &Value| -> Vec<String> {
        let lines = value.as_array().expect("lines").iter();
        lines
            .filter(|line| line["result"] == "bad")
            .map(|line| line["text"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let output = check().await;
    let unexpected: Vec<_> =
        bad_lines(&lines(&output)).into_iter().filter(|line| !line.contains("fsync is off")).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");

    world.database.execute(&format!("revoke insert on ledger.batch from {}", world.role)).await;
    change_consumer(&world, "VOTE", "headers_only", true).await;
    let stream = world.jetstream().await.get_stream("LEDGER").await.expect("setup made it");
    stream.delete_consumer("ledgerd-PROP").await.expect("setup made it");
    let output = check().await;
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    let bad = bad_lines(&lines(&output)).join("\n");
    for says in ["INSERT on ledger.batch", "consumer ledgerd-VOTE: headers_only"] {
        assert!(bad.contains(says), "{says}: {bad}");
    }
    // The daemon makes it.
    assert!(text_of(&output).contains("consumer ledgerd-PROP: not there; it is made"), "{}", text_of(&output));
    world.nats().kill();
    assert_eq!(check().await.status.code(), Some(69));
}

#[tokio::test]
async fn each_migration_is_recorded_once_in_the_same_custody() {
    let world = World::start().await;
    world.ledgerd_ok(&["migrate"]).await;
    let recorded = "select count(*) from ledger.entry join ledger.epoch using (epoch) join audit_events on id = row_id \
        where stream = 'ledgerd' and action = 'SCHEMA_MIGRATION' and disposition = 'recorded'";
    let migrations = world.database.count("select count(*) from ledger.migration").await;
    assert_eq!(world.database.count(recorded).await, migrations);
    check_ledger(&world, &Published::default()).await;
}

#[tokio::test]
async fn the_ledger_is_append_only_even_for_its_owner() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
    check_ledger(&world, &published).await;
    for statement in [
        "update audit_events set actor = 'x'",
        "delete from audit_events",
        "truncate audit_events",
        "update ledger.batch set payloads = array_fill(''::bytea, array[leaves])",
        "delete from ledger.batch",
        "delete from ledger.entry",
        "truncate ledger.batch",
        "truncate ledger.erased",
        "update ledger.dead_letter set reason = 'x'",
        "update ledger.dead_letter set published_at = null",
        "delete from ledger.dead_letter",
        "delete from ledger.tree_head",
        "insert into ledger.tree_head values (false, 0, '', '')",
        "update ledger.tree_head set size = 0",
        "update ledger.epoch set stream = 'x'",
        "delete from ledger.subtree where false; truncate ledger.subtree",
        "set session_replication_role = replica; delete from audit_events",
    ] {
        let refused = world.cluster().try_execute(world.database.name(), statement).await;
        assert!(refused.is_err(), "{statement}");
    }
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn help_completions_and_manual_are_written() {
    let world = World::start().await;
    let help = world.ledgerd_ok(&["--help"]).await;
    for command in [
        "run",
        "setup",
        "migrate",
        "check",
        "emit",
        "status",
        "nats-accounts",
        "verify",
        "replay",
        "reconcile",
        "prove",
        "verify-proof",
        "keygen",
        "checkpoint",
        "dlq",
        "retention",
        "completions",
        "man",
        "Exit codes",
    ] {
        assert!(help.contains(command), "{command}");
    }
    assert!(world.ledgerd_ok(&["completions", "bash"]).await.contains("ledgerd"));
    assert!(world.ledgerd_ok(&["man"]).await.contains(".TH"));
    assert_eq!(world.ledgerd(&["fly"]).await.status.code(), Some(64));
}

/// The table of docs/metrics.md is the reference: it names every metric, and no other.
#[tokio::test]
async fn docs_metrics_names_every_metric() {
    let target = notify_setting(&[("n8n", "http://127.0.0.1:1/", &["reject"], "")]);
    let world = World::builder().env("LEDGERD__NOTIFY", &target).start().await;
    let daemon = world.daemon().await;
    let served = daemon.get("/metrics").await.expect("it answers").body;
    let served: BTreeSet<&str> = served
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let page = include_str!("../../docs/metrics.md");
    let documented: BTreeSet<&str> = page
        .split('`')
        .filter(|word| word.starts_with("ledgerd_") && !word.contains(' '))
        .map(|word| word.split('{').next().unwrap_or(word))
        .map(|word| word.strip_suffix("_total").unwrap_or(word))
        .map(|word| if word == "ledgerd_build_info" { "ledgerd_build" } else { word })
        .collect();
    assert_eq!(served, documented);
}
