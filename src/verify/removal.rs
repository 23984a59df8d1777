//! Checks that each missing row was removed with authorisation. Each removal must name an export or an erasure, and
//! each of these an audit event, which must itself be in the ledger.

use crate::record::timestamp::EventTime;
use crate::verify::findings::Finding;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A row of `ledger.removal`.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The export, where the row was archived.
    pub export_id: Option<i64>,
    /// The erasure, where the Architect had it deleted.
    pub erasure_id: Option<i64>,
    /// The leaf of an erased record.
    pub leaf_index: Option<i64>,
}

/// An audit event as custody has it: recorded, with its bytes.
#[derive(Clone, Debug)]
pub struct RemovalEvent {
    /// The subject it came on.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A row of `ledger.export` or `ledger.erasure`, with the events that it names, where the ledger has them.
#[derive(Clone, Debug)]
pub struct Named {
    pub id: i64,
    /// The table whose rows it removed.
    pub table: String,
    /// How many removals name it.
    pub removals: i64,
    pub row: Value,
    /// The event that records it: the one of its number in the stream of its kind, where nobody but this program writes.
    pub record: Option<RemovalEvent>,
    /// The event that authorised it; an export needs none.
    pub authorisation: Option<RemovalEvent>,
}

/// A column of an export, and what its event calls it.
const EXPORTED: [(&str, &str); 13] = [
    ("cutoff", "cutoff"),
    ("row_count", "rows"),
    ("first_key", "first"),
    ("last_key", "last"),
    ("oldest", "oldest"),
    ("newest", "newest"),
    ("location", "location"),
    ("file", "file"),
    ("file_bytes", "bytes"),
    ("file_sha256", "sha256"),
    ("lines_sha256", "uncompressed_sha256"),
    ("manifest", "manifest"),
    ("manifest_sha256", "manifest_sha256"),
];
/// The same of an erasure.
const ERASED: [(&str, &str); 2] = [("row_count", "rows"), ("authorized_by", "authorized_by")];

impl Named {
    /// The columns in which it is not what its event says.
    fn differing(&self, columns: &[(&'static str, &str)], moment: &'static str) -> Vec<(&'static str, String)> {
        let Some(event) = &self.record else { return Vec::new() };
        let said: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
        let mut differing = Vec::new();
        if self.row["event_id"] != said["event_id"] {
            let says = format!("is {}, and its event is {}", self.row["event_id"], said["event_id"]);
            differing.push(("event_id", says));
        }
        for (column, name) in columns {
            let (found, expected) = (&self.row[*column], &said["details"][*name]);
            // PostgreSQL prints bytes with a prefix.
            let plain =
                found.as_str().and_then(|text| text.strip_prefix("\\x")).map_or_else(|| found.clone(), Value::from);
            if plain != *expected && found != expected {
                differing.push((*column, format!("is {found}, its event says {expected}")));
            }
        }
        let time = |value: &Value| EventTime::parse(value.as_str()?.to_owned()).ok().map(|time| time.utc());
        if time(&self.row[moment]) != time(&said["timestamp"]) {
            differing.push((moment, format!("is {}, its event says {}", self.row[moment], said["timestamp"])));
        }
        let settled = &self.row["rows_removed"];
        if settled.as_i64().is_some_and(|removed| removed != self.removals) {
            differing.push(("rows_removed", format!("is {settled}, and {} removals name it", self.removals)));
        }
        differing
    }
}

/// What an export or an erasure entitles to, or why it does not.
type Entitlement = Result<Entitled, String>;

#[derive(Clone, Debug)]
struct Entitled {
    table: String,
    /// The rows that it names; an export's are those of its archive.
    keys: Option<HashSet<String>>,
}

/// Everything that entitles to a removal.
#[derive(Clone, Debug, Default)]
pub struct Authorities {
    exports: HashMap<i64, Entitlement>,
    erasures: HashMap<i64, Entitlement>,
    findings: Vec<Finding>,
}

impl Authorities {
    /// Looks at all exports and erasures that there are.
    pub fn new(exports: Vec<Named>, erasures: Vec<Named>) -> Self {
        let mut all = Self::default();
        for named in exports {
            let entitlement = export(&named);
            all.note("ledger.export", &named, &entitlement, named.differing(&EXPORTED, "exported_at"));
            all.exports.insert(named.id, entitlement);
        }
        for named in erasures {
            let entitlement = erasure(&named);
            all.note("ledger.erasure", &named, &entitlement, named.differing(&ERASED, "erased_at"));
            all.erasures.insert(named.id, entitlement);
        }
        all
    }

    /// One that removed nothing yet may still wait for its event.
    fn note(&mut self, table: &str, named: &Named, entitlement: &Entitlement, differing: Vec<(&str, String)>) {
        if let Err(why) = entitlement
            && named.removals > 0
        {
            self.findings.push(Finding::new(table, named.id, "event_id", format!("entitles to no removal: {why}")));
        }
        let differing = differing.into_iter().map(|(column, says)| Finding::new(table, named.id, column, says));
        self.findings.extend(differing);
    }

    /// What is wrong with the exports and erasures themselves.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether a removal explains that this row of this table is not there.
    ///
    /// # Errors
    /// A sentence that says why it does not.
    pub fn explain(&self, removal: &Removal, table: &str, key: &str) -> Result<(), String> {
        let (what, id, entitlement) = match (removal.export_id, removal.erasure_id) {
            (Some(id), None) => ("export", id, self.exports.get(&id)),
            (None, Some(id)) => ("erasure", id, self.erasures.get(&id)),
            _ => return Err("its removal names neither an export nor an erasure".to_owned()),
        };
        match entitlement {
            None => Err(format!("its removal names {what} {id}, which there is not")),
            Some(Err(why)) => Err(format!("its removal names {what} {id}, and {why}")),
            Some(Ok(entitled)) if entitled.table != table => Err(format!("{what} {id} is of {}", entitled.table)),
            Some(Ok(entitled)) if entitled.keys.as_ref().is_some_and(|keys| !keys.contains(key)) => {
                Err(format!("the authorisation of {what} {id} does not name it"))
            }
            Some(Ok(_)) => Ok(()),
        }
    }
}

fn export(named: &Named) -> Entitlement {
    let event = said(named.record.as_ref(), "RETENTION_EXPORTED")?;
    let details = &event["details"];
    if details["table"] != named.table.as_str() {
        return Err(format!("its event speaks of {} and not of {}", details["table"], named.table));
    }
    if details["rows"].as_i64().is_none_or(|rows| named.removals > rows) {
        return Err(format!("{} removals name it, and it exported {} rows", named.removals, details["rows"]));
    }
    Ok(Entitled { table: named.table.clone(), keys: None })
}

/// The authorisation is what entitles; the event that says what was done may follow.
fn erasure(named: &Named) -> Entitlement {
    let authorisation = said(named.authorisation.as_ref(), "DELETION_AUTHORIZED")?;
    let subject = named.authorisation.as_ref().map_or("", |event| event.subject.as_str());
    if !subject.ends_with(".ARCHITECT") || authorisation["actor"] != "ARCHITECT" {
        return Err(format!("its DELETION_AUTHORIZED came on {subject}, and not from the Architect"));
    }
    let details = &authorisation["details"];
    if authorisation["outcome"] != "APPROVED" || details["table"] != named.table.as_str() {
        return Err(format!("its DELETION_AUTHORIZED approves nothing in {}", named.table));
    }
    let keys = details["ids"].as_array().map(|ids| ids.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    Ok(Entitled { table: named.table.clone(), keys: Some(keys.unwrap_or_default()) })
}

fn said(event: Option<&RemovalEvent>, action: &str) -> Result<Value, String> {
    let event = event.ok_or_else(|| format!("its {action} event does not stand in the ledger"))?;
    let said: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
    if said["action"] == action { Ok(said) } else { Err(format!("the event that it names is no {action}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(actor: &str, action: &str, details: &Value) -> RemovalEvent {
        let event = json!({"actor": actor, "action": action, "outcome": "APPROVED", "details": details});
        RemovalEvent { subject: format!("ledger.SYS.{actor}"), payload: event.to_string().into() }
    }

    fn erasure_by(actor: &str) -> Named {
        let details = json!({"table": "audit_events", "ids": ["e1"]});
        Named {
            id: 1,
            table: "audit_events".to_owned(),
            removals: 1,
            row: Value::Null,
            record: None,
            authorisation: Some(event(actor, "DELETION_AUTHORIZED", &details)),
        }
    }

    fn export_of(rows: i64) -> Named {
        let details = json!({"table": "economic_metrics", "rows": rows});
        let record = Some(event("ARCHITECT", "RETENTION_EXPORTED", &details));
        Named {
            id: 1,
            table: "economic_metrics".to_owned(),
            removals: 2,
            row: Value::Null,
            record,
            authorisation: None,
        }
    }

    #[test]
    fn a_removal_is_explained_by_an_event_that_stands_in_the_ledger_and_by_nothing_else() {
        let removal = Removal { export_id: None, erasure_id: Some(1), leaf_index: Some(3) };
        let why = |named: Named, key: &str| {
            Authorities::new(Vec::new(), vec![named]).explain(&removal, "audit_events", key).err().unwrap_or_default()
        };
        assert_eq!(why(erasure_by("ARCHITECT"), "e1"), "");
        assert!(why(erasure_by("ARCHITECT"), "e2").contains("does not name it"));
        assert!(why(erasure_by("RXY-CEO"), "e1").contains("not from the Architect"));
        assert!(why(Named { authorisation: None, ..erasure_by("ARCHITECT") }, "e1").contains("does not stand"));
        assert!(why(Named { id: 2, ..erasure_by("ARCHITECT") }, "e1").contains("which there is not"));
        assert!(
            why(Named { table: "decision_trails".to_owned(), ..erasure_by("ARCHITECT") }, "e1").contains("nothing")
        );
        let nothing = Removal { export_id: None, erasure_id: None, leaf_index: None };
        assert!(Authorities::default().explain(&nothing, "audit_events", "e1").is_err());
    }

    #[test]
    fn an_export_entitles_to_as_many_removals_as_its_own_event_says() {
        let removal = Removal { export_id: Some(1), erasure_id: None, leaf_index: None };
        let why = |named: Named| {
            Authorities::new(vec![named], Vec::new())
                .explain(&removal, "economic_metrics", "7")
                .err()
                .unwrap_or_default()
        };
        assert_eq!(why(export_of(2)), "");
        assert!(why(export_of(1)).contains("2 removals name it"));
        assert!(why(Named { record: None, ..export_of(2) }).contains("does not stand"));
        assert!(why(Named { table: "token_ledger".to_owned(), ..export_of(2) }).contains("speaks of"));
        let details = json!({"table": "economic_metrics", "rows": 2, "cutoff": "2026-01-01", "sha256": "ab"});
        let mut record = event("ARCHITECT", "RETENTION_EXPORTED", &details);
        record.payload = String::from_utf8(record.payload)
            .expect("JSON")
            .replacen('{', r#"{"event_id":"E","timestamp":"2026-02-20T17:47:14Z","#, 1)
            .into();
        let row = json!({
            "event_id": "E", "exported_at": "2026-02-20T17:47:14+00:00", "cutoff": "2026-01-01", "row_count": 2, "file_sha256": "\\xab",
            "rows_removed": 2
        });
        let differing = |field: &str, value: Value| {
            let mut row = row.clone();
            row[field] = value;
            let named = Named { row, record: Some(record.clone()), ..export_of(2) };
            named.differing(&EXPORTED, "exported_at").into_iter().map(|(column, _)| column).collect::<Vec<_>>()
        };
        assert_eq!(differing("event_id", "E".into()), Vec::<&str>::new());
        for (field, value) in [
            ("event_id", json!("F")),
            ("cutoff", json!("2026-01-02")),
            ("row_count", json!(3)),
            ("file_sha256", json!("\\xac")),
            ("exported_at", json!("2026-02-20T17:47:15+00:00")),
            ("rows_removed", json!(1)),
        ] {
            assert_eq!(differing(field, value), [field]);
        }
    }
}
