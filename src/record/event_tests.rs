use super::*;
use crate::record::agents::Agents;
use crate::record::kinds::Record;
use crate::record::message::{Headers, Incarnation};
use crate::record::registry::Registry;
use crate::record::rules::RuleSettings;
use crate::record::verdict::Verdict;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static RULES: LazyLock<Rules> = LazyLock::new(|| rules(RuleSettings::default()));

fn rules(settings: RuleSettings) -> Rules {
    let extra = ["ARCHITECT".to_owned(), "N8N_SANITIZER".to_owned()];
    Rules {
        agents: Agents::parse(include_str!("../../registry/agent_schema.yaml"), &extra).expect("the shipped agents"),
        registry: Registry::parse(&[include_str!("../../registry/actions.yaml")]).expect("the shipped registry"),
        settings,
    }
}

fn message(subject: &str, payload: impl Into<Bytes>) -> Message {
    Message {
        incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 1 },
        sequence: 1,
        subject: subject.to_owned(),
        server_time_ns: 1_771_609_634_568_000_000,
        headers: Headers::NONE,
        payload: payload.into(),
    }
}

fn good() -> Value {
    json!({"event_id": "EXEC-BRM-CTO-1708451234568", "actor": "BRM-CTO", "action": "EXECUTION_STARTED", "outcome": "SUCCESS",
        "timestamp": "2026-02-20T17:47:14.568Z", "task_id": "T-1", "details": {"steps": 4}})
}

fn judged(rules: &Rules, subject: &str, event: &Value) -> Result<AuditEvent, Reason> {
    match rules.judge(&message(subject, event.to_string())) {
        Verdict::Record(Record::Event(event)) => Ok(event),
        Verdict::Record(other) => panic!("{other:?}"),
        Verdict::Reject { rejection, .. } => Err(rejection.reason()),
    }
}

fn with(field: &str, value: Value) -> Value {
    let mut event = good();
    event[field] = value;
    event
}

#[test]
fn a_good_event_becomes_its_row() {
    let event = judged(&RULES, "ledger.EXEC.BRM-CTO", &good()).expect("the event is good");
    assert_eq!(event.time.text(), "2026-02-20T17:47:14.568Z");
    assert_eq!(event.details.as_deref(), Some(r#"{"steps":4}"#));
    // From the specification's Python formula.
    assert_eq!(event.integrity_hash, "079901ab853b71891ddbbccde4d0a684eaf6642f4ae9df788eac0937974746af");
}

#[test]
fn optional_fields_may_be_absent_null_or_empty() {
    for (field, value) in
        [("details", Value::Null), ("task_id", Value::Null), ("integrity_hash", Value::Null), ("task_id", json!(""))]
    {
        assert!(judged(&RULES, "ledger.EXEC.BRM-CTO", &with(field, value)).is_ok(), "{field}");
    }
}

#[test]
fn each_broken_rule_has_its_reason() {
    let long = "x".repeat(256);
    for (field, value, expected) in [
        ("event_id", Value::Null, Reason::MissingField),
        ("timestamp", Value::Null, Reason::MissingField),
        ("extra", json!(1), Reason::UnknownField),
        ("actor", json!(7), Reason::WrongType),
        ("details", json!([]), Reason::WrongType),
        ("details", json!("{}"), Reason::WrongType),
        ("timestamp", json!(1_708_451_234_567_u64), Reason::WrongType),
        ("task_id", json!(long), Reason::TooLong),
        ("event_id", json!(format!("EXEC-BRM-CTO-{long}")), Reason::TooLong),
        ("event_id", json!("EXEC-BRM-CTO-170845123456"), Reason::BadEventId),
        ("event_id", json!("EXEC-BRM-CTO-17084512345678"), Reason::BadEventId),
        ("event_id", json!("EXEC-BRM-CTO-170845123456x"), Reason::BadEventId),
        ("event_id", json!("BRM-CTO-1708451234567"), Reason::BadEventId),
        ("event_id", json!("nonsense"), Reason::BadEventId),
        ("event_id", json!(""), Reason::BadEventId),
        ("event_id", json!("SEC-BRM-CTO-1708451234568"), Reason::PrefixMismatch),
        ("event_id", json!("EXEC-SRN-CIO-1708451234568"), Reason::ActorMismatch),
        ("actor", json!("SRN-CIO"), Reason::ActorMismatch),
        ("action", json!("MAKE_COFFEE"), Reason::UnknownAction),
        ("action", json!("TASK_RECEIVED"), Reason::ActionNotAllowed),
        ("outcome", json!("PARTIAL"), Reason::OutcomeNotAllowed),
        ("timestamp", json!("yesterday"), Reason::BadTimestamp),
        ("integrity_hash", json!("0".repeat(64)), Reason::HashMismatch),
        ("integrity_hash", json!(""), Reason::HashMismatch),
    ] {
        assert_eq!(
            judged(&RULES, "ledger.EXEC.BRM-CTO", &with(field, value.clone())),
            Err(expected),
            "{field} = {value}"
        );
    }
    let stranger = json!({"event_id": "SEC-MALLORY-1708451234568", "actor": "MALLORY", "action": "INJECTION_SCAN",
        "outcome": "SUCCESS", "timestamp": "2026-02-20T17:47:14Z"});
    assert_eq!(judged(&RULES, "ledger.SEC.MALLORY", &stranger), Err(Reason::UnknownActor));
}

#[test]
fn a_hash_that_is_right_passes() {
    let hash = integrity_hash(
        "EXEC-BRM-CTO-1708451234568",
        "BRM-CTO",
        "EXECUTION_STARTED",
        "SUCCESS",
        "2026-02-20T17:47:14.568Z",
    );
    assert!(judged(&RULES, "ledger.EXEC.BRM-CTO", &with("integrity_hash", json!(hash))).is_ok());
    assert!(judged(&RULES, "ledger.EXEC.BRM-CTO", &with("integrity_hash", json!(hash.to_uppercase()))).is_ok());
}

#[test]
fn the_settings_admit_what_real_agents_send() {
    let lenient = rules(RuleSettings { any_event_id: true, stamp_missing_timestamp: true, ..RuleSettings::default() });
    let mut tool = json!({"event_id": "TOOL-BRM-CTO-n8n_trigger-2026-02-20T174714", "actor": "BRM-CTO", "outcome": "DENIED",
        "action": "TOOL_REQUEST_N8N_TRIGGER", "timestamp": "2026-02-20T17:47:14.000123Z"});
    assert_eq!(judged(&RULES, "ledger.TOOL.BRM-CTO", &tool), Err(Reason::BadEventId));
    assert!(judged(&lenient, "ledger.TOOL.BRM-CTO", &tool).is_ok());
    tool["timestamp"] = Value::Null;
    let stamped = judged(&lenient, "ledger.TOOL.BRM-CTO", &tool).expect("the server's time is taken");
    assert_eq!(stamped.time.text(), "2026-02-20T17:47:14.568Z");
    let long = format!("TOOL-{}", "x".repeat(250));
    for good in ["TOOL-", "TOOL-BRM-CTO-", "TOOL-SRN-CIO-1708451234567", "TOOL-a b~", &long] {
        tool["event_id"] = json!(good);
        assert!(judged(&lenient, "ledger.TOOL.BRM-CTO", &tool).is_ok(), "{good}");
    }
    for (bad, reason) in [
        ("TOOL", Reason::BadEventId),
        ("TOOLS-1", Reason::BadEventId),
        ("TOOL-é", Reason::BadEventId),
        ("TOOL-a\tb", Reason::BadEventId),
        ("SEC-BRM-CTO-1", Reason::PrefixMismatch),
        (&format!("{long}x"), Reason::TooLong),
    ] {
        tool["event_id"] = json!(bad);
        assert_eq!(judged(&lenient, "ledger.TOOL.BRM-CTO", &tool), Err(reason), "{bad}");
    }
}

#[test]
fn the_hash_covers_the_id_under_which_an_event_is_stored() {
    let event = judged(&RULES, "ledger.EXEC.BRM-CTO", &good()).expect("the event is good");
    let stored = event.clone().stored_as("EXEC-BRM-CTO-1708451234568~0a1b2c3d".to_owned());
    let hash = |id: &str| integrity_hash(id, &event.actor, &event.action, &event.outcome, event.time.text());
    assert_eq!(event.integrity_hash, hash("EXEC-BRM-CTO-1708451234568"));
    assert_eq!(stored.integrity_hash, hash("EXEC-BRM-CTO-1708451234568~0a1b2c3d"));
}

/// Each action of LDG-002 that is Astra's, whose status is `dev`.
#[test]
fn an_agent_in_development_says_what_the_specification_lets_it_say() {
    for (action, outcome) in [
        ("CORPUS_AUDIT", "SUCCESS"),
        ("VIOLATION_FLAGGED", "BLOCKED"),
        ("CP_SUBMITTED", "PENDING"),
        ("DOC_VALIDATED", "APPROVED"),
        ("HANDOFF_PRODUCED", "SUCCESS"),
    ] {
        let event = json!({"event_id": "CORP-AST-GOV-1708451234568", "actor": "AST-GOV", "action": action,
            "outcome": outcome, "timestamp": "2026-02-20T17:47:14Z"});
        assert!(judged(&RULES, "ledger.CORP.AST-GOV", &event).is_ok(), "{action}");
    }
}

proptest! {
    #[test]
    fn any_bytes_on_any_subject_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..300), subject in "\\PC{0,40}") {
        let _ = RULES.judge(&message(&subject, bytes));
    }

    #[test]
    fn whatever_is_accepted_keeps_every_rule(
        lane in prop::sample::select(&["EXEC", "SEC", "TOOL", "VOTE"][..]),
        actor in prop::sample::select(&["BRM-CTO", "RXY-CEO", "AST-GOV", "BRM-INF-01", "WRK-006", "NOBODY"][..]),
        id_actor in prop::sample::select(&["BRM-CTO", "RXY-CEO", "BRM-INF-01", "WRK-006"][..]),
        action in prop::sample::select(&["EXECUTION_STARTED", "INJECTION_SCAN", "TOOL_REQUEST_X", "TASK_RECEIVED", "NO_SUCH"][..]),
        outcome in prop::sample::select(&["SUCCESS", "DENIED", "BLOCKED", "FAILURE"][..]),
        suffix in "[0-9]{12,14}",
        timestamp in "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])?",
    ) {
        let event = json!({"event_id": format!("{lane}-{id_actor}-{suffix}"), "actor": actor, "action": action,
            "outcome": outcome, "timestamp": timestamp});
        if let Ok(row) = judged(&RULES, &format!("ledger.{lane}.{actor}"), &event) {
            prop_assert_eq!(suffix.len(), 13);
            prop_assert_eq!(id_actor, actor);
            prop_assert!(actor != "NOBODY");
            prop_assert_eq!(row.time.text(), timestamp.as_str());
            prop_assert_eq!(&row.integrity_hash, &integrity_hash(&row.event_id, actor, action, outcome, &timestamp));
            let allowed = match action {
                "EXECUTION_STARTED" => actor.starts_with("BRM-") && outcome == "SUCCESS",
                "INJECTION_SCAN" => ["SUCCESS", "BLOCKED"].contains(&outcome),
                "TOOL_REQUEST_X" => outcome == "DENIED",
                "TASK_RECEIVED" => actor == "RXY-CEO" && ["SUCCESS", "FAILURE"].contains(&outcome),
                _ => false,
            };
            prop_assert!(allowed);
        }
    }
}

/// The specification's own formula, run by Python over texts of every kind.
#[test]
fn the_hash_is_the_specifications_python_formula() {
    let script = "import hashlib, json, sys
def compute_integrity_hash(event_id, actor, action, outcome, timestamp):
    payload = f\"{event_id}{actor}{action}{outcome}{timestamp}\"
    return hashlib.sha256(payload.encode()).hexdigest()
print(json.dumps([compute_integrity_hash(*five) for five in json.load(sys.stdin)]))";
    let cases: Vec<[String; 5]> =
        ["", "EXEC-BRM-CTO-1708451234568", "é", "日本", "a\"b\\c", "\u{1f600}", "2026-02-20T17:47:14+05:30"]
            .iter()
            .map(|text| {
                [(*text).to_owned(), format!("{text}1"), "ACTION".to_owned(), "SUCCESS".to_owned(), format!("{text}Z")]
            })
            .collect();
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let input = serde_json::to_vec(&cases).expect("JSON");
    std::io::Write::write_all(&mut python.stdin.take().expect("a pipe"), &input).expect("python3 reads");
    let output = python.wait_with_output().expect("python3 ends");
    let expected: Vec<String> = serde_json::from_slice(&output.stdout).expect("python3 answers");
    let ours: Vec<_> = cases
        .iter()
        .map(|[id, actor, action, outcome, time]| integrity_hash(id, actor, action, outcome, time))
        .collect();
    assert_eq!(ours, expected);
}
