//! Repaired rows. Each repair is recorded as one of the program's own audit events, with the old row and the new one.

use crate::record::digest::{hex, sha256};
use crate::record::message::{Headers, Incarnation, Message, utc_text};
use crate::record::own_streams::{REPAIRS, SUBJECT};
use serde_json::{Value, json};
use std::sync::Arc;

/// A row that was made anew.
#[derive(Clone, Debug)]
pub struct Repaired {
    pub table: &'static str,
    pub key: String,
    /// The leaf that it follows from; a day follows from many.
    pub leaf_index: Option<i64>,
    /// What stood in its place, as JSON text; nothing where nothing did.
    pub old: Option<String>,
    /// What stands there now; nothing where nothing must.
    pub new: Option<String>,
}

/// The stream of these events.
pub fn incarnation() -> Incarnation {
    // It never existed on a server, so it was made at the beginning of time.
    Incarnation { stream: Arc::from(REPAIRS), created_ns: 0 }
}

/// A longer row is named by its hash: an event must fit into a record.
const TEXT_BYTES_MAX: usize = 64 * 1024;

impl Repaired {
    /// Whether something else stands there now.
    pub fn is_change(&self) -> bool {
        self.old != self.new
    }

    /// The event, with this sequence among its kind, and the moment in its id.
    pub fn message(&self, sequence: i64, unix_ms: i64) -> Message {
        let Self { table, key, leaf_index, old, new } = self;
        let event = json!({
            "event_id": event_id(unix_ms),
            "actor": "ARCHITECT",
            "action": "PROJECTION_REPAIRED",
            "outcome": "SUCCESS",
            "timestamp": utc_text(unix_ms * 1_000_000),
            "details": { "table": table, "row": key, "leaf_index": leaf_index, "old": fitting(old.as_deref()), "new": fitting(new.as_deref()) },
        });
        Message {
            incarnation: incarnation(),
            sequence,
            subject: SUBJECT.to_owned(),
            server_time_ns: unix_ms * 1_000_000,
            headers: Headers::NONE,
            payload: event.to_string().into(),
        }
    }

    pub fn line(&self) -> String {
        let done = match (&self.old, &self.new) {
            (None, _) => "was missing, and was made anew",
            (_, None) => "was removed: no usage made it",
            _ => "was made anew",
        };
        format!("{} id {}: {done}", self.table, self.key)
    }

    pub fn to_json(&self) -> Value {
        json!({ "table": self.table, "id": self.key, "leaf_index": self.leaf_index, "old": self.old, "new": self.new })
    }
}

/// The id of the event of this moment.
pub fn event_id(unix_ms: i64) -> String {
    format!("SYS-ARCHITECT-{unix_ms:013}")
}

fn fitting(text: Option<&str>) -> Option<String> {
    match text {
        Some(text) if text.len() > TEXT_BYTES_MAX => {
            Some(format!("{} bytes with the SHA-256 {}", text.len(), hex(&sha256(text.as_bytes()))))
        }
        text => text.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::agents::Agents;
    use crate::record::registry::Registry;
    use crate::record::rules::{RuleSettings, Rules};
    use crate::record::verdict::Verdict;

    #[test]
    fn its_event_is_a_good_record_however_long_the_row_was() {
        let rules = Rules {
            agents: Agents::parse(include_str!("../../registry/agent_schema.yaml"), &["ARCHITECT".to_owned()])
                .expect("shipped"),
            registry: Registry::parse(&[include_str!("../../registry/actions.yaml")]).expect("shipped"),
            settings: RuleSettings::default(),
        };
        for text in [None, Some("{\"n\":1e999}".to_owned()), Some("x".repeat(1 << 20))] {
            let repaired = Repaired {
                table: "audit_events",
                key: "7".to_owned(),
                leaf_index: Some(3),
                old: text.clone(),
                new: text,
            };
            let verdict = rules.judge(&repaired.message(1, 1_771_609_634_568));
            assert!(matches!(verdict, Verdict::Record(_)), "{verdict:?}");
        }
    }
}
