//! `ledgerd verify --repair-projection`: each damaged row is made anew from custody, and that is on record.

use crate::support::daemon::{ledgerd, text_of};
use crate::support::postgres::Database;
use crate::support::world::World;
use crate::verify::{Said, settled_world, unguarded, verify};
use serde_json::Value;

const GUARDED: &str = "select count(*) from pg_trigger join pg_class c on c.oid = tgrelid
    where not tgisinternal and tgenabled = 'A' and relnamespace in ('public'::regnamespace, 'ledger'::regnamespace)";

/// A copy whose guards are awake again after this damage.
async fn damaged(world: &World, damage: &str) -> Database {
    let copy = unguarded(&world.database).await;
    copy.execute(damage).await;
    copy.execute(
        "do $$ declare it record; begin
            for it in select tgrelid::regclass as tab, tgname from pg_trigger join pg_class c on c.oid = tgrelid
                where not tgisinternal and relnamespace in ('public'::regnamespace, 'ledger'::regnamespace)
            loop execute format('alter table %s enable always trigger %I', it.tab, it.tgname); end loop;
        end $$",
    )
    .await;
    copy
}

async fn repair(world: &World, database: &Database) -> Said {
    verify(world, database, &["--repair-projection", "--yes"]).await
}

fn repaired(said: &Said) -> Vec<String> {
    let rows = said.report["repaired"].as_array().into_iter().flatten();
    rows.map(|row| format!("{} {}", row["table"].as_str().unwrap_or_default(), row["id"].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn each_damaged_row_is_made_anew_and_that_is_on_record() {
    let world = settled_world().await;
    let guarded = world.database.count(GUARDED).await;
    let usage = "(select id from ledger.token_usage where not cost_given)";
    for (damage, rows) in [
        ("update audit_events set actor = 'X', details = '{\"a\":1e999}' where id = 20", vec!["audit_events 20"]),
        ("delete from audit_events where id in (20, 21)", vec!["audit_events 20", "audit_events 21"]),
        ("update audit_events set id = id + 100000 where id = 20", vec!["audit_events 20"]),
        ("alter table audit_events drop constraint audit_events_pkey; update audit_events set id = 41 - id where id in (20, 21);
            alter table audit_events add constraint audit_events_pkey primary key (id)", vec!["audit_events 20", "audit_events 21"]),
        ("update decision_trails set council_vote = '{}', created_at = null where id = 2", vec!["decision_trails 2"]),
        ("delete from economic_metrics where id = 3", vec!["economic_metrics 3"]),
        // The same and everything that was charged by it.
        ("update economic_metrics set metric_value = 0.5 where metric_key = 'token_rate_ECONOMY_output'", vec!["economic_metrics"]),
        ("update tool_usage_ledger set venture_id = null, cost_usd = 1 where execution_ms is not null", vec!["tool_usage_ledger"]),
        ("delete from tool_usage_ledger", vec!["tool_usage_ledger"]),
        (&format!("update ledger.token_usage set cost_usd = 7, input_rate_id = 1 where id = {usage}"), vec!["ledger.token_usage"]),
        (&format!("delete from ledger.token_usage where id = {usage}"), vec!["ledger.token_usage"]),
        ("truncate ledger.token_usage", vec!["ledger.token_usage"]),
        ("update token_ledger set total_tokens_input = 1, budget_status = 'BLUE' where agent_name = 'RXY-CEO'", vec!["token_ledger RXY-CEO/2026-02-20"]),
        ("truncate token_ledger", vec!["token_ledger RXY-CEO/2026-02-20"]),
        ("insert into token_ledger (agent_name, date, total_tokens_input) values ('RXY-CEO', '2026-02-21', 7)", vec!["token_ledger RXY-CEO/2026-02-21"]),
        // A usage and its day, consistently.
        ("update ledger.token_usage set cost_usd = cost_usd + 1 where id = 1;
            update token_ledger set exact_cost = exact_cost + 1, total_cost = total_cost + 1 where (agent_name, date) in (select agent_name, date from ledger.token_usage where id = 1)",
            vec!["ledger.token_usage 1", "token_ledger"]),
        ("truncate audit_events, decision_trails, economic_metrics, tool_usage_ledger, token_ledger, ledger.token_usage", vec!["audit_events 20", "token_ledger RXY-CEO/2026-02-20"]),
    ] {
        let copy = damaged(&world, damage).await;
        assert_eq!(verify(&world, &copy, &[]).await.code, Some(3), "{damage}");
        let leaves = copy.count("select size from ledger.tree_head").await;
        let said = repair(&world, &copy).await;
        assert_eq!(said.code, Some(0), "{damage}: {}", said.text);
        let done = repaired(&said);
        assert!(rows.iter().all(|row| done.iter().any(|it| it.starts_with(row))), "{damage}: {done:?}");
        // Each is an event, and stands in the tree.
        let events = copy.count("select count(*) from audit_events where action = 'PROJECTION_REPAIRED' and actor = 'ARCHITECT'").await;
        assert_eq!(usize::try_from(events).expect("a count"), done.len(), "{damage}: {done:?}");
        assert_eq!(copy.count("select size from ledger.tree_head").await, leaves + events, "{damage}");
        assert_eq!(copy.count(GUARDED).await, guarded, "{damage}: every guard is awake");
        let again = verify(&world, &copy, &[]).await;
        assert_eq!(again.code, Some(0), "{damage}: {}", again.text);
        let refused = copy.cluster().try_execute(copy.name(), "delete from audit_events").await;
        assert!(refused.is_err(), "{damage}");
    }
}

#[tokio::test]
async fn a_repair_tells_what_was_there_and_what_is_there_now() {
    let world = settled_world().await;
    let copy = damaged(&world, "update decision_trails set outcome = 'VETOED' where id = 1").await;
    repair(&world, &copy).await;
    let event =
        crate::verify::strings(&copy, "select details::text from audit_events where action = 'PROJECTION_REPAIRED'")
            .await;
    let details: Value = serde_json::from_str(&event[0]).expect("JSON");
    let row = |field: &str| -> Value { serde_json::from_str(details[field].as_str().expect("a text")).expect("JSON") };
    assert_eq!((details["table"].as_str(), details["row"].as_str()), (Some("decision_trails"), Some("1")));
    assert_eq!((row("old")["outcome"].as_str(), row("new")["outcome"].as_str()), (Some("VETOED"), Some("APPROVED")));
    assert_eq!(row("old")["trail_id"], row("new")["trail_id"]);
    // Nothing is damaged now, so nothing is repaired, and nothing recorded.
    let again = repair(&world, &copy).await;
    assert_eq!((again.code, repaired(&again)), (Some(0), vec![]));
}

#[tokio::test]
async fn what_cannot_be_vouched_for_is_not_repaired() {
    let world = settled_world().await;
    // Custody is damaged too.
    let copy = damaged(&world, "update ledger.entry set payload = payload || ' ' where leaf_index = 20; delete from audit_events where id = 20").await;
    let said = repair(&world, &copy).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("custody itself is damaged"), "{}", said.text);
    assert_eq!(copy.count("select count(*) from audit_events where id = 20").await, 0);
    // A row that no entry made is nobody's to make anew.
    let copy =
        damaged(&world, "insert into economic_metrics (metric_key, metric_value) values ('daily_limit_SYSTEM', 1)")
            .await;
    let said = repair(&world, &copy).await;
    assert_eq!((said.code, repaired(&said)), (Some(3), vec![]), "{}", said.text);
    // Nobody said yes, and somebody who does not own the tables did.
    let copy = damaged(&world, "delete from audit_events where id = 20").await;
    assert_eq!(verify(&world, &copy, &["--repair-projection"]).await.code, Some(64));
    let mut environment = world.environment.clone();
    let url = environment["LEDGERD__DATABASE__URL"].replace(world.database.name(), copy.name());
    environment
        .insert("LEDGERD__DATABASE__URL".to_owned(), url.replacen(&format!("{}_daemon", copy.name()), &world.role, 1));
    let output = ledgerd(&["verify", "--repair-projection", "--yes"], &environment).await;
    assert!(output.status.code() == Some(1) && text_of(&output).contains("must be owner"), "{}", text_of(&output));
    assert_eq!(copy.count("select count(*) from audit_events where id = 20").await, 0);
}
