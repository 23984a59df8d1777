//! Checks that each decision about a dead letter matches its event: compares the table with the program's own events in
//! custody.

use crate::record::timestamp::EventTime;
use crate::verify::findings::{Finding, Findings};
use serde_json::Value;

const TABLE: &str = "ledger.resolution";

/// A decision, and what custody has of it.
#[derive(Clone, Debug)]
pub struct Resolution {
    pub id: i64,
    /// Its columns, as JSON, with `replacement_sha256` for the bytes; nothing where there is no row.
    pub row: Option<Value>,
    /// The event that records it; nothing where there is none (yet).
    pub event: Option<DecisionEvent>,
    /// Custody has its message, and not where the row says.
    pub is_elsewhere: bool,
}

/// The event of a decision.
#[derive(Clone, Debug)]
pub struct DecisionEvent {
    /// Its bytes; nothing where they were erased by authority.
    pub payload: Option<Vec<u8>>,
}

/// The columns that stand in the event under their own names.
const SAID: [&str; 6] = ["leaf_index", "round", "why", "message_id", "stream", "after_sequence"];

/// Compares them, and gives the decisions that no event records yet: those of a command that was killed.
pub fn compare(resolutions: &[Resolution], findings: &mut Findings) -> Vec<i64> {
    let mut unrecorded = Vec::new();
    for Resolution { id, row, event, is_elsewhere } in resolutions {
        let mut differ = |field: &str, says: String| findings.add(Finding::new(TABLE, id, field, says));
        match (row, event) {
            (None, _) => differ("id", "is missing, and custody has its event".to_owned()),
            (Some(row), None) if row["settled_at"].is_null() => unrecorded.push(*id),
            (Some(_), None) => differ("id", "was carried out, and custody has no event of it".to_owned()),
            (Some(row), Some(event)) => {
                let said = event.payload.as_deref().map(|payload| serde_json::from_slice(payload).unwrap_or_default());
                for (field, says) in said.iter().flat_map(|said| differing(row, said)) {
                    differ(field, says);
                }
            }
        }
        if *is_elsewhere {
            differ("new_created_ns, new_sequence", "is not where custody has the message".to_owned());
        }
    }
    unrecorded
}

fn differing(row: &Value, said: &Value) -> Vec<(&'static str, String)> {
    let details = &said["details"];
    let mut pairs: Vec<(&str, Value, Value)> =
        SAID.iter().map(|&column| (column, row[column].clone(), details[column].clone())).collect();
    // A double does not hold it, so the event has it as text.
    let created_ns = row["stream_created_ns"].as_i64().map(|ns| ns.to_string());
    let action = row["action"].as_str().map(|action| format!("DEAD_LETTER_{action}"));
    let time = |value: &Value| EventTime::parse(value.as_str()?.to_owned()).ok().map(|time| time.utc());
    pairs.extend([
        ("stream_created_ns", created_ns.into(), details["stream_created_ns"].clone()),
        ("replacement", row["replacement_sha256"].clone(), details["replacement_sha256"].clone()),
        ("decided_by", row["decided_by"].clone(), details["by"].clone()),
        ("event_id", row["event_id"].clone(), said["event_id"].clone()),
        ("action", action.into(), said["action"].clone()),
        ("decided_at", time(&row["decided_at"]).into(), time(&said["timestamp"]).into()),
    ]);
    pairs
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(column, found, expected)| (column, format!("is {found}, its event says {expected}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row() -> Value {
        json!({
            "leaf_index": 7, "round": 1, "action": "REQUEUED", "decided_by": "me", "why": null, "replacement_sha256": null,
            "stream": "LEDGER", "stream_created_ns": 1_771_609_634_568_000_001_i64, "after_sequence": 9, "message_id": "requeue-1",
            "event_id": "E", "decided_at": "2026-02-20T17:47:14.5+00:00", "settled_at": "2026-02-20T17:47:15+00:00",
        })
    }

    fn event() -> DecisionEvent {
        let event = json!({
            "event_id": "E", "action": "DEAD_LETTER_REQUEUED", "timestamp": "2026-02-20T17:47:14.5Z",
            "details": {
                "leaf_index": 7, "round": 1, "by": "me", "why": null, "replacement_sha256": null, "stream": "LEDGER",
                "stream_created_ns": "1771609634568000001", "after_sequence": 9, "message_id": "requeue-1",
            },
        });
        DecisionEvent { payload: Some(event.to_string().into()) }
    }

    fn found(row: Option<Value>, event: Option<DecisionEvent>, is_elsewhere: bool) -> (Vec<i64>, Vec<String>) {
        let mut findings = Findings::default();
        let unrecorded = compare(&[Resolution { id: 3, row, event, is_elsewhere }], &mut findings);
        (unrecorded, findings.listed().iter().map(|finding| finding.field.clone()).collect())
    }

    #[test]
    fn a_decision_is_what_its_event_says_in_every_column() {
        assert_eq!(found(Some(row()), Some(event()), false), (vec![], vec![]));
        assert_eq!(found(Some(row()), Some(DecisionEvent { payload: None }), false), (vec![], vec![]));
        for (column, named) in [
            ("leaf_index", "leaf_index"),
            ("round", "round"),
            ("action", "action"),
            ("decided_by", "decided_by"),
            ("why", "why"),
            ("replacement_sha256", "replacement"),
            ("stream", "stream"),
            ("stream_created_ns", "stream_created_ns"),
            ("after_sequence", "after_sequence"),
            ("message_id", "message_id"),
            ("event_id", "event_id"),
            ("decided_at", "decided_at"),
        ] {
            let mut row = row();
            row[column] = json!("another");
            assert_eq!(found(Some(row), Some(event()), false).1, [named]);
        }
        assert_eq!(found(Some(row()), Some(event()), true).1, ["new_created_ns, new_sequence"]);
    }

    #[test]
    fn a_decision_without_its_event_may_wait_for_it_until_it_is_carried_out() {
        assert_eq!(found(None, Some(event()), false).1, ["id"]);
        assert_eq!(found(Some(row()), None, false), (vec![], vec!["id".to_owned()]));
        let mut waiting = row();
        waiting["settled_at"] = Value::Null;
        assert_eq!(found(Some(waiting), None, false), (vec![3], vec![]));
    }
}
