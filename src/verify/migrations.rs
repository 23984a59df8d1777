//! Checks that each migration is the recorded one: compares the table of migrations with the program's own events in
//! custody.

use crate::record::message::utc_text;
use crate::verify::findings::{Finding, Findings, shown};
use serde_json::Value;
use std::collections::BTreeMap;

/// A migration as the database has it.
#[derive(Clone, Debug)]
pub struct Migration {
    pub version: i64,
    pub description: String,
    /// SHA-384 of its file, in hexadecimal.
    pub checksum: String,
    /// In microseconds since 1970.
    pub installed_on_us: Option<i64>,
}

const TABLE: &str = "ledger.migration";

/// Compares them, and gives the versions that no event records yet.
pub fn compare(migrations: &[Migration], events: &[(i64, Vec<u8>)], findings: &mut Findings) -> Vec<i64> {
    let mut rows: BTreeMap<i64, &Migration> = migrations.iter().map(|row| (row.version, row)).collect();
    for (version, payload) in events {
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        if event["action"] != "SCHEMA_MIGRATION" {
            continue;
        }
        let Some(row) = rows.remove(version) else {
            findings.add(Finding::new(TABLE, version, "version", "is missing, and custody has its event"));
            continue;
        };
        let installed_on = row.installed_on_us.and_then(|us| us.checked_mul(1000)).map(utc_text);
        for (field, found, expected) in [
            ("description", Some(row.description.as_str()), &event["details"]["description"]),
            ("checksum", Some(row.checksum.as_str()), &event["details"]["sha384"]),
            ("installed_on", installed_on.as_deref(), &event["timestamp"]),
        ] {
            if found != expected.as_str() {
                let says = format!("is {}, custody says {}", shown(found), shown(expected.as_str()));
                findings.add(Finding::new(TABLE, version, field, says));
            }
        }
    }
    rows.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_what_its_event_says() {
        let row = Migration {
            version: 1,
            description: "custody".to_owned(),
            checksum: "ab".to_owned(),
            installed_on_us: Some(1_771_609_634_000_000),
        };
        let event = |description: &str| {
            let text = format!(
                r#"{{"action":"SCHEMA_MIGRATION","timestamp":"2026-02-20T17:47:14Z","details":{{"description":"{description}","sha384":"ab"}}}}"#
            );
            (1, text.into_bytes())
        };
        let found = |rows: &[Migration], events: &[(i64, Vec<u8>)]| {
            let mut findings = Findings::default();
            let unrecorded = compare(rows, events, &mut findings);
            (unrecorded, findings.listed().iter().map(|finding| finding.field.clone()).collect::<Vec<_>>())
        };
        assert_eq!(found(std::slice::from_ref(&row), &[event("custody")]), (vec![], vec![]));
        assert_eq!(found(std::slice::from_ref(&row), &[event("other")]), (vec![], vec!["description".to_owned()]));
        assert_eq!(found(&[], &[event("custody")]), (vec![], vec!["version".to_owned()]));
        assert_eq!(found(&[row], &[]), (vec![1], vec![]));
    }
}
