//! What is published on the lanes of the other four tables, and what must stand around it.

use super::events::{Event, Outgoing, next_event};
use serde_json::{Map, Value, json};

/// Rows of the registries that every test database has.
pub(crate) const AGENT_ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
pub(crate) const TOOL_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
pub(crate) const VENTURE_ID: &str = "16fd2706-8baf-433b-82eb-8c7fada847da";

/// Fills the registries that usage refers to: they belong to others, and the tests stand in for them.
pub(crate) const REGISTRIES: &str = "
    insert into agent_registry (id) values ('0f8fad5b-d9cb-469f-a165-70867728950e');
    insert into tool_registry (id) values ('7c9e6679-7425-40de-944b-e07fc1f90ae7');
    insert into ventures (id) values ('16fd2706-8baf-433b-82eb-8c7fada847da')";

/// The good record number `n` of a lane that is no audit lane: the same numbers give the same record.
pub(super) fn record(lane: &str, n: u64) -> Event {
    let (publisher, fields) = match lane {
        "TOKENS" => {
            let agent = ["RXY-CEO", "SRN-MRS-01", "WRK-006"][usize::try_from(n % 3).expect("small")];
            (agent, usage_of(agent, n))
        }
        "TRAIL" => ("RXY-CEO", trail(n)),
        "METRIC" => (
            "VRA-CFO",
            json!({"metric_key": format!("venture_revenue_venture_{n}_2026-02"), "metric_value": 0.25, "period": "2026-02"}),
        ),
        "USAGE" => ("BRM-CTO", tool_usage(n)),
        _ => panic!("{lane} is no lane"),
    };
    let Value::Object(fields) = fields else { panic!("a record is an object") };
    Event::new(lane, publisher, fields)
}

fn usage_of(agent: &str, n: u64) -> Value {
    json!({
        "agent_name": agent, "tokens_input": n % 1000, "tokens_output": n % 100, "usage_id": format!("usage-{n}"),
        // A sum of many such must not lose a digit.
        "cost_usd": 0.00003,
        "timestamp": "2026-02-20T17:47:14.568Z", "model_used": "Claude Sonnet", "operation_type": "vote",
    })
}

fn trail(n: u64) -> Value {
    json!({
        "trail_id": format!("TRAIL-SRN-TEL-{n}-1708451234567"),
        "council_vote": {"RXY-CEO": "APPROVED", "SRN-CIO": "ABSTAIN", "BRM-CTO": "REJECTED", "VRA-CFO": "APPROVED"},
        "proposal": {"proposal_id": format!("SRN-TEL-{n}"), "task_id": "T-1", "description": "Übergröße ≥ 3 € 🚀"},
        "outcome": "APPROVED",
    })
}

fn tool_usage(n: u64) -> Value {
    json!({
        "id": format!("00000000-0000-4000-8000-{n:012}"), "agent_id": AGENT_ID, "tool_id": TOOL_ID,
        "venture_id": VENTURE_ID, "tokens_consumed": 10, "cost_usd": 0.0125, "execution_ms": 7,
        "created_at": "2026-02-20T17:47:14.568Z",
    })
}

/// A model call of an agent, without an id, that cost so much on a UTC day.
pub(crate) fn spend(agent: &str, usd: f64, date: &str) -> Event {
    let Value::Object(fields) = json!({
        "agent_name": agent, "tokens_input": 100, "tokens_output": 10, "cost_usd": usd,
        "timestamp": format!("{date}T12:00:00Z"),
    }) else {
        panic!("an object")
    };
    Event::new("TOKENS", agent, fields)
}

/// A metric that somebody sets.
pub(crate) fn metric(setter: &str, key: &str, value: f64) -> Event {
    let fields =
        Map::from_iter([("metric_key".to_owned(), Value::from(key)), ("metric_value".to_owned(), Value::from(value))]);
    Event::new("METRIC", setter, fields)
}

/// One bad message of each kind that the other four lanes have beyond those of the audit lanes.
pub(crate) fn bad_records() -> Vec<Outgoing> {
    vec![
        next_event("TOKENS").without("tokens_input").bad("missing_field"),
        next_event("TOKENS").with("tokens_output", -1).bad("number_out_of_range"),
        next_event("TOKENS").with("tokens_output", 0.5).bad("wrong_type"),
        next_event("TOKENS").with("total_cost", 1).bad("unknown_field"),
        next_event("TOKENS").published_by("VRA-CFO").bad("actor_mismatch"),
        next_event("TOKENS").without("cost_usd").with("model_tier", "GOLDEN").bad("unknown_reference"),
        next_event("TOKENS").without("cost_usd").with("model_used", "nobody's").bad("unknown_reference"),
        next_event("TRAIL").with("trail_id", "TRAIL-1").bad("bad_event_id"),
        next_event("TRAIL").with("outcome", "ABSTAIN").bad("outcome_not_allowed"),
        next_event("TRAIL").with("council_vote", json!({"WRK-006": "APPROVED"})).bad("action_not_allowed"),
        next_event("TRAIL").with("council_vote", json!({"NOBODY": "APPROVED"})).bad("unknown_actor"),
        next_event("TRAIL").published_by("WRK-006").bad("action_not_allowed"),
        next_event("METRIC").with("metric_key", "weekly_limit_RXY-CEO").bad("details_mismatch"),
        next_event("METRIC").with("period", "2026-03").bad("details_mismatch"),
        metric("RXY-CEO", "daily_limit_RXY-CEO", 500.0).bad("action_not_allowed"),
        metric("VRA-CFO", "daily_limit_NOBODY", 5.0).bad("unknown_reference"),
        next_event("USAGE").with("agent_id", "BRM-CTO").bad("wrong_type"),
        next_event("USAGE").with("agent_id", "99999999-d9cb-469f-a165-70867728950e").bad("unknown_reference"),
        next_event("USAGE").with("tool_id", "99999999-d9cb-469f-a165-70867728950e").bad("unknown_reference"),
        next_event("USAGE").with("venture_id", "99999999-d9cb-469f-a165-70867728950e").bad("unknown_reference"),
        next_event("USAGE").with("cost_usd", 10_000).bad("number_out_of_range"),
    ]
}
