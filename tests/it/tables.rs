//! The four tables beside `audit_events`: what is added up, what is looked up, and what is waited for.

use crate::support::events::{Outgoing, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::proxy::{Direction, TcpProxy};
use crate::support::published::Published;
use crate::support::records::{AGENT_ID, VENTURE_ID, metric, spend};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use crate::verify::verify;
use futures_util::StreamExt as _;
use serde_json::Value;

pub(crate) const DAY: &str = "2026-02-20";

/// A row of one text.
pub(crate) async fn text(world: &World, query: &str) -> String {
    let mut connection = world.database.connect().await;
    let found: Option<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.expect(query);
    found.unwrap_or_else(|| "null".to_owned())
}

async fn day(world: &World, agent: &str, date: &str) -> String {
    text(
        world,
        &format!(
            "select concat_ws(' ', total_tokens_input, total_tokens_output, total_cost, coalesce(budget_status, 'null'))
            from token_ledger where agent_name = '{agent}' and date = '{date}'"
        ),
    )
    .await
}

/// What was published on `alert.budget.*`, as `AGENT old→new spent of limit`.
async fn alerts(world: &World) -> Vec<String> {
    let stream = world.jetstream().await.get_stream("LEDGER_ALERTS").await.expect("setup made it");
    let messages = stream.cached_info().state.last_sequence;
    let mut alerts = Vec::new();
    for sequence in 1..=messages {
        let message = stream.get_raw_message(sequence).await.expect("nobody deletes");
        let said: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let text = |field: &str| said[field].as_str().expect("a text").to_owned();
        assert_eq!(message.subject.as_str(), format!("alert.budget.{}", text("agent_name")));
        let [agent, old, new, spent, limit] =
            ["agent_name", "old_status", "new_status", "spent_usd", "limit_usd"].map(text);
        alerts.push(format!("{agent} {old}→{new} {spent} of {limit}"));
    }
    alerts
}

/// Publishes on two lanes in this order: what the first says is in force when the second is judged.
pub(crate) async fn publish_in_turn(world: &World, published: &mut Published, outgoing: Vec<Outgoing>) {
    for message in outgoing {
        published.publish(&world.publisher, message).await;
        settled(world, published).await;
    }
}

#[tokio::test]
async fn usage_adds_to_its_day_once_and_exactly() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let thousand = (0..1000).map(|_| spend("RXY-CEO", 0.000_03, DAY).good()).collect();
    published.publish_all(&world.publisher, thousand).await;
    let named = spend("RXY-CEO", 0.1, DAY).with("usage_id", "call-1");
    publish_in_turn(&world, &mut published, vec![named.good(), named.again(), named.again()]).await;
    let other = named.clone().with("tokens_input", 101);
    published.publish(&world.publisher, other.bad("conflict")).await;
    // Another agent's id of the same name is another usage: nobody can take a name away from anybody.
    let others = spend("SRN-CIO", 0.1, DAY).with("usage_id", "call-1");
    published.publish(&world.publisher, others.good()).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (1002, 2, 1));
    assert_eq!(day(&world, "RXY-CEO", DAY).await, "100100 10010 0.1300 null");
}

#[tokio::test]
async fn usage_of_several_daemons_of_which_one_is_killed_adds_up() {
    let world = World::start().await;
    let mut first = world.daemon().await;
    let _second = world.daemon().await;
    let mut published = Published::default();
    let agents = ["RXY-CEO", "WRK-001", "WRK-002"];
    let some = || (0..1500).map(|n| spend(agents[n % 3], 0.000_01, DAY).good()).collect::<Vec<_>>();
    published.publish_all(&world.publisher, some()).await;
    first.sigkill();
    published.publish_all(&world.publisher, some()).await;
    check_ledger(&world, &published).await;
    assert_eq!(day(&world, "WRK-002", DAY).await, "100000 10000 0.0100 null");
}

/// A publisher chooses its ids, and may name a place in a header.
#[tokio::test]
async fn a_usage_whose_id_reads_like_the_place_of_another_is_another_usage() {
    let world = World::start().await;
    let mut published = Published::default();
    let usage = || next_event("TOKENS").with("agent_name", "WRK-006").published_by("WRK-006");
    let place = [("Ledger-Requeued-Place", "1-2-3")];
    published.publish_with_headers(&world.publisher, &place, usage().without("usage_id").good()).await;
    let alike = usage().with("usage_id", "1-2-3 by its place,").good();
    published.publish(&world.publisher, alike).await;
    let _daemon = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 2);
}

/// Its id would be that of another's usage, which could then not be stored.
#[tokio::test]
async fn nobody_takes_the_place_of_anothers_tool_usage_by_a_header() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let usage = |publisher: &str| next_event("USAGE").without("id").published_by(publisher).good();
    for publisher in ["BRM-CTO", "BRM-WFB-01"] {
        let place = [("Ledger-Requeued-Place", "1-2-3")];
        published.publish_with_headers(&world.publisher, &place, usage(publisher)).await;
    }
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (2, 0));
}

#[tokio::test]
async fn a_days_status_follows_its_limit_and_each_change_is_told_once() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let limit = |usd| metric("ARCHITECT", "daily_limit_RXY-CEO", usd).good();
    let spends = |usd| spend("RXY-CEO", usd, &today()).good();
    let steps = vec![limit(1.0), spends(0.6999), spends(0.0001), spends(0.2), spends(0.1), spends(0.0001)];
    let mut seen = Vec::new();
    for step in steps {
        publish_in_turn(&world, &mut published, vec![step]).await;
        seen.push(text(&world, "select coalesce(max(budget_status), 'none') from token_ledger").await);
    }
    // 70 %, 90 %, 100 % (which is not above it), and more.
    assert_eq!(seen, ["none", "GREEN", "YELLOW", "RED", "RED", "EXCEEDED"]);
    // A higher limit, and the same again, which is no news.
    publish_in_turn(&world, &mut published, vec![limit(2.0), limit(2.0)]).await;
    assert_eq!(text(&world, "select budget_status from token_ledger").await, "GREEN");
    check_ledger(&world, &published).await;
    assert_eq!(
        alerts(&world).await,
        [
            "RXY-CEO GREEN→YELLOW 0.7 of 1",
            "RXY-CEO YELLOW→RED 0.9 of 1",
            "RXY-CEO RED→EXCEEDED 1.0001 of 1",
            "RXY-CEO EXCEEDED→GREEN 1.0001 of 2",
        ]
    );
    assert!((daemon.metric("ledgerd_budget_alerts_published_total", "").await - 4.0).abs() < f64::EPSILON);
}

pub(crate) fn today() -> String {
    let now = std::process::Command::new("date").args(["-u", "+%F"]).output().expect("a clock");
    String::from_utf8(now.stdout).expect("digits").trim().to_owned()
}

#[tokio::test]
async fn a_group_lends_its_limit_and_the_workers_share_theirs() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let messages = vec![
        metric("ARCHITECT", "daily_limit_SUBAGENTS", 1.0).good(),
        metric("ARCHITECT", "daily_limit_WORKERS", 2.0).good(),
        metric("ARCHITECT", "daily_limit_WRK-012", 10.0).good(),
        spend("SRN-MRS-01", 0.75, DAY).good(),
        spend("SRN-FIN-01", 0.75, DAY).good(),
        spend("WRK-001", 0.5, DAY).good(),
        // Who has a limit of its own spends nothing of the others'.
        spend("WRK-012", 5.0, DAY).good(),
        spend("WRK-002", 1.0, DAY).good(),
    ];
    publish_in_turn(&world, &mut published, messages).await;
    check_ledger(&world, &published).await;
    let status = text(
        &world,
        "select string_agg(agent_name || ' ' || budget_status, ', ' order by agent_name) from token_ledger",
    );
    assert_eq!(status.await, "SRN-FIN-01 YELLOW, SRN-MRS-01 YELLOW, WRK-001 YELLOW, WRK-002 YELLOW, WRK-012 GREEN");
}

#[tokio::test]
async fn killed_between_an_alerts_publication_and_its_mark() {
    let world = World::builder().postgres_proxy().start().await;
    let proxy: &TcpProxy = world.postgres_proxy();
    let mut hold = proxy.hold_when(Direction::ToServer, b"update ledger.budget_alert");
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, metric("ARCHITECT", "daily_limit_RXY-CEO", 1.0).good()).await;
    eventually("the limit is in force", SOON, async || {
        let limits = world.database.count("select count(*) from economic_metrics").await;
        when(limits == 1, || "no limit".to_owned())
    })
    .await;
    published.publish(&world.publisher, spend("RXY-CEO", 0.95, DAY).good()).await;
    hold.happened().await;
    daemon.sigkill();
    proxy.drop_held().await;
    assert_eq!(alerts(&world).await.len(), 1);
    let _again = world.daemon().await;
    check_ledger(&world, &published).await;
    assert_eq!(alerts(&world).await, ["RXY-CEO GREEN→RED 0.95 of 1"]);
}

/// Whoever listens without a stream hears it too, as n8n does.
/// A trigger has them made an hour from now, as a server does whose clock is set back before they are marked.
#[tokio::test]
async fn what_is_published_after_the_clock_stepped_back_is_not_marked_as_published_before_it_was_made() {
    let world = World::start().await;
    let later = |table: &str, moment: &str| {
        format!(
            "create function {table}_later() returns trigger language plpgsql as
                $$ begin new.{moment} := new.{moment} + interval '1 hour'; return new; end $$;
            create trigger later before insert on ledger.{table} for each row execute function {table}_later();"
        )
    };
    world.database.execute(&[later("dead_letter", "rejected_at"), later("budget_alert", "raised_at")].concat()).await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let limit = metric("ARCHITECT", "daily_limit_RXY-CEO", 1.0).good();
    let refused = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    publish_in_turn(&world, &mut published, vec![limit, refused, spend("RXY-CEO", 5.0, DAY).good()]).await;
    let marked = "select (select count(*) from ledger.dead_letter where published_at is not null)
        + (select count(*) from ledger.budget_alert where published_at is not null)";
    eventually("both are marked", SOON, async || {
        let marked = world.database.count(marked).await;
        when(marked == 2, || format!("{marked} are"))
    })
    .await;
    let differences = verify(&world, &world.database, &[]).await.differences();
    let (made, marked): (Vec<_>, Vec<_>) =
        differences.into_iter().partition(|difference| difference.ends_with(": rejected_at"));
    assert_eq!((made.len(), marked), (1, Vec::<String>::new()));
}

#[tokio::test]
async fn an_alert_is_heard_by_a_plain_subscriber() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let client = world.nats().connect().await;
    let mut heard = client.subscribe("alert.budget.>").await.expect("subscribed");
    client.flush().await.expect("the server has it");
    let mut published = Published::default();
    let messages = vec![metric("VRA-CFO", "daily_limit_VRA-CFO", 3.0).good(), spend("VRA-CFO", 3.01, DAY).good()];
    publish_in_turn(&world, &mut published, messages).await;
    let message = heard.next().await.expect("it comes");
    assert_eq!(message.subject.as_str(), "alert.budget.VRA-CFO");
}

#[tokio::test]
async fn the_reference_limits_and_rates_come_on_demand_and_only_where_none_is_in_force() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    publish_in_turn(&world, &mut published, vec![metric("VRA-CFO", "daily_limit_RXY-CEO", 4.5).good()]).await;
    assert_eq!(world.database.count("select count(*) from economic_metrics").await, 1);
    let said = world.ledgerd_ok(&["setup", "--defaults"]).await;
    assert!(said.contains("daily_limit_RXY-CEO: 4.5 is in force, and stays"), "{said}");
    assert!(said.contains("token_rate_ECONOMY_input: 0.00025 published"), "{said}");
    eventually("the reference is stored", SOON, async || {
        let rows = world.database.count("select count(*) from economic_metrics where set_by = 'ARCHITECT'").await;
        when(rows == 29, || format!("{rows} rows"))
    })
    .await;
    assert_eq!(
        text(&world, "select metric_value::text from economic_metrics where metric_key = 'token_rate_ECONOMY_output'")
            .await,
        "0.00125"
    );
    let again = world.ledgerd_ok(&["setup", "--defaults"]).await;
    assert!(!again.contains("published"), "{again}");
}

#[tokio::test]
async fn a_council_vote_may_name_an_event_that_comes_later_and_is_stored_once() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let trail = next_event("TRAIL").with("ledger_ref", "VOTE-RXY-CEO-1999999999999");
    let other = trail.clone().with("outcome", "VETOED");
    publish_in_turn(&world, &mut published, vec![trail.good(), trail.again(), other.bad("conflict")]).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (1, 1, 1));
}

#[tokio::test]
async fn tool_usage_of_an_unknown_agent_can_come_again_and_survives_its_venture() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let newcomer = "11111111-d9cb-469f-a165-70867728950e";
    let usage = next_event("USAGE").with("agent_id", newcomer);
    publish_in_turn(&world, &mut published, vec![usage.bad("unknown_reference")]).await;
    world.database.execute(&format!("insert into agent_registry (id) values ('{newcomer}')")).await;
    publish_in_turn(&world, &mut published, vec![usage.good(), usage.again()]).await;
    // One without an id or a time of its own.
    let plain = next_event("USAGE").without("id").without("created_at").without("venture_id").good();
    publish_in_turn(&world, &mut published, vec![plain]).await;

    let delete = format!("delete from agent_registry where id = '{newcomer}'");
    let refused = world.cluster().try_execute(world.database.name(), &delete).await;
    assert!(refused.is_err(), "usage keeps its agent");
    world.database.execute(&format!("delete from ventures where id = '{VENTURE_ID}'")).await;
    assert_eq!(world.database.count("select count(*) from tool_usage_ledger where venture_id is null").await, 2);
    let other = usage.clone().with("agent_id", AGENT_ID).without("venture_id");
    publish_in_turn(&world, &mut published, vec![usage.again(), other.bad("conflict")]).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (2, 2, 2));
}

/// An operator's own rule about some records is those records' fault; one about all of them is the operator's.
#[tokio::test]
async fn a_rule_of_the_operators_rejects_the_records_it_names_and_none_where_it_refuses_all() {
    for (lane, table, field, column) in [
        ("TRAIL", "decision_trails", "ledger_ref", "ledger_ref <> 'poison'"),
        ("METRIC", "economic_metrics", "metric_key", "metric_key <> 'venture_capital_poison'"),
        ("USAGE", "tool_usage_ledger", "execution_ms", "execution_ms <> 666"),
    ] {
        let world = World::start().await;
        world.database.execute(&format!("alter table {table} add constraint no_poison check ({column})")).await;
        let mut published = Published::default();
        let mut batch: Vec<_> = (0..50).map(|_| next_event(lane).good()).collect();
        let poison = match lane {
            "TRAIL" => Value::from("poison"),
            "METRIC" => Value::from("venture_capital_poison"),
            _ => Value::from(666),
        };
        batch.insert(20, next_event(lane).without("period").with(field, poison).bad("database_rejected"));
        published.publish_all(&world.publisher, batch).await;
        let daemon = world.daemon().await;
        check_ledger(&world, &published).await;

        world.database.execute(&format!("alter table {table} add constraint nothing check (false) not valid")).await;
        published.publish_all(&world.publisher, (0..50).map(|_| next_event(lane).good()).collect()).await;
        let missing = daemon.unready().await;
        assert!(missing.contains(&format!("{table} refuses records that are good")), "{missing}");
        world.database.execute(&format!("alter table {table} drop constraint nothing")).await;
        let counts = check_ledger(&world, &published).await;
        assert_eq!((counts.rows, counts.rejects), (100, 1), "{lane}");
    }
}

/// The days and the usage behind them are the daemon's own: whatever is wrong there, no usage is to blame.
#[tokio::test]
async fn usage_waits_while_its_day_cannot_be_written() {
    let world = World::builder().limited_role().start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    for (break_it, mend_it) in [
        (
            format!("revoke update on token_ledger from {}", world.role),
            format!("grant update on token_ledger to {}", world.role),
        ),
        (
            "alter table token_ledger add constraint nothing check (false) not valid".to_owned(),
            "alter table token_ledger drop constraint nothing".to_owned(),
        ),
        (
            "alter table ledger.token_usage add constraint nothing check (false) not valid".to_owned(),
            "alter table ledger.token_usage drop constraint nothing".to_owned(),
        ),
    ] {
        world.database.execute(&break_it).await;
        published.publish_all(&world.publisher, (0..20).map(|_| spend("RXY-CEO", 0.01, DAY).good()).collect()).await;
        daemon.unready().await;
        world.database.execute(&mend_it).await;
        let counts = check_ledger(&world, &published).await;
        assert_eq!(counts.rejects, 0);
    }
}

/// The statements under the head's lock look at what changed, and not at all that there is: ninety days of an agent's fleet
/// and a pool of hundreds stand in the tables, and the server compiles what seems costly to it.
#[tokio::test]
async fn months_of_days_and_a_large_pool_cost_no_more_than_a_few() {
    let world = World::start().await;
    world
        .database
        .execute(
            "insert into token_ledger (agent_name, date, exact_cost, total_cost, budget_group)
            select 'AGENT-' || agent, date '2026-01-01' + day, 1, 1, 'WORKERS'
            from generate_series(1, 300) as agent cross join generate_series(0, 89) as day;
            analyze token_ledger",
        )
        .await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    publish_in_turn(&world, &mut published, vec![metric("ARCHITECT", "daily_limit_WORKERS", 1000.0).good()]).await;
    let began = std::time::Instant::now();
    for _ in 0..20 {
        publish_in_turn(&world, &mut published, vec![spend("WRK-001", 0.01, "2026-02-01").good()]).await;
    }
    let day =
        text(&world, "select budget_status || ' ' || exact_cost::text from token_ledger where agent_name = 'WRK-001'");
    assert_eq!(day.await, "GREEN 0.20");
    // Each took seconds once; the bound is far above what a busy machine needs, and far below that.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_pool_is_judged_again_when_one_of_its_members_gets_a_limit_of_its_own() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let messages = vec![
        metric("ARCHITECT", "daily_limit_WORKERS", 2.0).good(),
        spend("WRK-001", 1.5, &today()).good(),
        spend("WRK-002", 0.6, &today()).good(),
        metric("ARCHITECT", "daily_limit_WRK-001", 10.0).good(),
    ];
    publish_in_turn(&world, &mut published, messages).await;
    check_ledger(&world, &published).await;
    let status = text(
        &world,
        "select string_agg(agent_name || ' ' || budget_status, ', ' order by agent_name) from token_ledger",
    );
    assert_eq!(status.await, "WRK-001 GREEN, WRK-002 GREEN");
}

/// Several daemons store what was published in one order in another, and the last that was published is in force.
#[tokio::test]
async fn of_several_limits_the_one_that_was_published_last_is_in_force() {
    let world = World::start().await;
    let _daemons = [world.daemon().await, world.daemon().await, world.daemon().await];
    let mut published = Published::default();
    for round in 0..30 {
        for usd in [7.0, 5.0] {
            published.publish(&world.publisher, metric("ARCHITECT", "daily_limit_RXY-CEO", usd).good()).await;
        }
        if round % 10 == 9 {
            check_ledger(&world, &published).await;
            let in_force =
                "select metric_value::bigint from ledger.metric_in_force where metric_key = 'daily_limit_RXY-CEO'";
            assert_eq!(world.database.count(in_force).await, 5);
        }
    }
}
