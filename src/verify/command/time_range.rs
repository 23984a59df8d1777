//! Checks the specification's hash for every event of a time range.

use crate::command::{Exit, Failure, moment, output, runs};
use crate::postgres::connections::Connections;
use crate::postgres::runs::{Run, Scope};
use crate::record::event::integrity_hash;
use crate::verify::snapshot as audit;
use serde_json::{Value, json};
use std::time::Instant;

/// How many differing rows are listed; all are counted.
const LISTED_MAX: usize = 1000;

pub(crate) async fn verify(
    connections: &Connections,
    from: Option<&str>,
    to: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let (from, to) =
        (from.map(|text| moment::utc("from", text)).transpose()?, to.map(|text| moment::utc("to", text)).transpose()?);
    let began = Instant::now();
    let (mut checked, mut differing) = (0_u64, 0_u64);
    let mut listed = Vec::new();
    audit::hashed_events(connections, from.as_deref(), to.as_deref(), |events| {
        for event in events {
            checked += 1;
            let computed =
                integrity_hash(&event.event_id, &event.actor, &event.action, &event.outcome, &event.timestamp_text);
            if computed != event.integrity_hash {
                differing += 1;
                if listed.len() < LISTED_MAX {
                    listed.push((event, computed));
                }
            }
        }
    })
    .await?;
    let first = listed.iter().map(|(event, _)| &event.event_id);
    let summary = json!({ "from": from, "to": to, "first": runs::first_lines(first) });
    let (scope, took) = (Scope::Range, began.elapsed());
    let run = Run { what: "verify", scope, took, entries: checked, findings: differing, summary };
    runs::record(connections, &run).await;
    if as_json {
        let rows = listed.iter().map(|(event, computed)| {
            json!({ "id": event.id, "event_id": event.event_id, "integrity_hash": event.integrity_hash, "computed_hash": computed })
        });
        let rows: Vec<Value> = rows.collect();
        output::json(&json!({ "verified": differing == 0, "checked": checked, "differing": differing, "rows": rows }));
    } else {
        for (event, computed) in &listed {
            output::line(format_args!(
                "audit_events id {}: integrity_hash is \"{}\", the formula yields {computed}",
                event.id, event.integrity_hash
            ));
        }
        output::line(format_args!("{checked} events checked, {differing} differ"));
    }
    match differing {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Difference, format!("{differing} of {checked} events differ"))),
    }
}
