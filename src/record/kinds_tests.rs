use super::*;
use crate::record::agents::Agents;
use crate::record::message::{Headers, Incarnation};
use crate::record::model_tiers::ModelTiers;
use crate::record::registry::Registry;
use crate::record::reject::Reason;
use crate::record::rules::RuleSettings;
use crate::record::token_usage::Cost;
use crate::record::verdict::Verdict;
use crate::record::writers::Writers;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let extra = ["ARCHITECT".to_owned()];
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Rules {
        agents: Agents::parse(include_str!("../../registry/agent_schema.yaml"), &extra).expect("the shipped agents"),
        registry: Registry::parse(&[include_str!("../../registry/actions.yaml")]).expect("the shipped registry"),
        settings: RuleSettings {
            model_tiers: ModelTiers::parse(&owned(&["*sonnet*=STANDARD"]), None).expect("a good entry"),
            writers: Writers {
                token_reporters: owned(&["VRA-TKL-01"]),
                usage_reporters: owned(&["*"]),
                trails: owned(&["RXY-CEO"]),
                daily_limits: owned(&["ARCHITECT", "VRA-CFO"]),
                token_rates: owned(&["VRA-CFO"]),
                finances: owned(&["VRA-CFO", "VRA-ROI-01"]),
                ..Writers::default()
            },
            ..RuleSettings::default()
        },
    }
});

fn judged_at(sequence: i64, subject: &str, payload: &str) -> Verdict {
    RULES.judge(&message_at(sequence, subject, payload))
}

fn message_at(sequence: i64, subject: &str, payload: &str) -> Message {
    Message {
        incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 7 },
        sequence,
        subject: subject.to_owned(),
        // 2026-02-20T17:47:14.568Z
        server_time_ns: 1_771_609_634_568_000_000,
        headers: Headers::NONE,
        payload: payload.to_owned().into(),
    }
}

fn record(subject: &str, payload: &Value) -> Record {
    match judged_at(1, subject, &payload.to_string()) {
        Verdict::Record(record) => record,
        Verdict::Reject { rejection, .. } => panic!("{payload}: {rejection:?}"),
    }
}

fn reason(subject: &str, payload: &str) -> Option<Reason> {
    match judged_at(1, subject, payload) {
        Verdict::Record(_) => None,
        Verdict::Reject { rejection, .. } => Some(rejection.reason()),
    }
}

/// Each change to a good record, and the reason for which it is rejected.
fn rejects(subject: &str, good: &Value, changes: &[(&str, Value, Reason)]) {
    assert_eq!(reason(subject, &good.to_string()), None, "{good}");
    for (field, value, expected) in changes {
        let mut bad = good.clone();
        bad[*field] = value.clone();
        assert_eq!(reason(subject, &bad.to_string()), Some(*expected), "{field} = {value}");
    }
}

const TOKENS: &str = "ledger.TOKENS.RXY-CEO";

fn usage() -> Value {
    json!({"agent_name": "RXY-CEO", "tokens_input": 1200, "tokens_output": 340, "model_used": "Claude Sonnet",
        "task_id": "T-1", "operation_type": "vote"})
}

fn token_usage(payload: &Value) -> TokenUsage {
    match record(TOKENS, payload) {
        Record::TokenUsage(usage) => usage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn usage_as_the_engine_sends_it_is_priced_by_its_model_and_named_by_its_place() {
    let usage = token_usage(&usage());
    assert_eq!(usage.cost, Cost::AtRatesOf("STANDARD".to_owned()));
    assert_eq!((usage.date.as_str(), usage.budget_group.as_deref()), ("2026-02-20", Some("COUNCIL")));
    assert_eq!((usage.usage_id.as_str(), usage.usage_id_given), ("7-1-1771609634568000000", false));
}

#[test]
fn a_given_cost_is_kept_to_its_last_digit_and_a_timestamp_tells_the_utc_day() {
    let payload = r#"{"agent_name":"RXY-CEO","tokens_input":1,"tokens_output":0,"cost_usd":0.00003,
        "timestamp":"2026-02-28T23:30:00-01:00","usage_id":"u-1"}"#;
    let Verdict::Record(Record::TokenUsage(usage)) = judged_at(1, TOKENS, payload) else { panic!("it is good") };
    assert_eq!(usage.cost.given().map(crate::record::fields::Amount::text), Some("0.00003"));
    assert_eq!((usage.date.as_str(), usage.usage_id.as_str()), ("2026-03-01", "u-1"));
}

#[test]
fn token_usage_that_breaks_a_rule_is_rejected() {
    rejects(
        TOKENS,
        &usage(),
        &[
            ("agent_name", Value::Null, Reason::MissingField),
            ("agent_name", json!("SRN-CIO"), Reason::ActorMismatch),
            ("tokens_input", Value::Null, Reason::MissingField),
            ("tokens_input", json!(-1), Reason::NumberOutOfRange),
            ("tokens_input", json!(1.5), Reason::WrongType),
            ("tokens_input", json!("12"), Reason::WrongType),
            ("tokens_output", json!(2_147_483_648_u64), Reason::NumberOutOfRange),
            ("cost_usd", json!(-0.01), Reason::NumberOutOfRange),
            ("cost_usd", json!(1e7), Reason::NumberOutOfRange),
            ("cost_usd", json!(1e-60), Reason::NumberOutOfRange),
            ("cost_usd", json!("0.1"), Reason::WrongType),
            ("model_used", Value::Null, Reason::MissingField),
            ("model_used", json!("a model of nobody's"), Reason::UnknownReference),
            ("model_tier", json!("standard"), Reason::DetailsMismatch),
            ("usage_id", json!(""), Reason::BadEventId),
            ("usage_id", json!("x".repeat(256)), Reason::TooLong),
            ("timestamp", json!("yesterday"), Reason::BadTimestamp),
            ("total_cost", json!(1), Reason::UnknownField),
        ],
    );
    let mut of_nobody = usage();
    of_nobody["agent_name"] = json!("RXY-CFO");
    assert_eq!(reason("ledger.TOKENS.RXY-CFO", &of_nobody.to_string()), Some(Reason::UnknownActor));
    assert_eq!(reason("ledger.TOKENS.VRA-TKL-01", &usage().to_string()), None, "a reporter speaks for others");
}

const TRAIL: &str = "ledger.TRAIL.RXY-CEO";

fn trail() -> Value {
    json!({"trail_id": "TRAIL-SRN-TEL-7-1708451234567", "outcome": "APPROVED", "ledger_ref": "VOTE-RXY-CEO-1708451234567",
        "council_vote": {"RXY-CEO": "APPROVED", "SRN-CIO": "ABSTAIN", "BRM-CTO": "REJECTED", "VRA-CFO": "APPROVED"},
        "proposal": {"proposal_id": "SRN-TEL-7", "task_id": "T-1", "description": "x", "sorin_confidence": "HIGH",
            "vera_clearance": "APPROVED"}})
}

#[test]
fn a_council_vote_that_breaks_a_rule_is_rejected() {
    let votes = |votes: Value| ("council_vote", votes);
    let with = |(field, value): (&'static str, Value), reason| (field, value, reason);
    rejects(
        TRAIL,
        &trail(),
        &[
            ("trail_id", Value::Null, Reason::MissingField),
            ("trail_id", json!("TRAIL-SRN-TEL-8-1708451234567"), Reason::BadEventId),
            ("trail_id", json!("TRAIL-SRN-TEL-7-1708451234"), Reason::BadEventId),
            ("trail_id", json!("VOTE-SRN-TEL-7-1708451234567"), Reason::BadEventId),
            ("outcome", json!("ABSTAIN"), Reason::OutcomeNotAllowed),
            ("outcome", json!("x".repeat(21)), Reason::TooLong),
            with(votes(json!([])), Reason::WrongType),
            with(votes(json!({})), Reason::DetailsMismatch),
            with(votes(json!({"RXY-CEO": "SUCCESS"})), Reason::OutcomeNotAllowed),
            with(votes(json!({"RXY-CEO": true})), Reason::WrongType),
            with(votes(json!({"RXY-CFO": "APPROVED"})), Reason::UnknownActor),
            with(votes(json!({"AST-GOV": "APPROVED"})), Reason::ActionNotAllowed),
            with(votes(json!({"WRK-001": "APPROVED"})), Reason::ActionNotAllowed),
            ("proposal", json!({"task_id": "T-1"}), Reason::DetailsMismatch),
            ("proposal", json!({"proposal_id": 7}), Reason::WrongType),
            ("proposal", json!("SRN-TEL-7"), Reason::WrongType),
            ("ledger_ref", json!(7), Reason::WrongType),
            ("created_at", json!("2026-02-20T00:00:00Z"), Reason::UnknownField),
        ],
    );
    assert_eq!(reason("ledger.TRAIL.WRK-001", &trail().to_string()), Some(Reason::ActionNotAllowed));
    let mut silent = trail();
    (silent["council_vote"], silent["outcome"]) = (json!({}), json!("TIMEOUT"));
    assert_eq!(reason(TRAIL, &silent.to_string()), None, "a vote in which nobody voted has timed out");
}

const METRIC: &str = "ledger.METRIC.VRA-CFO";

#[test]
fn each_metric_key_implies_its_period() {
    for (key, given, period) in [
        ("daily_limit_RXY-CEO", None, Some("daily")),
        ("daily_limit_WORKERS", Some("daily"), Some("daily")),
        ("daily_limit_SYSTEM", None, Some("daily")),
        ("venture_revenue_affiliate_funnel_2026-02", None, Some("2026-02")),
        ("operating_cost_2026-02", Some("2026-02"), Some("2026-02")),
        ("token_rate_STANDARD_input", None, None),
        ("venture_capital_affiliate_funnel", Some("total"), Some("total")),
    ] {
        match record(METRIC, &json!({"metric_key": key, "metric_value": 0.00025, "period": given})) {
            Record::Metric(metric) => {
                assert_eq!((metric.period.as_deref(), metric.set_by.as_str()), (period, "VRA-CFO"), "{key}");
                assert_eq!(metric.value.text(), "0.00025");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_metric_that_breaks_a_rule_is_rejected() {
    let key = |key: &str, reason| ("metric_key", json!(key), reason);
    rejects(
        METRIC,
        &json!({"metric_key": "daily_limit_RXY-CEO", "metric_value": 5, "set_by": "VRA-CFO"}),
        &[
            key("daily_limit_", Reason::DetailsMismatch),
            key("daily_limit_RXY-CFO", Reason::UnknownReference),
            key("daily_limit_workers", Reason::UnknownReference),
            key("weekly_limit_RXY-CEO", Reason::DetailsMismatch),
            key("venture_revenue_2026-02", Reason::DetailsMismatch),
            key("venture_revenue_x_2026-13", Reason::DetailsMismatch),
            key("operating_cost_2026-2", Reason::DetailsMismatch),
            key("token_rate_standard_input", Reason::DetailsMismatch),
            key("token_rate_STANDARD_sideways", Reason::DetailsMismatch),
            key("venture_capital_a b", Reason::DetailsMismatch),
            ("metric_value", Value::Null, Reason::MissingField),
            ("metric_value", json!(-1), Reason::NumberOutOfRange),
            ("metric_value", json!("5"), Reason::WrongType),
            ("metric_value", json!(1e14), Reason::NumberOutOfRange),
            ("period", json!("2026-02"), Reason::DetailsMismatch),
            ("period", json!("x".repeat(21)), Reason::TooLong),
            ("set_by", json!("ARCHITECT"), Reason::ActorMismatch),
            ("unit", json!("USD"), Reason::UnknownField),
        ],
    );
    let limit = json!({"metric_key": "daily_limit_RXY-CEO", "metric_value": 500}).to_string();
    assert_eq!(reason("ledger.METRIC.RXY-CEO", &limit), Some(Reason::ActionNotAllowed));
    assert_eq!(reason("ledger.METRIC.VRA-ROI-01", &limit), Some(Reason::ActionNotAllowed));
    assert_eq!(reason("ledger.METRIC.ARCHITECT", &limit), None);
    let refunds = json!({"metric_key": "venture_revenue_x_2026-02", "metric_value": -12.5}).to_string();
    assert_eq!(reason("ledger.METRIC.VRA-ROI-01", &refunds), None);
}

const USAGE: &str = "ledger.USAGE.BRM-CTO";
const AGENT: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn tool_usage() -> Value {
    json!({"agent_id": AGENT, "tool_id": "7C9E6679-7425-40DE-944B-E07FC1F90AE7", "cost_usd": 0.0125, "tokens_consumed": 10})
}

#[test]
fn a_use_of_a_tool_without_an_id_gets_the_same_one_whenever_it_is_judged() {
    let id = |sequence| match judged_at(sequence, USAGE, &tool_usage().to_string()) {
        Verdict::Record(Record::ToolUsage(usage)) => usage.id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id(1), id(1));
    assert_ne!(id(1), id(2));
    assert_eq!((id(1).len(), &id(1)[14..15]), (36, "8"));
}

#[test]
fn a_use_of_a_tool_that_breaks_a_rule_is_rejected() {
    rejects(
        USAGE,
        &tool_usage(),
        &[
            ("agent_id", Value::Null, Reason::MissingField),
            ("agent_id", json!("BRM-CTO"), Reason::WrongType),
            ("tool_id", json!(7), Reason::WrongType),
            ("venture_id", json!("0f8fad5bd9cb469fa16570867728950e"), Reason::WrongType),
            ("id", json!("1"), Reason::BadEventId),
            ("tokens_consumed", json!(-1), Reason::NumberOutOfRange),
            ("execution_ms", json!(0.5), Reason::WrongType),
            ("cost_usd", json!(10_000), Reason::NumberOutOfRange),
            ("created_at", json!("2026-02-20"), Reason::BadTimestamp),
            ("tool", json!("n8n"), Reason::UnknownField),
        ],
    );
    assert_eq!(reason("ledger.USAGE.BRM-CFO", &tool_usage().to_string()), Some(Reason::UnknownActor));
    assert_eq!(reason(&format!("ledger.USAGE.{AGENT}"), &tool_usage().to_string()), None);
    let shouted = format!("ledger.USAGE.{}", AGENT.to_uppercase());
    assert_eq!(reason(&shouted, &tool_usage().to_string()), None);
    let other = "ledger.USAGE.7c9e6679-7425-40de-944b-e07fc1f90ae7";
    assert_eq!(reason(other, &tool_usage().to_string()), Some(Reason::ActorMismatch));
}

fn reason_of_usage(writers: Writers, actor: &str, agent_id: &str) -> Option<Reason> {
    let rules = Rules {
        agents: RULES.agents.clone(),
        registry: Registry::default(),
        settings: RuleSettings { writers, ..RuleSettings::default() },
    };
    let usage = tool_usage().to_string().replace(AGENT, agent_id);
    match rules.judge(&message_at(1, &format!("ledger.USAGE.{actor}"), &usage)) {
        Verdict::Record(_) => None,
        Verdict::Reject { rejection, .. } => Some(rejection.reason()),
    }
}

#[test]
fn an_author_may_name_its_own_agent_id_alone_unless_it_reports_for_others() {
    let other = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    let reporters = vec!["VRA-TKL-01".to_owned()];
    let usage_agents = Some([("WRK-010".to_owned(), AGENT.to_owned())].into());
    let bound = Writers { usage_agents, usage_reporters: reporters.clone(), ..Writers::default() };
    let of = |writers: &Writers, actor: &str, agent_id: &str| reason_of_usage(writers.clone(), actor, agent_id);
    assert_eq!(of(&bound, "WRK-010", AGENT), None);
    assert_eq!(of(&bound, "WRK-010", &AGENT.to_uppercase()), None);
    assert_eq!(of(&bound, "WRK-010", other), Some(Reason::ActorMismatch));
    assert_eq!(of(&bound, "WRK-011", AGENT), Some(Reason::ActionNotAllowed));
    assert_eq!(of(&bound, "VRA-TKL-01", other), None);
    assert_eq!(of(&bound, AGENT, AGENT), None, "whose subject is its agent_id");

    let listed = Writers { usage_reporters: reporters, ..Writers::default() };
    assert_eq!(of(&listed, "VRA-TKL-01", other), None);
    assert_eq!(of(&listed, "WRK-010", AGENT), Some(Reason::ActionNotAllowed));
    assert_eq!(
        of(&Writers::default(), "WRK-010", AGENT),
        Some(Reason::ActionNotAllowed),
        "where nothing is configured"
    );
    assert_eq!(
        of(&Writers::default(), AGENT, AGENT),
        None,
        "whose subject is its agent_id, where nothing is configured"
    );
    let open = Writers { usage_reporters: vec!["*".to_owned()], ..Writers::default() };
    assert_eq!(of(&open, "WRK-010", other), None);
}
