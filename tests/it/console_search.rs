//! The console's search, and its stories of tasks and proposals; and `ledgerd show`, which prints the same.

use crate::support::console::Console;
use crate::support::daemon::text_of;
use crate::support::events::{Event, next_event};
use crate::support::ledger::check_ledger;
use crate::support::published::Published;
use crate::support::world::World;
use serde_json::{Value, json};

const TASK: &str = "TSK-4711";
const PROPOSAL: &str = "SRN-TEL-4711";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A step of the work on the task, in the minute after the one before.
fn step(lane: &str, minute: u32) -> Event {
    next_event(lane).with("timestamp", format!("2026-02-20T17:{minute:02}:00Z")).with("task_id", TASK)
}

fn completed(vote: &str, minute: u32) -> Event {
    step("EXEC", minute).with("action", "EXECUTION_COMPLETED").with(
        "details",
        json!({
            "proposal_id": PROPOSAL, "council_vote_ref": vote, "steps_completed": 4, "steps_total": 4,
            "n8n_workflows_triggered": [], "error": null,
        }),
    )
}

fn votes() -> Value {
    json!({
        "proposal_id": PROPOSAL, "votes": {"RXY-CEO": "APPROVED", "SRN-CIO": "ABSTAIN", "BRM-CTO": "APPROVED", "VRA-CFO": "REJECTED"},
        "result": "APPROVED", "threshold_required": 2, "threshold_met": true,
    })
}

fn tokens(usage_id: &str, cost: f64, minute: u32) -> Event {
    step("TOKENS", minute).with("usage_id", usage_id).with("cost_usd", cost)
}

/// A task from its route to its cost. The second execution names a vote that nobody recorded.
async fn world_with_a_task() -> (World, Published, String) {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let vote = step("VOTE", 4).without("task_id").with("details", votes());
    let trail_id = format!("TRAIL-{PROPOSAL}-1708451234567");
    let trail = next_event("TRAIL")
        .with("trail_id", trail_id)
        .with("proposal", json!({"proposal_id": PROPOSAL, "task_id": TASK}))
        .with("ledger_ref", vote.event_id());
    for outgoing in [
        step("ROUTE", 1).good(),
        step("PROP", 2).with("details", json!({"proposal_id": PROPOSAL})).good(),
        step("CLR", 3).good(),
        vote.good(),
        completed(vote.event_id(), 5).good(),
        completed("VOTE-RXY-CEO-1111111111111", 6).good(),
        tokens("usage-a", 0.25, 7).good(),
        tokens("usage-b", 0.5, 8).good(),
        trail.good(),
        // Another task.
        next_event("EXEC").with("task_id", "TSK-1").good(),
    ] {
        published.publish(&world.publisher, outgoing).await;
    }
    check_ledger(&world, &published).await;
    let vote = vote.event_id().to_owned();
    (world, published, vote)
}

#[tokio::test]
async fn a_task_is_a_story_from_its_route_to_its_cost() {
    let (world, _, vote) = world_with_a_task().await;
    let console = Console::start(&world.environment).await;
    let story = console.api(&format!("/tasks/{TASK}")).await;
    let steps = story["steps"].as_array().expect("steps");
    let stages: Vec<&str> = steps.iter().filter_map(|step| step["stage"].as_str()).collect();
    let expected =
        ["Route", "Proposal", "Clearance", "Vote", "Execution", "Execution", "Token cost", "Token cost", "Decision"];
    assert_eq!(stages, expected, "{story:#}");
    assert_eq!(steps[3]["votes"]["SRN-CIO"], "ABSTAIN");
    assert_eq!((&steps[3]["threshold_required"], &steps[3]["threshold_met"]), (&json!("2"), &json!("true")));
    let reference = |step: usize| &steps[step]["references"][0];
    assert_eq!(*reference(4), json!({"field": "council_vote_ref", "event_id": vote, "leads_to": "recorded"}));
    assert_eq!(reference(5)["leads_to"], "nothing");
    assert_eq!(reference(8)["leads_to"], "recorded");
    assert_eq!((&story["dangling"], &story["proposals"]), (&json!(1), &json!([PROPOSAL])));
    let cost = &story["cost"];
    assert_eq!((&cost["cost_usd"], &cost["calls"], &cost["is_partial"]), (&json!("0.75"), &json!(2), &json!(false)));

    let page = console.page(&format!("/task/{TASK}")).await;
    for told in [
        "leads nowhere",
        "0.75 USD",
        "VOTE-RXY-CEO-1111111111111",
        &format!("href=\"/event/{}\"", vote.replace('-', "%2D")),
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let proposal = console.api(&format!("/proposals/{PROPOSAL}")).await;
    assert_eq!(proposal["steps"], story["steps"], "a proposal spans its tasks");
    assert_eq!(proposal["tasks"], json!([TASK]));
    assert!(console.page(&format!("/proposal/{PROPOSAL}")).await.contains("leads nowhere"));

    let printed = world.ledgerd_ok(&["show", TASK]).await;
    for told in
        ["SRN-CIO voted ABSTAIN", "(leads nowhere)", "cost: 0.75 USD in 2 calls", "references that lead nowhere: 1"]
    {
        assert!(printed.contains(told), "{told}: {printed}");
    }
    let shown: Value = serde_json::from_str(&world.ledgerd_ok(&["--json", "show", TASK]).await).expect("JSON");
    assert_eq!(shown, story);
}

#[tokio::test]
async fn what_nobody_named_is_told_with_what_to_do() {
    let world = World::start().await;
    let console = Console::start(&world.environment).await;
    for path in ["/task/none", "/proposal/none", "/search?q=none"] {
        let answer = console.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("none") && answer.text().contains("ompare"), "{path}: {}", answer.text());
    }
    assert!(
        console.get("/search?q=none").await.text().contains("a trail")
            || console.get("/search?q=none").await.text().contains("a task")
    );
    assert_eq!(console.get("/api/v1/tasks/none").await.header("content-type"), "application/problem+json");
    assert_eq!(console.get("/api/v1/tasks/%FF").await.status, 400);
    assert_eq!(console.api("/search?q=none").await["found"], json!([]));
    assert_eq!(console.page("/search?q=").await.matches("Write an id").count(), 1);
    let shown = world.ledgerd(&["show", "none"]).await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(text_of(&shown).contains("it was looked for as"), "{}", text_of(&shown));
    assert!(console.page("/timeline?actor=nobody").await.contains("Nothing matches"));
}

/// Where the search leads.
async fn location(console: &Console, query: &str) -> String {
    let answer = console.get(&format!("/search?q={query}")).await;
    assert_eq!(answer.status, 303, "{query}: {}", answer.text());
    answer.header("location").to_owned()
}

#[tokio::test]
async fn any_id_leads_to_what_it_names() {
    let (world, mut published, vote) = world_with_a_task().await;
    let _daemon = world.daemon().await;
    let traced = next_event("EXEC");
    let sequence =
        published.publish_with_headers(&world.publisher, &[("traceparent", TRACEPARENT)], traced.good()).await;
    let (metric, tool) = (next_event("METRIC"), next_event("USAGE"));
    let reject = next_event("EXEC").with("outcome", "X");
    published.publish(&world.publisher, metric.good()).await;
    published.publish(&world.publisher, tool.good()).await;
    let rejected = published.publish(&world.publisher, reject.bad("outcome_not_allowed")).await;
    published.publish(&world.publisher, traced.again()).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;

    let leaf = async |id: &str| {
        let sql =
            format!("select leaf_index from ledger.entry where record_id = '{id}' and disposition <> 'duplicate'");
        world.database.count(&sql).await
    };
    let field = |event: &Event, name: &str| {
        let fields: Value = serde_json::from_slice(&event.payload()).expect("JSON");
        fields[name].as_str().expect("a string").to_owned()
    };
    let trail = format!("TRAIL-{PROPOSAL}-1708451234567");
    let names = [
        vote,
        trail,
        "usage-a".to_owned(),
        field(&metric, "metric_key"),
        field(&tool, "id"),
        traced.event_id().to_owned(),
    ];
    for id in &names {
        assert_eq!(location(&console, id).await, format!("/record/{}", leaf(id).await), "{id}");
        let shown: Value = serde_json::from_str(&world.ledgerd_ok(&["--json", "show", id]).await).expect("JSON");
        assert_eq!(shown["line"]["record_id"], id.as_str());
    }
    let traced_leaf = leaf(traced.event_id()).await;
    for query in [TRACE, TRACEPARENT, &TRACE.to_uppercase()] {
        assert_eq!(location(&console, query).await, format!("/record/{traced_leaf}"), "{query}");
    }
    assert_eq!(location(&console, TASK).await, format!("/task/{}", TASK.replace('-', "%2D")));
    assert_eq!(location(&console, PROPOSAL).await, format!("/proposal/{}", PROPOSAL.replace('-', "%2D")));
    assert_eq!(location(&console, "SRN-CIO").await, "/timeline?actor=SRN%2DCIO");

    let letters: Value = serde_json::from_str(&world.ledgerd_ok(&["--json", "dlq", "list"]).await).expect("JSON");
    let reference = letters[0]["reference"].as_str().expect("a reference");
    let reject_leaf = leaf(reject.event_id()).await;
    for query in [reference, reject.event_id()] {
        assert_eq!(location(&console, query).await, format!("/rejects/{reject_leaf}"), "{query}");
    }
    // A number is a leaf and a sequence, so it may mean two entries.
    let answer = console.api(&format!("/search?q={sequence}")).await;
    let leaves: Vec<&Value> =
        answer["found"].as_array().expect("a list").iter().map(|found| &found["leaf_index"]).collect();
    assert!(leaves.contains(&&json!(sequence)) && leaves.contains(&&json!(traced_leaf)), "{answer}");
    assert!(console.page(&format!("/search?q={sequence}")).await.contains("may mean any of these"));
    let listed = world.ledgerd_ok(&["show", &sequence.to_string()]).await;
    assert!(listed.contains("ledgerd show --leaf N"), "{listed}");
    assert!(rejected > sequence);

    let shown = world.ledgerd_ok(&["show", "--leaf", &traced_leaf.to_string()]).await;
    let payload = String::from_utf8(traced.payload()).expect("UTF-8");
    for told in [&payload, &format!("sequence {sequence}\n"), &format!("trace        {TRACE}")] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    let lines = console.api("/timeline?lane=EXEC&limit=500").await;
    let line = lines["lines"].as_array().expect("lines").iter().find(|line| line["leaf_index"] == traced_leaf);
    assert_eq!(line.expect("it is there")["trace_id"], TRACE);
    let found = world.database.count(&format!("select leaf_index from ledger.entries_by_trace('{TRACE}')")).await;
    assert_eq!(found, traced_leaf);
}

#[tokio::test]
async fn an_id_that_means_several_things_is_listed() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let event = next_event("EXEC");
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    published.publish(&world.publisher, event.clone().with("details", json!({"other": true})).bad("conflict")).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    let answer = console.api(&format!("/search?q={}", event.event_id())).await;
    let dispositions: Vec<&Value> =
        answer["found"].as_array().expect("a list").iter().map(|it| &it["disposition"]).collect();
    assert_eq!(dispositions, [&json!("rejected"), &json!("recorded")], "{answer}");
    let page = console.page(&format!("/search?q={}", event.event_id())).await;
    let leaf = |place: usize| &answer["found"][place]["leaf_index"];
    let both = [format!("/rejects/{}", leaf(0)), format!("/record/{}", leaf(1))];
    assert!(both.iter().all(|address| page.contains(&format!("\"{address}\""))), "{both:?}: {page}");
}
