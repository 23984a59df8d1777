//! What a call costs that does not say it: the rates in force when it was published, however late it or they are stored.

use crate::support::events::{Event, Outgoing, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::published::Published;
use crate::support::records::{metric, spend};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use crate::tables::{DAY, publish_in_turn, text};
use crate::verify::{unguarded, verify};

/// A rate of the tier STANDARD, in USD per 1,000 tokens.
fn rate(direction: &str, usd: f64) -> Outgoing {
    metric("VRA-CFO", &format!("token_rate_STANDARD_{direction}"), usd).good()
}

/// A call at the rates of that tier.
fn call() -> Event {
    next_event("TOKENS").without("cost_usd").with("model_tier", "STANDARD")
}

/// One that read so many tokens, and wrote none.
fn call_of(tokens: i64) -> Outgoing {
    call().with("tokens_input", tokens).with("tokens_output", 0).good()
}

#[tokio::test]
async fn a_cost_is_computed_from_the_rates_in_force_and_an_unknown_rate_is_a_reject_that_can_come_again() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let call = spend("RXY-CEO", 0.0, DAY).without("cost_usd").with("tokens_input", 1).with("tokens_output", 2);
    let call = call.with("model_used", "Claude Haiku").with("usage_id", "call-1");
    published.publish(&world.publisher, call.bad("unknown_reference")).await;
    settled(&world, &published).await;
    let detail = text(&world, "select detail from ledger.dead_letter").await;
    assert!(detail.contains("economic_metrics has no token_rate_ECONOMY_input"), "{detail}");

    let rates = vec![
        metric("VRA-CFO", "token_rate_ECONOMY_input", 9.0).good(),
        metric("VRA-CFO", "token_rate_ECONOMY_output", 0.001_25).good(),
        metric("VRA-CFO", "token_rate_ECONOMY_input", 0.000_25).good(),
        call.good(),
        metric("VRA-CFO", "token_rate_ECONOMY_input", 7.0).good(),
        // The same call again costs what it did.
        call.again(),
    ];
    publish_in_turn(&world, &mut published, rates).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (5, 1, 1));
    let exact = text(&world, "select exact_cost::text from token_ledger").await;
    assert_eq!(exact.parse::<f64>(), Ok(0.000_002_75), "{exact}");
}

/// After an outage all lanes are worked off at once, and none waits for another but for what it refers to.
#[tokio::test]
async fn usage_waits_for_a_rate_that_was_published_before_it() {
    let world = World::start().await;
    world.database.execute("alter table economic_metrics add constraint nothing check (false) not valid").await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, vec![rate("input", 0.003), rate("output", 0.015)]).await;
    published.publish(&world.publisher, call().good()).await;
    published.publish(&world.publisher, call().with("model_tier", "GOLDEN").bad("unknown_reference")).await;
    daemon.says("TOKENS waits before charging usage at its rates").await;
    assert_eq!(world.database.count("select count(*) from ledger.dead_letter").await, 0);
    world.database.execute("alter table economic_metrics drop constraint nothing").await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (3, 1));
}

/// There is a rate already, and the lane that brings the new one is slower.
#[tokio::test]
async fn usage_is_charged_at_a_rate_that_was_published_before_it_and_is_stored_late() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, vec![rate("input", 3.0), rate("output", 1.0)]).await;
    settled(&world, &published).await;
    world.database.execute("alter table economic_metrics add constraint nothing check (false) not valid").await;
    published.publish_all(&world.publisher, vec![rate("input", 5.0), call_of(1000)]).await;
    daemon.says("TOKENS waits before charging usage at its rates").await;
    world.database.execute("alter table economic_metrics drop constraint nothing").await;
    check_ledger(&world, &published).await;
    let cost = "select string_agg(trim_scale(cost_usd)::text, ' ') from ledger.token_usage";
    assert_eq!(text(&world, cost).await, "5");
}

#[tokio::test]
async fn usage_that_is_stored_late_is_charged_at_the_rates_of_its_own_time() {
    let world = World::start().await;
    let mut published = Published::default();
    published.publish(&world.publisher, rate("output", 1.0)).await;
    // One before there was any rate, and one under each; then the rate falls once more.
    for (tokens, usd) in [(1000, 3.0), (1001, 5.0), (1002, 1.0)] {
        published.publish_all(&world.publisher, vec![call_of(tokens), rate("input", usd)]).await;
    }
    let mut rates_first = world.spawn_daemon_with(&[("LEDGERD__PIPELINE__LANES", "METRIC")]);
    eventually("the rates are stored", SOON, async || {
        let count = world.database.count("select count(*) from economic_metrics").await;
        when(count == 4, || count.to_string())
    })
    .await;
    rates_first.sigterm();
    assert_eq!(rates_first.wait_exit().await, 0);
    let _daemon = world.daemon().await;
    check_ledger(&world, &published).await;
    let costs = "select string_agg(trim_scale(cost_usd)::text, ' ' order by tokens_input) from ledger.token_usage";
    assert_eq!(text(&world, costs).await, "3 3.003 5.01");
    world.ledgerd_ok(&["verify"]).await;
}

/// As where the older was redelivered after an instance was killed.
#[tokio::test]
async fn a_rate_that_is_stored_after_a_newer_one_does_not_take_its_place() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    let all = vec![rate("output", 1.0), rate("input", 3.0), rate("input", 5.0), call().good()];
    publish_in_turn(&world, &mut published, all).await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    let spoiled = unguarded(&world.database).await;
    // They were published in the same order, and stored in the other, hours before the usage.
    let hours_ago = |value: &str, published: i64, stored: i64| {
        format!(
            "update economic_metrics set created_at = created_at - interval '{stored} hours',
                published_ns = published_ns - {published} * 3600000000000
            where metric_value = {value};"
        )
    };
    spoiled.execute(&[hours_ago("3", 9, 3), hours_ago("5", 8, 5)].concat()).await;
    let of_usage = async || {
        let differences = verify(&world, &spoiled, &[]).await.differences();
        assert!(differences.iter().any(|it| it.starts_with("economic_metrics ")), "{differences:?}");
        differences.into_iter().filter(|it| it.starts_with("ledger.token_usage ")).collect::<Vec<_>>()
    };
    assert_eq!(of_usage().await, Vec::<String>::new());
    spoiled
        .execute(
            "update ledger.token_usage set input_rate_id = (select id from economic_metrics where metric_value = 3)",
        )
        .await;
    assert_eq!(of_usage().await, ["ledger.token_usage 1: input_rate_id"]);
}

/// A hidden row is not an absent one.
#[tokio::test]
async fn policies_that_hide_what_usage_refers_to_make_it_wait() {
    let world = World::builder().limited_role().start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    publish_in_turn(&world, &mut published, vec![rate("input", 0.003), rate("output", 0.015)]).await;
    world.database.execute("alter table economic_metrics enable row level security").await;
    published.publish(&world.publisher, next_event("TOKENS").without("cost_usd").good()).await;
    let missing = daemon.unready().await;
    assert!(missing.contains("row-level security") || missing.contains("row security"), "{missing}");
    world.database.execute("alter table economic_metrics disable row level security").await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!(counts.rejects, 0);
}
