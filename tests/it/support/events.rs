//! What is published: good records of every lane, and bad ones of every kind.

use super::records::{bad_records, record};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

/// Every lane: those of the audit events, then one for each of the other tables.
pub(crate) const LANES: [&str; 15] = [
    "EXEC", "VOTE", "PROP", "CLR", "SEC", "TOOL", "SYS", "ROUTE", "CORP", "N8N", "ERR", "TOKENS", "TRAIL", "METRIC",
    "USAGE",
];

/// The lanes of the audit events.
const AUDIT_LANES: &[&str] = LANES.split_at(11).0;
/// The lanes whose records are no audit events.
pub(crate) const OTHER_LANES: &[&str] = LANES.split_at(11).1;

/// The field that names a record of this lane.
pub(crate) fn id_field(lane: &str) -> &'static str {
    match lane {
        "TOKENS" => "usage_id",
        "TRAIL" => "trail_id",
        "METRIC" => "metric_key",
        "USAGE" => "id",
        _ => "event_id",
    }
}

/// The limit of the configuration's default.
const RECORD_BYTES_MAX: usize = 256 * 1024;

/// The Unix milliseconds of event number 0; they always have 13 digits.
const FIRST_MS: u64 = 1_708_451_200_000;

/// What must become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expectation {
    /// A row. Where the same record is published several times, all are good, and one of them is the row.
    Good,
    /// The second or a later copy of a record that was good.
    Duplicate,
    /// A dead letter with this reason.
    Bad(&'static str),
}

/// A message to publish, and what must become of it.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) expectation: Expectation,
}

/// An audit event whose fields a test may change.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    lane: String,
    /// The last token of the subject.
    publisher: String,
    fields: Map<String, Value>,
}

/// The good event number `n` of an actor on a lane: the same numbers give the same event.
pub(crate) fn event(lane: &str, actor: &str, n: u64) -> Event {
    let (lane_actor, action, outcome, details) = usual(lane);
    // What the lane's own actor says, or what anybody may say.
    let (action, outcome, details) =
        if actor == lane_actor { (action, outcome, details) } else { ("TASK_INTAKE", "SUCCESS", None) };
    let mut fields = Map::new();
    fields.insert("event_id".to_owned(), format!("{lane}-{actor}-{:013}", FIRST_MS + n).into());
    fields.insert("actor".to_owned(), actor.into());
    fields.insert("action".to_owned(), action.into());
    fields.insert("outcome".to_owned(), outcome.into());
    fields.insert("timestamp".to_owned(), timestamp(n).into());
    if let Some(details) = details {
        fields.insert("details".to_owned(), details);
    }
    if n.is_multiple_of(2) {
        fields.insert("task_id".to_owned(), format!("TASK-{n}").into());
    }
    Event { lane: lane.to_owned(), publisher: actor.to_owned(), fields }
}

/// A good record of the lane's usual actor that no other test of this process has.
pub(crate) fn next_event(lane: &str) -> Event {
    static NEXT: AtomicU64 = AtomicU64::new(500_000_000);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    if AUDIT_LANES.contains(&lane) { event(lane, usual(lane).0, n) } else { record(lane, n) }
}

impl Event {
    pub(super) fn new(lane: &str, publisher: &str, fields: Map<String, Value>) -> Self {
        Self { lane: lane.to_owned(), publisher: publisher.to_owned(), fields }
    }

    pub(crate) fn subject(&self) -> String {
        format!("ledger.{}.{}", self.lane, self.publisher)
    }

    pub(crate) fn event_id(&self) -> &str {
        self.text("event_id")
    }

    /// With this field instead.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// Without this field.
    pub(crate) fn without(mut self, field: &str) -> Self {
        self.fields.remove(field);
        self
    }

    /// Published by somebody else, on that one's subject.
    pub(crate) fn published_by(mut self, actor: &str) -> Self {
        actor.clone_into(&mut self.publisher);
        self
    }

    /// With the hash that the specification prescribes for its present fields.
    pub(crate) fn hashed(self) -> Self {
        let [id, actor, action, outcome, timestamp] =
            ["event_id", "actor", "action", "outcome", "timestamp"].map(|field| self.text(field));
        let hash = spec_hash(id, actor, action, outcome, timestamp);
        self.with("integrity_hash", hash)
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(&self.fields).expect("a map of JSON values")
    }

    /// To be published as a good one.
    pub(crate) fn good(&self) -> Outgoing {
        self.expecting(Expectation::Good)
    }

    /// To be published once more.
    pub(crate) fn again(&self) -> Outgoing {
        self.expecting(Expectation::Duplicate)
    }

    /// To be published as a bad one.
    pub(crate) fn bad(&self, reason: &'static str) -> Outgoing {
        self.expecting(Expectation::Bad(reason))
    }

    fn expecting(&self, expectation: Expectation) -> Outgoing {
        Outgoing { subject: self.subject(), payload: self.payload(), expectation }
    }

    fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().expect("a string")
    }
}

/// Good records, `count` of them, one lane after the other.
pub(crate) fn good_events(count: usize) -> Vec<Outgoing> {
    LANES.iter().cycle().take(count).map(|lane| next_event(lane).good()).collect()
}

/// One bad message of each kind that a single message can be. (A conflict takes two, and what only the database
/// refuses takes a database that refuses it.)
pub(crate) fn bad_events() -> Vec<Outgoing> {
    let good = || next_event("EXEC");
    let raw = |payload: Vec<u8>, reason| Outgoing { payload, ..good().bad(reason) };
    // The payload of a good event with one text replaced, for what no JSON library would write.
    let replaced = |from: &str, to: &[u8], reason| {
        let payload = good().with("details", json!({"place": "HERE"})).payload();
        let at = payload.windows(from.len()).position(|bytes| bytes == from.as_bytes()).expect("it stands there");
        raw([&payload[..at], to, &payload[at + from.len()..]].concat(), reason)
    };
    let mut bad = vec![
        replaced("HERE", b"\xff\xfe", "not_utf8"),
        replaced("}", b"", "malformed_json"),
        raw(b"what is this?".to_vec(), "malformed_json"),
        raw(Vec::new(), "malformed_json"),
        good().with("details", json!({"text": "x".repeat(RECORD_BYTES_MAX)})).bad("too_large"),
        replaced("{", b"{\"actor\":\"BRM-CTO\",", "duplicate_key"),
        replaced("HERE", b"a\\u0000b", "nul_character"),
        replaced("\"HERE\"", b"1e400", "number_out_of_range"),
        replaced("\"HERE\"", b"9007199254740993", "number_out_of_range"),
        good().without("outcome").bad("missing_field"),
        good().without("timestamp").bad("missing_field"),
        good().with("severity", "HIGH").bad("unknown_field"),
        good().with("task_id", 7).bad("wrong_type"),
        good().with("details", json!(["a", "list"])).bad("wrong_type"),
        raw(b"[]".to_vec(), "wrong_type"),
        good().with("task_id", "x".repeat(256)).bad("too_long"),
        good().with("event_id", "EXEC-BRM-CTO-soon").bad("bad_event_id"),
        good().with("event_id", format!("VOTE-BRM-CTO-{FIRST_MS}")).bad("prefix_mismatch"),
        good().published_by("RXY-CEO").bad("actor_mismatch"),
        event("EXEC", "NOBODY-01", 1).bad("unknown_actor"),
        good().with("action", "WORLD_DOMINATED").bad("unknown_action"),
        good().with("action", "COUNCIL_CONVENED").bad("action_not_allowed"),
        good().with("outcome", "REJECTED").bad("outcome_not_allowed"),
        good().with("timestamp", "yesterday at noon").bad("bad_timestamp"),
        good().with("integrity_hash", "0".repeat(64)).bad("hash_mismatch"),
        next_event("VOTE").with("details", json!({"proposal_id": "SRN-1"})).bad("details_mismatch"),
        next_event("VOTE").with("details", vote(["REJECTED"; 4])).bad("details_mismatch"),
    ];
    bad.extend(bad_records());
    bad
}

/// LDG-002, "Integrity Hash Computation".
pub(crate) fn spec_hash(event_id: &str, actor: &str, action: &str, outcome: &str, timestamp: &str) -> String {
    let digest = Sha256::digest(format!("{event_id}{actor}{action}{outcome}{timestamp}"));
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Several ways of writing a moment, all of them good: with and without a fraction, in UTC and elsewhere.
fn timestamp(n: u64) -> String {
    let (minute, second, fraction) = (n / 60 % 60, n % 60, n % 1_000_000);
    match n % 3 {
        0 => format!("2026-02-20T17:{minute:02}:{second:02}Z"),
        1 => format!("2026-02-20T17:{minute:02}:{second:02}.{fraction:06}Z"),
        _ => format!("2026-02-20T23:{minute:02}:{second:02}.{:03}+05:30", fraction % 1000),
    }
}

/// Who writes on a lane, and what.
fn usual(lane: &str) -> (&'static str, &'static str, &'static str, Option<Value>) {
    match lane {
        "AUD" => ("VRA-CFO", "AUDIT_FINISHED", "SUCCESS", None),
        "EXEC" => ("BRM-CTO", "EXECUTION_STARTED", "SUCCESS", None),
        "VOTE" => ("RXY-CEO", "VOTE_RECORDED", "APPROVED", Some(vote(["APPROVED", "APPROVED", "REJECTED", "ABSTAIN"]))),
        "PROP" => ("SRN-CIO", "PROPOSAL_SUBMITTED", "SUCCESS", Some(json!({"title": "Übergröße ≥ 3 € 🚀"}))),
        "CLR" => ("VRA-CFO", "CLEARANCE_ISSUED", "APPROVED", Some(clearance())),
        "SEC" => ("RXY-TDC-01", "INJECTION_SCAN", "WARNING", Some(scan())),
        "TOOL" => ("BRM-WFB-01", "TOOL_REQUEST_N8N_TRIGGER", "DENIED_NEEDS_ARCHITECT", Some(tool_request())),
        "SYS" => ("WRK-006", "SECRET_ROTATED", "SUCCESS", None),
        "ROUTE" => ("N8N_SANITIZER", "TASK_DISPATCHED", "SUCCESS", None),
        "CORP" => {
            ("AST-AUD-01", "CORPUS_AUDIT", "SUCCESS", Some(json!({"documents": 12, "ratio": 0.25, "notes": null})))
        }
        "N8N" => ("N8N_SANITIZER", "INJECTION_BLOCKED_AT_INTAKE", "BLOCKED", None),
        "ERR" => ("ARCHITECT", "TASK_INTAKE", "FAILURE", Some(json!({"error": "line\nbreak \"quoted\" \\ back"}))),
        _ => panic!("{lane} is no lane of audit events"),
    }
}

/// A vote that meets its threshold of two, as it says, unless the votes do not.
fn vote(votes: [&str; 4]) -> Value {
    let [roxy, sorin, brom, vera] = votes;
    json!({
        "proposal_id": "SRN-TEL-1",
        "votes": {"RXY-CEO": roxy, "SRN-CIO": sorin, "BRM-CTO": brom, "VRA-CFO": vera},
        "result": "APPROVED",
        "threshold_required": 2,
        "threshold_met": true,
    })
}

fn clearance() -> Value {
    json!({
        "model_tier_assigned": "STANDARD", "estimated_token_cost": 0.045, "current_daily_spend": 1.23,
        "budget_status": "GREEN", "roi_score": "HIGH", "clearance_decision": "APPROVED", "block_reason": null,
    })
}

fn scan() -> Value {
    json!({
        "severity": "HIGH", "matched_patterns": ["CRITICAL", "HIGH"], "input_source": "telegram",
        "input_length": 142, "blocked": false, "sanitized": true,
    })
}

fn tool_request() -> Value {
    json!({
        "tool_name": "n8n_trigger", "agent_tier": "TIER_2", "council_vote_ref": "VOTE-RXY-CEO-1708451234567",
        "architect_approval_ref": null,
    })
}
