//! The spend gate: whoever asks before a model call hears what is committed, at once, over NATS and over HTTP.

use crate::support::console::Console;
use crate::support::events::{event, next_event};
use crate::support::ledger::check_ledger;
use crate::support::published::Published;
use crate::support::raw_nats::{Heard, RawNats};
use crate::support::records::{metric, spend};
use crate::support::shipped_nats::login;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use crate::tables::{publish_in_turn, today};
use async_nats::Client;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::{interval, timeout};

/// What is answered to a question on `budget.<AGENT>`.
async fn asked(client: &Client, agent: &str) -> Value {
    let answer = timeout(SOON, client.request(format!("budget.{agent}"), "".into())).await.expect("in time");
    serde_json::from_slice(&answer.expect("somebody answers").payload).expect("JSON")
}

/// Asks until the daemon has subscribed.
async fn client(world: &World) -> Client {
    let client = world.nats().connect().await;
    eventually("somebody answers on budget.*", SOON, async || {
        client.request("budget.BRM-CTO", "".into()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    client
}

/// Status, spent, limit, remaining and key, for short.
fn short(answer: &Value) -> [&str; 5] {
    ["status", "spent_usd", "limit_usd", "remaining_usd", "limit_key"].map(|name| answer[name].as_str().unwrap_or("–"))
}

#[tokio::test]
async fn an_agent_hears_what_it_may_spend_exactly_after_each_commit() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let (client, console) = (client(&world).await, Console::start(&world.environment).await);
    let mut published = Published::default();
    let no_limit = asked(&client, "RXY-CEO").await;
    assert_eq!(short(&no_limit), ["NO_LIMIT", "0", "–", "–", "–"], "{no_limit}");
    assert_eq!(no_limit["limit_usd"], Value::Null);

    let key = "daily_limit_RXY-CEO";
    publish_in_turn(&world, &mut published, vec![metric("ARCHITECT", key, 1.0).good()]).await;
    assert_eq!(short(&asked(&client, "RXY-CEO").await), ["GREEN", "0", "1", "1", key]);
    let steps = [
        (0.69999, ["GREEN", "0.69999", "1", "0.30001", key]),
        (0.00001, ["YELLOW", "0.7", "1", "0.3", key]),
        (0.2, ["RED", "0.9", "1", "0.1", key]),
        (0.1, ["RED", "1", "1", "0", key]),
        (0.05, ["EXCEEDED", "1.05", "1", "-0.05", key]),
    ];
    for (usd, expected) in steps {
        publish_in_turn(&world, &mut published, vec![spend("RXY-CEO", usd, &today()).good()]).await;
        let answer = asked(&client, "RXY-CEO").await;
        assert_eq!(short(&answer), expected);
        let mut over_http = console.api("/budgets/RXY-CEO").await;
        over_http["as_of"] = answer["as_of"].clone();
        assert_eq!(over_http, answer, "the console says the same");
        let day = format!("select (budget_status = '{}')::integer::bigint from token_ledger", expected[0]);
        assert_eq!(world.database.count(&day).await, 1, "the day's own status is the same");
    }
    publish_in_turn(&world, &mut published, vec![metric("ARCHITECT", key, 3.0).good()]).await;
    let answer = asked(&client, "RXY-CEO").await;
    assert_eq!(short(&answer), ["GREEN", "1.05", "3", "1.95", key]);
    assert_eq!((&answer["date"], &answer["agent"]), (&json!(today()), &json!("RXY-CEO")));
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn who_shares_a_limit_hears_what_all_have_spent_of_it() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let client = client(&world).await;
    let mut published = Published::default();
    let messages = vec![
        metric("ARCHITECT", "daily_limit_SUBAGENTS", 1.0).good(),
        metric("ARCHITECT", "daily_limit_WORKERS", 2.0).good(),
        metric("ARCHITECT", "daily_limit_WRK-012", 10.0).good(),
        spend("SRN-MRS-01", 0.75, &today()).good(),
        spend("WRK-001", 0.5, &today()).good(),
        spend("WRK-002", 1.0, &today()).good(),
        spend("WRK-012", 5.0, &today()).good(),
    ];
    publish_in_turn(&world, &mut published, messages).await;
    let pool = ["YELLOW", "1.5", "2", "0.5", "daily_limit_WORKERS"];
    for worker in ["WRK-001", "WRK-002", "WRK-003"] {
        assert_eq!(short(&asked(&client, worker).await), pool, "{worker}, whether it has spent anything or not");
    }
    let own = asked(&client, "WRK-012").await;
    assert_eq!(short(&own), ["GREEN", "5", "10", "5", "daily_limit_WRK-012"], "a limit of its own");
    // A group that does not share lends its limit to each member.
    let group = "daily_limit_SUBAGENTS";
    assert_eq!(short(&asked(&client, "SRN-MRS-01").await), ["YELLOW", "0.75", "1", "0.25", group]);
    assert_eq!(short(&asked(&client, "SRN-FIN-01").await), ["GREEN", "0", "1", "1", group]);
}

#[tokio::test]
async fn a_day_ends_at_midnight_utc_by_the_databases_clock() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let on = |timestamp: &str| spend("RXY-CEO", 0.8, "2026-02-20").with("timestamp", timestamp).good();
    let messages = vec![
        metric("ARCHITECT", "daily_limit_RXY-CEO", 1.0).good(),
        on("2026-02-20T23:59:59.999999Z"),
        // Midnight in UTC, whatever zone the publisher writes in.
        on("2026-02-21T05:30:00+05:30"),
        on("2026-02-21T00:00:01Z"),
    ];
    publish_in_turn(&world, &mut published, messages).await;
    let asked_at = async |moment: &str| {
        let limits = ledgerd::postgres::connections::ConnectionLimits { connect: SOON, statement: SOON };
        let connections =
            ledgerd::postgres::connections::Connections::new(&world.database.url(), limits, 1).expect("a URL");
        let agents = "registered_agents: { council: [{ sim_id: RXY-CEO, status: active }] }";
        let agents = ledgerd::record::agents::Agents::parse(agents, &[]).expect("one agent");
        let budget = ledgerd::budget::status::Budget {
            yellow_percent: 70,
            red_percent: 90,
            exceeded_percent: 100,
            shared_groups: Vec::new(),
        };
        let rules = ledgerd::budget::gate::GateRules { agents: &agents, budget: &budget };
        let answer = ledgerd::budget::gate::ask_at(&connections, rules, "RXY-CEO", Some(moment)).await;
        let answer = serde_json::to_value(answer.expect("the database answers")).expect("JSON");
        format!("{} {} {}", answer["date"], answer["status"], answer["spent_usd"]).replace('"', "")
    };
    assert_eq!(asked_at("2026-02-20T23:59:59.999999Z").await, "2026-02-20 YELLOW 0.8");
    assert_eq!(asked_at("2026-02-21T00:00:00Z").await, "2026-02-21 EXCEEDED 1.6");
    assert_eq!(asked_at("2026-02-22T00:00:00Z").await, "2026-02-22 GREEN 0");
    // The server of these tests stands in another zone, and what is asked now is of today.
    let client = client(&world).await;
    assert_eq!(short(&asked(&client, "RXY-CEO").await)[..2], ["GREEN", "0"]);
    assert_eq!(asked(&client, "RXY-CEO").await["date"], today());
}

#[tokio::test]
async fn who_is_not_known_and_a_database_that_is_away_get_an_answer_and_no_timeout() {
    let world = World::builder().own_cluster().start().await;
    let _daemon = world.daemon().await;
    let client = client(&world).await;
    let unknown = asked(&client, "NOBODY-01").await;
    assert_eq!((&unknown["status"], &unknown["spent_usd"]), (&json!("UNKNOWN_AGENT"), &Value::Null), "{unknown}");
    assert!(unknown["detail"].as_str().is_some_and(|detail| detail.contains("agent_schema.yaml")), "{unknown}");
    let console = Console::start(&world.operator).await;
    let answer = console.get("/api/v1/budgets/NOBODY-01").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"), "{}", answer.text());

    world.cluster().freeze();
    let asked_at = Instant::now();
    let away = asked(&client, "RXY-CEO").await;
    let took = asked_at.elapsed();
    world.cluster().thaw();
    assert_eq!(away["status"], "UNAVAILABLE", "{away}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn of_several_instances_one_answers() {
    let world = World::start().await;
    let (_one, _other) = (world.daemon().await, world.daemon().await);
    let client = client(&world).await;
    // Both have subscribed when the lanes of one have gone to sleep; a second answer would come to the inbox.
    let mut inbox = client.subscribe("_INBOX.several").await.expect("subscribed");
    for _ in 0..20 {
        client.publish_with_reply("budget.RXY-CEO", "_INBOX.several", "".into()).await.expect("sent");
    }
    let mut heard = 0;
    while let Ok(Some(_)) = timeout(Duration::from_secs(2), futures_util::StreamExt::next(&mut inbox)).await {
        heard += 1;
    }
    assert_eq!(heard, 20);
}

#[tokio::test]
async fn under_the_shipped_configuration_an_agent_asks_for_itself_and_its_answer_goes_nowhere_else() {
    let world = World::builder().shipped_nats().start().await;
    let _daemon = world.daemon().await;
    let mut agent = RawNats::connect(world.nats().port(), &login("RXY-CEO")).await;
    agent.subscribe("_INBOX.>").await;
    let status = |heard: &Heard| match heard {
        Heard::Message { text, .. } => {
            let answer: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
            answer["status"].as_str().map(str::to_owned)
        }
        other @ Heard::Refusal(_) => panic!("{other:?}"),
    };
    let asking = async {
        loop {
            let heard = agent.request("budget.RXY-CEO", "_INBOX.a", &[], "").await;
            // The daemon is ready a moment before it has subscribed.
            if !heard.is_no_responders() {
                return heard;
            }
        }
    };
    let own = timeout(SOON, asking).await.expect("the daemon subscribes");
    assert_eq!(status(&own).as_deref(), Some("NO_LIMIT"));
    for other in ["budget.BRM-CTO", "budget.*", "budget.>"] {
        let heard = agent.request(other, "_INBOX.b", &[], "").await;
        assert!(heard.is_violation(), "{other}: {heard:?}");
    }
    let mut architect = RawNats::connect(world.nats().port(), &login("ARCHITECT")).await;
    architect.subscribe("_INBOX.>").await;
    let of_another = architect.request("budget.BRM-CTO", "_INBOX.c", &[], "").await;
    assert_eq!(status(&of_another).as_deref(), Some("NO_LIMIT"), "who watches all budgets asks for any");

    // A reply that would make the answer a record of somebody else's.
    let stream = async || {
        let stream = world.jetstream().await.get_stream("LEDGER").await.expect("setup made it");
        stream.cached_info().state.last_sequence
    };
    let before = stream().await;
    for reply in [
        "ledger.EXEC.BRM-CTO",
        "ledger.EXEC.RXY-CEO",
        "dlq.ledger.EXEC.x.1",
        "alert.budget.BRM-CTO",
        "receipt.BRM-CTO.x",
    ] {
        agent.publish("budget.RXY-CEO", reply, &[], "").await;
    }
    let after = agent.request("budget.RXY-CEO", "_INBOX.d", &[], "").await;
    assert_eq!(status(&after).as_deref(), Some("NO_LIMIT"));
    let event = event("EXEC", "BRM-CTO", 77).good();
    world.publisher.publish(&event.subject, event.payload).await;
    assert_eq!(stream().await, before + 1, "nothing was stored but the event");
}

/// Where everybody shares an account, a reply can name anything: answers go to inboxes alone.
#[tokio::test]
async fn an_answer_never_becomes_a_record() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let client = client(&world).await;
    for reply in ["ledger.EXEC.BRM-CTO", "dlq.ledger.EXEC.x.1", "alert.budget.x", "receipt.x.y"] {
        client.publish_with_reply("budget.RXY-CEO", reply, "".into()).await.expect("sent");
    }
    asked(&client, "RXY-CEO").await;
    let jetstream = world.jetstream().await;
    for stream in ["LEDGER", "LEDGER_DLQ", "LEDGER_ALERTS", "LEDGER_RECEIPTS"] {
        let stream = jetstream.get_stream(stream).await.expect("setup made it");
        assert_eq!(stream.cached_info().state.messages, 0, "{}", stream.cached_info().config.name);
    }
}

/// The bound is generous, because the machines of tests are busy; what was measured is printed.
#[tokio::test]
async fn answers_come_quickly_while_events_flow() {
    const QUESTIONS: usize = 500;
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let client = client(&world).await;
    let mut published = Published::default();
    publish_in_turn(&world, &mut published, vec![metric("ARCHITECT", "daily_limit_WORKERS", 100.0).good()]).await;
    let source = world.publisher.clone();
    let flowing = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let lanes = ["EXEC", "TOKENS", "SEC", "TOOL", "SYS"];
            let events = lanes.iter().cycle().take(10).map(|lane| next_event(lane).good());
            source.publish_all(events.map(|it| (it.subject, it.payload.into())).collect()).await;
        }
    });
    let mut took = Vec::with_capacity(QUESTIONS);
    let mut ticks = interval(Duration::from_millis(10));
    for n in 0..QUESTIONS {
        ticks.tick().await;
        let began = Instant::now();
        asked(&client, ["WRK-001", "RXY-CEO", "SRN-MRS-01"][n % 3]).await;
        took.push(began.elapsed());
    }
    flowing.abort();
    took.sort_unstable();
    let (median, p99) = (took[QUESTIONS / 2], took[QUESTIONS * 99 / 100]);
    eprintln!("500 events/s: {QUESTIONS} answers, median {median:?}, p99 {p99:?}");
    when(p99 < Duration::from_millis(500), || format!("{p99:?}")).expect("an answer before a model call");
}
