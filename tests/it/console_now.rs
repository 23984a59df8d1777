//! *Now*: each card appears with its cause and goes with its cure, and where nothing is to be done there is no card.

use crate::support::console::Console;
use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::events::{good_events, next_event};
use crate::support::ledger::{all_lanes_are_owned, check_ledger, settled};
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::records::{metric, spend};
use crate::support::signed::{ORIGIN, fill, sign, sign_at};
use crate::support::world::World;
use crate::support::{SOON, eventually};
use crate::tables::{publish_in_turn, today};
use serde_json::Value;
use std::time::{Duration, Instant};

fn kinds(now: &Value) -> Vec<&str> {
    now["cards"].as_array().expect("a list").iter().map(|card| card["kind"].as_str().expect("a kind")).collect()
}

/// Waits until these cards are there, and no others.
async fn has_cards(console: &Console, expected: &[&str]) -> Value {
    eventually(&format!("the cards are {expected:?}"), SOON, async || {
        let now = console.api("/now").await;
        let found = kinds(&now);
        if found == expected { Ok(now.clone()) } else { Err(format!("{found:?}: {}", now["cards"])) }
    })
    .await
}

/// The console without the address of a nats-server, for what the database alone says.
async fn console_of(world: &World) -> Console {
    let mut environment: Environment = world.environment.clone();
    environment.remove("LEDGERD__NATS__URL");
    Console::start(&environment).await
}

/// Nobody reads the lanes of a world without streams.
const UNREAD: &str = "lanes_without_owner";

#[tokio::test]
async fn an_untroubled_ledger_has_one_sentence_and_no_card() {
    let folder = scratch_folder("now");
    let key = folder.path().join("key");
    let anchor = folder.path().join("anchor");
    let world = World::builder()
        .env("LEDGERD__CHECKPOINT__KEY_FILE", key.to_str().expect("UTF-8"))
        .env("LEDGERD__CHECKPOINT__ANCHOR_FILE", anchor.to_str().expect("UTF-8"))
        .start()
        .await;
    world.ledgerd_ok(&["keygen", "--name", ORIGIN, "--out", key.to_str().expect("UTF-8")]).await;
    let mut daemon = world.daemon().await;
    all_lanes_are_owned(&world).await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(30)).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    let now = has_cards(&console, &[]).await;
    assert_eq!(now["is_well"], true);
    let entries = world.database.count("select size from ledger.tree_head").await;
    let sentence = now["sentence"].as_str().expect("a text");
    assert!(sentence.starts_with(&format!("All 15 lanes keep up. {entries} entries; the newest ")), "{sentence}");
    let signed = eventually("the sentence says when it was signed", SOON, async || {
        let now = console.api("/now").await;
        let sentence = now["sentence"].as_str().unwrap_or_default().to_owned();
        if sentence.contains("; signed ") { Ok(sentence) } else { Err(sentence) }
    })
    .await;
    let page = console.page("/").await;
    assert!(page.contains("All 15 lanes keep up.") && !page.contains("what to do"), "{signed}\n{page}");
    let lanes = now["lanes"].as_array().expect("a list");
    assert_eq!((lanes.len(), &now["stream_unknown"]), (15, &Value::Null));
    assert!(lanes.iter().all(|lane| lane["stream"]["waiting"] == 0), "{lanes:?}");
    let committed = |name: &str| {
        let quarters = now["quarters"].as_array().expect("a list");
        quarters.iter().map(|quarter| quarter[name].as_i64().expect("a number")).sum::<i64>()
    };
    assert_eq!((committed("recorded"), committed("duplicates"), committed("rejected")), (entries, 0, 0));
    let by_hour = lanes.iter().flat_map(|lane| lane["hours"].as_array().expect("a list"));
    let by_hour = by_hour.map(|entries| entries.as_f64().expect("a number")).sum::<f64>().round();
    let of_lanes =
        world.database.count("select count(*) from ledger.entry where subject not like 'ledger.SYS.ARCHITECT'").await;
    assert!(by_hour >= f64::from(i32::try_from(of_lanes).expect("few")), "{by_hour} of {of_lanes}");

    // A daemon that has ended, and one that was started again.
    daemon.sigterm();
    daemon.wait_exit().await;
    let now = has_cards(&console, &["lanes_without_owner"]).await;
    assert!(now["sentence"].as_str().is_some_and(|it| it.starts_with("No lane is read.")), "{now}");
    assert!(console.page("/").await.contains("/docs/runbook.md#ledgerddown"));
    let _daemon = world.daemon().await;
    has_cards(&console, &[]).await;
    // The server goes away. Whatever else follows from that, it is told, and the page does not wait for it.
    world.nats().stop().await;
    eventually("the card of the silent server", SOON, async || {
        let now = console.api("/now").await;
        if kinds(&now).contains(&"stream_silent") { Ok(()) } else { Err(now["cards"].to_string()) }
    })
    .await;
    let asked_at = Instant::now();
    assert!(console.page("/").await.contains("unknown"), "what waits is not known");
    assert!(asked_at.elapsed() < Duration::from_secs(4), "{:?}", asked_at.elapsed());
}

#[tokio::test]
async fn spending_and_dead_letters_have_cards_until_somebody_acts() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    all_lanes_are_owned(&world).await;
    let console = Console::start(&world.environment).await;
    let mut published = Published::default();
    let key = "daily_limit_SRN-MRS-01";
    let messages = vec![metric("VRA-CFO", key, 1.0).good(), spend("SRN-MRS-01", 0.95, &today()).good()];
    publish_in_turn(&world, &mut published, messages).await;
    let near = has_cards(&console, &["budget_near"]).await;
    assert_eq!(near["cards"][0]["title"], "SRN-MRS-01 is near its budget");
    publish_in_turn(&world, &mut published, vec![spend("SRN-MRS-01", 0.1, &today()).good()]).await;
    let over = has_cards(&console, &["budget_exceeded"]).await;
    let says = over["cards"][0]["says"].as_str().expect("a text");
    assert!(says.starts_with("1.05 of 1 USD today, since ") && says.contains("VRA-CFO's"), "{says}");
    assert_eq!(over["cards"][0]["link"]["address"], "/money/SRN%2DMRS%2D01");
    assert!(console.page("/").await.contains("SRN-MRS-01 is over its budget"));
    publish_in_turn(&world, &mut published, vec![metric("VRA-CFO", key, 5.0).good()]).await;
    has_cards(&console, &[]).await;

    let bad = |n: usize| (0..n).map(|_| next_event("EXEC").with("action", "NO_SUCH<b>").bad("unknown_action"));
    published.publish_all(&world.publisher, bad(2).collect()).await;
    published.publish(&world.publisher, next_event("EXEC").without("outcome").bad("missing_field")).await;
    settled(&world, &published).await;
    let letters = has_cards(&console, &["open_dead_letters"]).await;
    assert_eq!(letters["cards"][0]["title"], "3 dead letters wait for a decision");
    assert_eq!(letters["cards"][0]["says"], "By reason: 2 unknown_action, 1 missing_field.");
    let discard =
        |reason: &'static str| ["dlq", "discard", "--all-matching", "--reason", reason, "--by", "Ops", "--why", "x"];
    world.ledgerd_ok(&discard("missing_field")).await;
    let letters = has_cards(&console, &["open_dead_letters"]).await;
    assert_eq!(letters["cards"][0]["link"]["address"], "/rejects?reason=unknown%5Faction");
    let page = console.page("/").await;
    assert!(page.contains("NO_SUCH&lt;b&gt;") && !page.contains("NO_SUCH<b>"), "what a publisher wrote is escaped");
    world.ledgerd_ok(&discard("unknown_action")).await;
    has_cards(&console, &[]).await;
}

/// A run that came to an end so many days ago.
fn run(what: &str, days: u32, findings: u32) -> String {
    format!(
        "insert into ledger.run (what, scope, started_at, ended_at, entries, findings, summary, program_version)
        values ('{what}', 'whole', now() - interval '{days} days 1 minute', now() - interval '{days} days', 1, {findings},
            '{{\"first\": [\"audit_events id 17: actor is X\"], \"missing\": {findings}}}', '0')"
    )
}

#[tokio::test]
async fn a_ledger_that_nobody_signs_or_checks_says_so_until_somebody_does() {
    let world = World::builder().without_streams().start().await;
    let console = console_of(&world).await;
    let now = has_cards(&console, &[UNREAD]).await;
    assert_eq!(now["stream_unknown"], "nats.url is not set for the console");
    // Its entries are of 1970.
    let world = World::builder().without_streams().without_migrations().start().await;
    world.ledgerd_ok(&["migrate"]).await;
    fill(&world.database, 500).await;
    let aged = "set session_replication_role = replica; set ledgerd.migrating = on; alter table ledger.batch disable trigger all;
        update ledger.batch set committed_at = to_timestamp(0) where committed_at > now() - interval '1 day'";
    world.database.execute(aged).await;
    let console = console_of(&world).await;
    let all = [UNREAD, "log_not_signed", "verify_overdue", "reconcile_overdue"];
    has_cards(&console, &all).await;
    sign_at(&world.database, 200).await;
    let unsigned = has_cards(&console, &[UNREAD, "checkpoint_old", "verify_overdue", "reconcile_overdue"]).await;
    let says = unsigned["cards"][1]["says"].as_str().expect("a text");
    assert!(says.starts_with("300 entries lack a signature"), "{says}");
    sign(&world.database).await;
    has_cards(&console, &[UNREAD, "verify_overdue", "reconcile_overdue"]).await;

    // What the test filled in is no ledger: the verification itself puts on record what it found.
    assert_eq!(world.ledgerd(&["verify"]).await.status.code(), Some(3));
    has_cards(&console, &[UNREAD, "verify_found", "reconcile_overdue"]).await;
    for (runs, cards) in [
        (run("verify", 0, 2), &[UNREAD, "verify_found", "reconcile_overdue"][..]),
        (run("verify", 9, 0), &[UNREAD, "verify_overdue", "reconcile_overdue"]),
        (run("verify", 0, 0), &[UNREAD, "reconcile_overdue"]),
        (run("reconcile", 0, 3), &[UNREAD, "reconcile_found"]),
        (run("reconcile", 3, 0), &[UNREAD, "reconcile_overdue"]),
        (run("reconcile", 0, 0), &[UNREAD]),
    ] {
        world.database.execute(&runs).await;
        has_cards(&console, cards).await;
    }
}

#[tokio::test]
async fn what_the_stream_lost_and_whom_the_webhooks_refused_is_told_for_a_while() {
    let world = World::builder().without_streams().start().await;
    let console = console_of(&world).await;
    let gap = |sequence: u32, days: u32| {
        format!(
            "insert into ledger.gap (epoch, lane, first_sequence, last_sequence, noticed_at, why)
            values (1, 'EXEC', {sequence}, {sequence}, now() - interval '{days} days', 'the stream had lost them')"
        )
    };
    world.database.execute(&gap(1, 8)).await;
    has_cards(&console, &[UNREAD]).await;
    world.database.execute(&gap(2, 1)).await;
    let gap = has_cards(&console, &[UNREAD, "gap"]).await;
    assert!(gap["cards"][1]["says"].as_str().is_some_and(|says| says.starts_with("Up to 1 sequences")), "{gap}");
    let refused =
        "insert into ledger.refusal values (1, 401, 'audit', '10.0.0.1', 5, now() - interval '3 hours', now())";
    world.database.execute(refused).await;
    has_cards(&console, &[UNREAD, "gap", "webhooks_refused"]).await;
    world.database.execute("update ledger.refusal set last_at = now() - interval '2 hours'").await;
    has_cards(&console, &[UNREAD, "gap"]).await;
}

#[tokio::test]
async fn a_lane_that_stands_still_has_a_card() {
    let world = World::builder().shipped_nats().env("LEDGERD__STALL__TELL_AFTER", "1s").start().await;
    let daemon = world.daemon().await;
    all_lanes_are_owned(&world).await;
    let console = Console::start(&world.operator).await;
    has_cards(&console, &[]).await;
    let (pull, nothing) = ("\"$JS.API.CONSUMER.MSG.NEXT.LEDGER.ledgerd-EXEC\"", "\"nothing\"");
    world.nats().reconfigure(|text| text.replace(pull, nothing)).await;
    daemon.says("Permissions Violation").await;
    let mut published = Published::default();
    // What was asked for before may still be delivered.
    for _ in 0..3 {
        published.publish(&world.publisher, next_event("EXEC").good()).await;
        daemon.get("/livez").await.expect("the daemon answers");
    }
    let still = eventually("the card of the lane", SOON, async || {
        let now = console.api("/now").await;
        if kinds(&now).contains(&"lane_stands_still") { Ok(now) } else { Err(now["cards"].to_string()) }
    })
    .await;
    assert!(still["cards"].to_string().contains("Lane EXEC stands still"), "{still}");
    world.nats().reconfigure(|text| text.replace(nothing, pull)).await;
    check_ledger(&world, &published).await;
    has_cards(&console, &[]).await;
}

#[tokio::test]
async fn runs_are_put_on_record_and_a_login_that_may_not_write_changes_no_result() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(15)).await;
    check_ledger(&world, &published).await;
    for command in [&["verify"][..], &["verify", "--from", "2026-01-01"], &["reconcile"], &["reconcile", "--all"]] {
        let output = world.ledgerd(command).await;
        assert!(output.status.success() && !text_of(&output).contains("not on record"), "{}", text_of(&output));
    }
    let runs = crate::tables::text(
        &world,
        "select string_agg(what || ' ' || scope || ' ' || findings, ', ' order by id) from ledger.run",
    );
    assert_eq!(runs.await, "verify whole 0, verify range 0, reconcile new 0, reconcile whole 0");
    let entries = world.database.count("select entries from ledger.run where id = 1").await;
    assert_eq!(entries, world.database.count("select size from ledger.tree_head").await);

    let forged = "set ledgerd.migrating = on; alter table audit_events disable trigger all;
        update audit_events set actor = 'X' where id = (select max(id) from audit_events)";
    world.database.execute(forged).await;
    let writing = world.ledgerd(&["verify"]).await;
    let reader = world.database.create_role("reader").await;
    world.ledgerd_ok(&["migrate", "--roles"]).await;
    world.database.execute(&format!("grant ledgerd_reader to {reader}")).await;
    let mut environment = world.operator.clone();
    let url = world.database.cluster().url_as(world.database.name(), &reader);
    environment.insert("LEDGERD__DATABASE__URL".to_owned(), url);
    let reading = ledgerd(&["verify"], &environment).await;
    assert_eq!(
        (reading.status.code(), &reading.stdout),
        (writing.status.code(), &writing.stdout),
        "{}",
        text_of(&reading)
    );
    assert_eq!(reading.status.code(), Some(3));
    let said = String::from_utf8_lossy(&reading.stderr).into_owned();
    assert_eq!(said.lines().filter(|line| line.contains("not on record")).count(), 1, "{said}");
    assert_eq!(world.database.count("select count(*) from ledger.run").await, 5);
    let first = crate::tables::text(&world, "select summary->'first'->>0 from ledger.run where id = 5").await;
    assert!(first.starts_with("audit_events id "), "{first}");
    assert_eq!(
        world.database.count("select count(*) from ledger.run where by_role = session_user").await,
        5,
        "whoever it was, as the database saw it"
    );
}

#[tokio::test]
async fn status_tells_what_the_database_knows_when_nats_is_away() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    check_ledger(&world, &published).await;
    daemon.sigterm();
    daemon.wait_exit().await;
    let with = world.ledgerd_ok(&["status"]).await;
    world.nats().stop().await;
    let without = world.ledgerd(&["status"]).await;
    assert_eq!(without.status.code(), Some(69), "{}", text_of(&without));
    let said = String::from_utf8_lossy(&without.stdout).into_owned();
    let before_lanes = |text: &str| text.split("\nlane").next().map(str::to_owned);
    assert_eq!(before_lanes(&said), before_lanes(&with));
    assert!(said.contains("EXEC         unknown"), "{said}");
    assert!(String::from_utf8_lossy(&without.stderr).contains("NATS"), "{}", text_of(&without));
    let json = world.ledgerd(&["status", "--json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((json["lanes"].as_array().map(Vec::len), &json["lanes"][0]["lag"]), (Some(15), &Value::Null));
    assert!(json["stream_not_asked"].as_str().is_some_and(|why| why.starts_with("NATS")), "{json}");
}
