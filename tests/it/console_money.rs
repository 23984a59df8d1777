//! *Money*: what each agent spent on its days, its limits and who set them, and the calls behind a day.

use crate::support::console::Console;
use crate::support::daemon::text_of;
use crate::support::ledger::settled;
use crate::support::published::Published;
use crate::support::records::{metric, spend};
use crate::support::world::World;
use crate::tables::{publish_in_turn, text, today};
use serde_json::{Value, json};

/// The UTC day so many days ago.
async fn day(world: &World, ago: u32) -> String {
    text(world, &format!("select ((now() at time zone 'UTC')::date - {ago})::text")).await
}

async fn spent(world: &World) -> Published {
    let mut published = Published::default();
    let messages = vec![
        metric("VRA-CFO", "daily_limit_RXY-CEO", 1.0).good(),
        metric("ARCHITECT", "daily_limit_RXY-CEO", 2.0).good(),
        metric("ARCHITECT", "daily_limit_WORKERS", 2.0).good(),
        spend("RXY-CEO", 1.5, &day(world, 3).await).good(),
        spend("RXY-CEO", 2.5, &day(world, 1).await).good(),
        spend("RXY-CEO", 0.25, &today()).with("task_id", "T-<1>").with("usage_id", "call-1").good(),
        spend("WRK-001", 0.5, &today()).good(),
        spend("SRN-MRS-01", 9.0, &day(world, 30).await).good(),
    ];
    publish_in_turn(world, &mut published, messages).await;
    published
}

#[tokio::test]
async fn days_are_shown_by_agent_with_the_limit_and_who_set_it() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let console = Console::start(&world.environment).await;
    assert!(
        console.page("/money").await.contains("Nobody has spent anything in these days"),
        "an empty state says what to do"
    );
    spent(&world).await;
    let money = console.api("/budgets").await;
    assert_eq!((money["dates"].as_array().map(Vec::len), &money["dates"][6]), (Some(7), &json!(today())));
    let agents = money["agents"].as_array().expect("a list");
    let names: Vec<&str> = agents.iter().filter_map(|agent| agent["agent"].as_str()).collect();
    assert_eq!(names, ["RXY-CEO", "WRK-001"], "30 days ago is beyond these days");
    let ceo = &agents[0];
    assert_eq!(ceo["limit"]["limit_usd"], "2");
    assert_eq!(
        (&ceo["limit"]["set_by"], &agents[1]["limit"]["limit_key"]),
        (&json!("ARCHITECT"), &json!("daily_limit_WORKERS"))
    );
    let days: Vec<String> = ceo["days"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|day| {
            format!("{} {}", day["spent_usd"].as_str().unwrap_or_default(), day["status"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(days, ["1.5 YELLOW", "2.5 EXCEEDED", "0.25 GREEN"]);
    assert_eq!(console.api("/budgets?days=90").await["agents"].as_array().map(Vec::len), Some(3));
    let page = console.page("/money").await;
    assert!(page.contains("2.50") && page.contains("class=\"number status bad\""), "{page}");
    assert!(page.contains("ARCHITECT, ") && page.contains("2.00"), "{page}");
    assert!(console.api("/budgets?days=99999").await["dates"].as_array().is_some_and(|dates| dates.len() == 90));
}

#[tokio::test]
async fn an_agent_has_its_days_its_limits_its_changes_and_the_calls_behind_a_day() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let console = Console::start(&world.environment).await;
    let mut published = spent(&world).await;
    let history = console.api("/budgets/RXY-CEO/history").await;
    assert_eq!(
        (history["dates"].as_array().map(Vec::len), &history["today"]["remaining_usd"]),
        (Some(90), &json!("1.75"))
    );
    let limits: Vec<&str> =
        history["limits"].as_array().expect("a list").iter().filter_map(|it| it["limit_usd"].as_str()).collect();
    assert_eq!(limits, ["2", "1"], "the newest first");
    let changes: Vec<String> = history["alerts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            format!(
                "{}→{}",
                it["old_status"].as_str().unwrap_or_default(),
                it["new_status"].as_str().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(changes, ["GREEN→EXCEEDED", "GREEN→YELLOW"]);
    let calls = console.api("/budgets/RXY-CEO/calls").await;
    assert_eq!((&calls["date"], &calls["cursor"]), (&json!(today()), &Value::Null));
    assert_eq!((&calls["calls"][0]["usage_id"], &calls["calls"][0]["cost_usd"]), (&json!("call-1"), &json!("0.25")));
    let page = console.page("/money/RXY-CEO").await;
    for shown in
        ["call-1", "T-&lt;1&gt;", "daily_limit_RXY-CEO", "1.75 USD are left", "line: the limit in force, 2.00 USD"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("T-<1>"), "what an agent wrote is escaped");
    let yesterday = day(&world, 1).await;
    let page = console.page(&format!("/money/RXY-CEO?date={yesterday}")).await;
    assert!(page.contains(&format!("Calls of {yesterday}")) && !page.contains("call-1"));
    assert!(console.page("/money/RXY-CEO?date=yesterday").await.contains(&format!("Calls of {}", today())));

    // More calls than a page has room for, each once.
    let calls: Vec<_> =
        (0..120).map(|n| spend("WRK-002", 0.001, &today()).with("usage_id", format!("many-{n}")).good()).collect();
    published.publish_all(&world.publisher, calls).await;
    settled(&world, &published).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for expected in [50, 50, 20] {
        let answer = console.api(&format!("/budgets/WRK-002/calls?cursor={cursor}")).await;
        let calls = answer["calls"].as_array().expect("a list");
        assert_eq!(calls.len(), expected);
        seen.extend(calls.iter().map(|call| call["usage_id"].as_str().expect("a text").to_owned()));
        cursor = answer["cursor"].as_str().unwrap_or_default().to_owned();
    }
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), cursor.as_str()), (120, ""));
    let nobody = console.get("/money/NOBODY-01").await;
    assert!(nobody.status == 404 && nobody.text().contains("agent_schema.yaml"), "{}", nobody.text());
}

#[tokio::test]
async fn spend_shows_the_same_without_a_browser() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let nothing = world.ledgerd_ok(&["spend"]).await;
    assert!(nothing.starts_with("nobody has spent anything"), "{nothing}");
    spent(&world).await;
    let console = Console::start(&world.environment).await;
    let said = world.ledgerd_ok(&["spend"]).await;
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["RXY-CEO", "-", "-", "-", "1.5", "-", "2.5", "0.25", "2", "GREEN"], "{said}");
    assert_eq!(lines[2], ["WRK-001", "-", "-", "-", "-", "-", "-", "0.5", "2", "GREEN"], "{said}");
    let json: Value = serde_json::from_str(&world.ledgerd_ok(&["spend", "--json", "--days", "7"]).await).expect("JSON");
    assert_eq!(json, console.api("/budgets").await);
    let agent = world.ledgerd_ok(&["spend", "--agent", "RXY-CEO"]).await;
    assert!(agent.starts_with("RXY-CEO: GREEN, 0.25 USD spent today, limit 2, left 1.75"), "{agent}");
    assert!(agent.contains("GREEN to EXCEEDED") && agent.contains("VRA-CFO"), "{agent}");
    let nobody = world.ledgerd(&["spend", "--agent", "NOBODY-01"]).await;
    assert_eq!(nobody.status.code(), Some(64), "{}", text_of(&nobody));
}
