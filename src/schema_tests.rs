use super::fields::timestamp as timestamp_schema;
use super::records::{Kind, json_schema};
use crate::record::agents::Agents;
use crate::record::message::{Headers, Incarnation, Message};
use crate::record::registry::Registry;
use crate::record::reject::Reason;
use crate::record::rules::{RuleSettings, Rules};
use crate::record::timestamp::EventTime;
use crate::record::verdict::Verdict;
use crate::record::writers::Writers;
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use strum::VariantArray as _;

const UUID: &str = "123e4567-e89b-42d3-a456-426614174000";

fn rules(registry: &[&str], settings: RuleSettings) -> Rules {
    let extra = ["ARCHITECT", "N8N_SANITIZER"].map(str::to_owned);
    let agents = Agents::parse(include_str!("../registry/agent_schema.yaml"), &extra).expect("the shipped agents");
    let files = [&[include_str!("../registry/actions.yaml")], registry].concat();
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let writers = Writers {
        trails: list(&["RXY-CEO", "ARCHITECT"]),
        daily_limits: list(&["ARCHITECT", "VRA-CFO"]),
        token_rates: list(&["VRA-CFO"]),
        finances: list(&["VRA-CFO", "VRA-ROI-01"]),
        usage_reporters: list(&["*"]),
        ..Writers::default()
    };
    Rules {
        agents,
        registry: Registry::parse(&files).expect("good files"),
        settings: RuleSettings { writers, ..settings },
    }
}

fn strict() -> Rules {
    rules(&[], RuleSettings::default())
}

fn hegemon() -> Rules {
    let settings = RuleSettings { any_event_id: true, stamp_missing_timestamp: true, ..RuleSettings::default() };
    rules(&[include_str!("../registry/hegemon.yaml")], settings)
}

/// Names that fit one another, details that refer to their own parts, and a prefix of its own.
fn operators_own() -> Rules {
    let file = r##"
groups:
  - {name: A, actors: [BRM-CTO], actions: {"TOOL_REQUEST_{X}": {outcomes: [SUCCESS]}, "TOOL_REQUEST_N8N_{X}": {outcomes: [PARTIAL]}}}
  - {name: B, actors: [VRA-CFO], actions: {TOOL_REQUEST_N8N_TRIGGER: {outcomes: [WARNING]}}}
  - {name: C, actors: [NOBODY-01], actions: {FOR_NOBODY: {outcomes: [SUCCESS]}}}
prefixes: {AUDS: {actors: any}}
details:
  TASK_INTAKE: {$ref: "#/$defs/task", $defs: {task: {type: object, required: [title]}}}
  TOOL_REQUEST_N8N_TRIGGER: {type: object, required: [hook]}
  "TOOL_{X}": {type: object, required: [tool]}
"##;
    rules(&[file], RuleSettings::default())
}

/// Each with its subject's lane and actor.
fn good_records() -> Vec<(&'static str, &'static str, Value)> {
    let event = |action: &str, outcome: &str| {
        json!({
            "event_id": "EXEC-BRM-CTO-1708451234567", "actor": "BRM-CTO", "action": action, "outcome": outcome,
            "timestamp": "2026-02-20T17:47:14.568Z", "task_id": "TASK-1", "details": { "title": "x", "tool": "y" },
        })
    };
    let mut hooked = event("TOOL_REQUEST_N8N_TRIGGER", "DENIED");
    hooked["details"] = json!({
        "tool_name": "n8n", "agent_tier": "T1", "council_vote_ref": null, "architect_approval_ref": null,
        "hook": "h", "tool": "t",
    });
    let mut vote = event("VOTE_RECORDED", "APPROVED");
    vote["event_id"] = json!("VOTE-RXY-CEO-1708451234567");
    vote["actor"] = json!("RXY-CEO");
    vote["details"] = json!({
        "proposal_id": "P", "votes": { "RXY-CEO": "APPROVED" }, "result": "APPROVED", "threshold_required": 1, "threshold_met": true,
    });
    let usage = json!({
        "agent_name": "RXY-CEO", "tokens_input": 7, "tokens_output": 2.0, "usage_id": "u", "cost_usd": 0.5,
        "model_tier": "STANDARD", "model_used": "claude-sonnet-4", "timestamp": null, "task_id": "T", "operation_type": "vote",
    });
    let trail = json!({
        "trail_id": "TRAIL-P-1708451234567", "council_vote": { "RXY-CEO": "APPROVED" }, "proposal": { "proposal_id": "P" },
        "outcome": "APPROVED", "ledger_ref": "VOTE-RXY-CEO-1708451234567",
    });
    let metric = |key: &str, period: Option<&str>| json!({ "metric_key": key, "metric_value": 1.5, "period": period, "set_by": "VRA-CFO" });
    let tool_usage = json!({
        "id": UUID, "agent_id": UUID, "tool_id": UUID, "venture_id": UUID, "tokens_consumed": 1, "cost_usd": 0.1,
        "execution_ms": 7, "created_at": "2026-02-20T17:47:14Z",
    });
    vec![
        ("EXEC", "BRM-CTO", event("EXECUTION_STARTED", "SUCCESS")),
        ("EXEC", "BRM-CTO", event("TASK_INTAKE", "FAILURE")),
        ("EXEC", "BRM-CTO", hooked),
        ("VOTE", "RXY-CEO", vote),
        ("TOKENS", "RXY-CEO", usage),
        ("TRAIL", "RXY-CEO", trail),
        ("METRIC", "VRA-CFO", metric("daily_limit_RXY-CEO", Some("Daily"))),
        ("METRIC", "VRA-CFO", metric("operating_cost_2026-02", Some("2026-02"))),
        ("METRIC", "VRA-CFO", metric("token_rate_STANDARD_input", Some("any"))),
        ("METRIC", "VRA-CFO", metric("venture_revenue_a_b_2026-12", None)),
        ("METRIC", "VRA-CFO", metric("venture_capital_a-b", None)),
        ("USAGE", "BRM-CTO", tool_usage),
    ]
}

/// What is put in the place of each field.
fn values() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "x",
        "\u{0}",
        "BRM-CTO",
        "BRM-WFB-01",
        "RXY-CEO",
        "VRA-CFO",
        "VRA-ROI-01",
        "ARCHITECT",
        "AST-GOV",
        "NOBODY-01",
        "brm-cto",
        "EXEC-BRM-CTO-1708451234567",
        "EXEC-BRM-CTO-170845123456",
        "EXEC-BRM-CTO-1708451234567\n",
        "EXEC-",
        "EXEC",
        "EXEC-anything at all",
        "EXEC-é",
        "EXEC-VRA-CFO-1708451234567",
        "FOO-BRM-CTO-1708451234567",
        "AUDS-BRM-CTO-1708451234567",
        "TOKENS-BRM-CTO-1708451234567",
        "EXECUTION_STARTED",
        "EXECUTION_COMPLETED",
        "TASK_INTAKE",
        "COUNCIL_CONVENED",
        "WORLD_DOMINATED",
        "FOR_NOBODY",
        "INJECTION_SCAN",
        "TOOL_REQUEST_",
        "TOOL_REQUEST_A",
        "TOOL_REQUEST_a",
        "TOOL_REQUEST_N8N_",
        "TOOL_REQUEST_N8N_X",
        "TOOL_REQUEST_N8N_TRIGGER",
        "MODEL_CALL_FAILED",
        "SUCCESS",
        "FAILURE",
        "PARTIAL",
        "WARNING",
        "DENIED",
        "APPROVED",
        "REJECTED",
        "TIMEOUT",
        "ABSTAIN",
        "success",
        "2026-02-20T17:47:14Z",
        "2026-02-20",
        "20260220T174714Z",
        "yesterday",
        "2026-02-20 17:47:14",
        "TRAIL-P-1708451234567",
        "TRAIL-P-1",
        "TRAIL--1708451234567",
        "daily_limit_SYSTEM",
        "daily_limit_COUNCIL",
        "daily_limit_council",
        "daily_limit_NOBODY",
        "weekly_limit_RXY-CEO",
        "operating_cost_2026-13",
        "token_rate_X_sideways",
        "venture_capital_a b",
        "daily",
        "weekly",
        "2026-02",
        "STANDARD",
        "standard",
        UUID,
        "123E4567-E89B-42D3-A456-426614174000",
        "123e4567",
        "claude-sonnet-4",
    ];
    let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
    values.extend([50, 51, 20, 21, 255, 256, 64, 65].map(|length| Value::from("A".repeat(length))));
    values.extend([0.0, -1.0, 0.5, 1e6, 1_000_001.0, 9_999.999_999, 1e4, 1e13, -1e13, 1.1e13].map(Value::from));
    values.extend([i64::from(i32::MAX), i64::from(i32::MAX) + 1, 2].map(Value::from));
    values.extend([
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!({ "deep": [{ "a\u{0}": 1 }] }),
        json!({ "deep": ["a\u{0}"] }),
        json!({ "title": "x" }),
        json!({ "tool": "x" }),
        json!({ "hook": "x" }),
        json!({ "proposal_id": null }),
        json!({ "proposal_id": "" }),
        json!({ "proposal_id": "P", "more": [1.5, null] }),
        json!({ "RXY-CEO": "MAYBE" }),
        json!({ "WRK-001": "APPROVED" }),
        json!({ "RXY-CEO": null }),
        json!({ "error": null, "steps_completed": 1 }),
    ]);
    values
}

fn judge(rules: &Rules, lane: &str, publisher: &str, record: &Value) -> Verdict {
    rules.judge(&Message {
        incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 1 },
        sequence: 1,
        subject: format!("ledger.{lane}.{publisher}"),
        server_time_ns: 1_700_000_000_000_000_000,
        headers: Headers::NONE,
        payload: record.to_string().into(),
    })
}

/// Whether a schema leaves this to the ledger: what takes more than the record, or compares its parts.
fn is_beyond(reason: Reason, lane: &str, detail: &str) -> bool {
    match reason {
        Reason::NotUtf8
        | Reason::MalformedJson
        | Reason::TooLarge
        | Reason::DuplicateKey
        | Reason::PrefixMismatch
        | Reason::HashMismatch
        | Reason::Conflict
        | Reason::DatabaseRejected
        // The subject's, or two fields compared where ids are free.
        | Reason::ActorMismatch => true,
        Reason::UnknownReference => lane == "TOKENS",
        // Its proposal, as the summary has it.
        Reason::BadEventId => lane == "TRAIL" && detail.contains("after proposal.proposal_id"),
        Reason::DetailsMismatch => detail.contains("threshold_met") || detail.contains("metric_key implies 20"),
        _ => false,
    }
}

fn kind(lane: &str) -> Kind {
    Kind::of(lane.parse::<crate::record::lane::Lane>().expect("a lane").table())
}

fn validator(document: &Value) -> Validator {
    assert!(jsonschema::meta::is_valid(document), "{document:#}");
    jsonschema::validator_for(document).expect("a schema")
}

#[test]
fn the_schemas_say_what_the_judging_says() {
    for rules in [strict(), hegemon(), operators_own()] {
        let all = validator(&json_schema(None, &rules));
        let (mut stored, mut refused) = (0, 0);
        for (lane, publisher, good) in good_records() {
            let schema = validator(&json_schema(Some(kind(lane)), &rules));
            let mut compare = |record: &Value, publisher: &str| {
                let is_valid = schema.is_valid(record);
                assert!(!is_valid || all.is_valid(record), "the schema of all kinds refuses {record}");
                match judge(&rules, lane, publisher, record) {
                    Verdict::Record(_) => {
                        let errors: Vec<String> = schema.iter_errors(record).map(|error| error.to_string()).collect();
                        assert!(is_valid, "{record} is stored, and the schema refuses it: {errors:?}");
                        stored += 1;
                    }
                    Verdict::Reject { rejection, .. } => {
                        let beyond = is_beyond(rejection.reason(), lane, rejection.detail());
                        assert!(beyond || !is_valid, "the schema takes {record}: {}", rejection.detail());
                        refused += u32::from(!beyond);
                    }
                }
            };
            compare(&good, publisher);
            let fields: Vec<String> = good.as_object().expect("an object").keys().cloned().collect();
            for field in fields.iter().map(String::as_str).chain(["severity", "integrity_hash"]) {
                let mut without = good.clone();
                without.as_object_mut().expect("an object").remove(field);
                compare(&without, publisher);
                for value in values() {
                    let mut changed = good.clone();
                    changed[field] = value;
                    // Under the subject of whom it names, and with an id of that one.
                    let named =
                        changed["actor"].as_str().or(changed["agent_name"].as_str()).or(changed["set_by"].as_str());
                    let publisher = named.filter(|name| !name.is_empty()).unwrap_or(publisher).to_owned();
                    compare(&changed, &publisher);
                    if field == "actor" {
                        changed["event_id"] = json!(format!("{lane}-{publisher}-1708451234567"));
                        compare(&changed, &publisher);
                        for outcome in ["SUCCESS", "FAILURE", "WARNING", "PARTIAL", "DENIED", "APPROVED"] {
                            changed["outcome"] = json!(outcome);
                            compare(&changed, &publisher);
                        }
                    }
                }
            }
        }
        assert!(stored > 250 && refused > 2_000, "stored {stored}, refused {refused}");
    }
}

#[test]
fn each_kind_has_a_schema_of_its_name() {
    for kind in Kind::VARIANTS {
        let document = json_schema(Some(*kind), &strict());
        assert_eq!(document["title"], kind.name());
        validator(&document);
    }
}

proptest! {
    #[test]
    fn a_timestamp_that_is_read_fits_its_pattern(
        text in "([+-]0)?[0-9]{4}(-(0[1-9]|1[0-3])-|[01][0-9])[0-3][0-9][Tt ][0-2][0-9](:?[0-6][0-9](:?[0-6][0-9]([.,][0-9]{0,10})?)?)?([Zz]|[+-][0-2][0-9](:?[0-5][0-9](:?[0-5][0-9])?)?)?"
    ) {
        let schema = validator(&timestamp_schema());
        let is_read = EventTime::parse(text.clone()).is_ok();
        prop_assert!(!is_read || schema.is_valid(&json!(text)), "{} is read", text);
    }

    #[test]
    fn a_timestamp_that_fits_its_pattern_is_read(
        date in "(19|20)[0-9]{2}(-(0[1-9]|1[0-2])-|(0[1-9]|1[0-2]))(0[1-9]|1[0-9]|2[0-8])",
        time in "([01][0-9]|2[0-3])(:[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?|[0-5][0-9]([0-5][0-9]([.,][0-9]{1,9})?)?)?",
        offset in "([Zz]|[+-]([01][0-9]|2[0-3])(:[0-5][0-9]|[0-5][0-9])?)?"
    ) {
        let text = format!("{date}T{time}{offset}");
        prop_assert!(validator(&timestamp_schema()).is_valid(&json!(text)), "{} does not fit", text);
        prop_assert!(EventTime::parse(text.clone()).is_ok(), "{} is not read", text);
    }
}
