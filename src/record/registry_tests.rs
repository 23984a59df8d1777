use super::*;
use crate::record::json::Object;

const SHIPPED: &str = include_str!("../../registry/actions.yaml");

fn agents() -> Agents {
    Agents::parse(include_str!("../../registry/agent_schema.yaml"), &["ARCHITECT".to_owned()])
        .expect("the shipped file is good")
}

fn registry() -> Registry {
    Registry::parse(&[SHIPPED]).expect("the shipped file is good")
}

fn reason(actor: &str, action: &str, outcome: &str) -> Option<Reason> {
    registry().admit(actor, action, outcome, &agents()).err().map(|rejection| rejection.reason())
}

/// As it comes in a message.
fn check_details(registry: &Registry, action: &str, details: &Value) -> Result<(), Rejection> {
    let text = serde_json::json!({ "details": details }).to_string();
    let message = Object::parse(text.as_bytes(), 32).expect("an object");
    registry.check_details(action, message.get("details").expect("its details"))
}

#[test]
fn the_shipped_files_hold_all_agents_and_the_whole_registry() {
    assert_eq!(agents().len(), 32 + 1);
    // LDG-002 lists 42 rows; SUBTASK_DISPATCHED and VOTE_CAST stand in three tables each. SCHEMA_MIGRATION is added,
    // the three of retention, the one of repairs, and the two of dead letters.
    let rows: usize = registry().grants.values().map(Vec::len).sum();
    assert_eq!((registry().len(), rows), (45, 42 + 7));
    assert_eq!(registry().details.len(), 11);
}

#[test]
fn an_action_is_open_to_its_agent_and_to_those_below_it() {
    assert_eq!(reason("BRM-CTO", "EXECUTION_COMPLETED", "PARTIAL"), None);
    assert_eq!(reason("BRM-WFB-01", "EXECUTION_COMPLETED", "PARTIAL"), None);
    assert_eq!(reason("SRN-CIO", "EXECUTION_COMPLETED", "PARTIAL"), Some(Reason::ActionNotAllowed));
    assert_eq!(reason("RXY-CEO", "VOTE_CAST", "APPROVED"), Some(Reason::ActionNotAllowed));
    assert_eq!(reason("VRA-ROI-01", "VOTE_CAST", "ABSTAIN"), None);
    assert_eq!(reason("WRK-001", "INJECTION_SCAN", "BLOCKED"), None);
    assert_eq!(reason("ARCHITECT", "SCHEMA_MIGRATION", "SUCCESS"), None);
    assert_eq!(reason("ARCHITECT", "DELETION_AUTHORIZED", "APPROVED"), None);
    assert_eq!(reason("RXY-CEO", "DELETION_AUTHORIZED", "APPROVED"), Some(Reason::ActionNotAllowed));
    assert_eq!(reason("ARCHITECT", "PROJECTION_REPAIRED", "SUCCESS"), None);
    assert_eq!(reason("RXY-CEO", "PROJECTION_REPAIRED", "SUCCESS"), Some(Reason::ActionNotAllowed));
}

#[test]
fn an_action_knows_its_outcomes() {
    assert_eq!(reason("BRM-CTO", "EXECUTION_COMPLETED", "ROLLBACK"), Some(Reason::OutcomeNotAllowed));
    assert_eq!(reason("BRM-CTO", "execution_completed", "SUCCESS"), Some(Reason::UnknownAction));
    assert_eq!(reason("BRM-CTO", "TOOL_REQUEST_N8N_TRIGGER", "DENIED_NEEDS_ARCHITECT"), None);
    assert_eq!(reason("BRM-CTO", "TOOL_REQUEST_N8N_TRIGGER", "SUCCESS"), Some(Reason::OutcomeNotAllowed));
    for tool in ["WEB-SEARCH", "FS.READ", "MCP:GITHUB/LIST-ISSUES_2"] {
        assert_eq!(reason("BRM-CTO", &format!("TOOL_REQUEST_{tool}"), "DENIED"), None, "{tool}");
    }
    assert_eq!(reason("BRM-CTO", "TOOL_REQUEST_", "DENIED"), Some(Reason::UnknownAction));
    assert_eq!(reason("BRM-CTO", "TOOL_REQUEST_a b", "DENIED"), Some(Reason::UnknownAction));
}

#[test]
fn an_operator_adds_actions_without_a_rebuild() {
    let extra = "groups: [{name: Engine, actors: [WRK-001], actions: {MODEL_CALL_FAILED: {outcomes: [FAILURE]}}}]
details: {MODEL_CALL_FAILED: {type: object, required: [error]}}";
    let registry = Registry::parse(&[SHIPPED, extra]).expect("both are good");
    assert!(registry.admit("WRK-001", "MODEL_CALL_FAILED", "FAILURE", &agents()).is_ok());
    assert!(registry.admit("WRK-002", "MODEL_CALL_FAILED", "FAILURE", &agents()).is_err());
    assert!(check_details(&registry, "MODEL_CALL_FAILED", &serde_json::json!({})).is_err());
}

#[test]
fn a_broken_registry_says_where() {
    for (file, says) in [
        ("groups: []", "no action"),
        (
            "groups: [{name: G, actors: any, actions: {A: {outcomes: []}}}]",
            "group \"G\", action A: at least one outcome",
        ),
        ("groups: [{name: G, actors: any, actions: {a: {outcomes: [X]}}}]", "SCREAMING_SNAKE_CASE"),
        ("groups: [{name: G, actors: any, actions: {'A_{B}_C': {outcomes: [X]}}}]", "PLACEHOLDER"),
        ("groups: [{name: G, actors: any, actions: {A: {outcome: [X]}}}]", "outcome"),
        ("details: {A: {type: 7}}", "details of A"),
    ] {
        let error = Registry::parse(&[file]).expect_err(file);
        assert!(error.contains(says), "{file}: {error}");
    }
}

#[test]
fn details_have_the_structure_of_their_action() {
    let registry = registry();
    let examples = [
        (
            "INJECTION_SCAN",
            r#"{"severity":"CLEAN","matched_patterns":[],"input_source":"telegram","input_length":142,"blocked":false,"sanitized":false}"#,
        ),
        (
            "TOOL_REQUEST_N8N_TRIGGER",
            r#"{"tool_name":"n8n_trigger","agent_tier":"TIER_1_COUNCIL","council_vote_ref":null,"architect_approval_ref":null}"#,
        ),
        (
            "CLEARANCE_ISSUED",
            r#"{"model_tier_assigned":"STANDARD","estimated_token_cost":0.045,"current_daily_spend":1.23,"budget_status":"GREEN","roi_score":"HIGH","clearance_decision":"APPROVED","block_reason":null}"#,
        ),
        (
            "EXECUTION_COMPLETED",
            r#"{"proposal_id":"SRN-TEL-1","council_vote_ref":"VOTE-RXY-CEO-1","steps_completed":4,"steps_total":4,"n8n_workflows_triggered":["HEGEMON-09"],"error":null}"#,
        ),
        (
            "VOTE_RECORDED",
            r#"{"proposal_id":"SRN-TEL-1","votes":{"RXY-CEO":"APPROVED","SRN-CIO":"APPROVED","BRM-CTO":"REJECTED","VRA-CFO":"ABSTAIN"},"result":"APPROVED","threshold_required":2,"threshold_met":true}"#,
        ),
        (
            "DELETION_AUTHORIZED",
            r#"{"table":"audit_events","ids":["SEC-WRK-001-1708451234568"],"reason":"a password"}"#,
        ),
        (
            "DEAD_LETTER_REQUEUED",
            r#"{"dead_letter":"1-1","leaf_index":7,"round":1,"by":"me","why":null,"message_id":"requeue-1","stream":"LEDGER","stream_created_ns":"1","after_sequence":0,"replacement_sha256":null}"#,
        ),
        ("DEAD_LETTER_DISCARDED", r#"{"dead_letter":"1-1","leaf_index":7,"round":1,"by":"me","why":"a test"}"#),
        ("RECORDS_DELETED", r#"{"table":"audit_events","authorized_by":"SYS-ARCHITECT-1708451234568","rows":1}"#),
        (
            "RETENTION_EXPORTED",
            r#"{"table":"token_ledger","cutoff":"2026-01-01","rows":7,"first":"A/2025-12-01","last":"A/2025-12-07","location":"file:///archive/","file":"a.jsonl.gz","sha256":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        ),
    ];
    for (action, example) in examples {
        let good: Value = serde_json::from_str(example).expect("JSON");
        assert_eq!(check_details(&registry, action, &good), Ok(()), "{action}");
        for key in good.as_object().expect("an object").keys() {
            let mut without = good.clone();
            without.as_object_mut().expect("an object").remove(key);
            let rejection = check_details(&registry, action, &without).expect_err(key);
            assert!(rejection.detail().contains(key), "{rejection}");
            let mut other = good.clone();
            other[key] = serde_json::json!([{}]);
            assert!(check_details(&registry, action, &other).is_err(), "{action} with another {key}");
        }
    }
    assert_eq!(check_details(&registry, "TASK_RECEIVED", &serde_json::json!({"any": [1]})), Ok(()));
}

#[test]
fn a_vote_cannot_contradict_its_threshold() {
    let vote = |required: f64, met: bool| {
        serde_json::json!({"proposal_id": "P", "result": "APPROVED", "threshold_required": required,
        "threshold_met": met, "votes": {"RXY-CEO": "APPROVED", "SRN-CIO": "REJECTED", "BRM-CTO": "APPROVED"}})
    };
    for (required, met, good) in [(2.0, true, true), (3.0, false, true), (3.0, true, false), (2.0, false, false)] {
        assert_eq!(check_details(&registry(), "VOTE_RECORDED", &vote(required, met)).is_ok(), good, "{required} {met}");
    }
}
