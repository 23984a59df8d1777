//! Was the row that is not there removed by right? Each removal names an export or an erasure, and each of these an audit
//! event, which must itself stand in the ledger.

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
pub struct Event {
    /// The subject it came on.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A row of `ledger.export` or `ledger.erasure`, with the events that it names, where the ledger has them.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its number.
    pub id: i64,
    /// The table whose rows it removed.
    pub table: String,
    /// The event that records it.
    pub record: Option<Event>,
    /// The event that authorised it; an export needs none.
    pub authorisation: Option<Event>,
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
}

impl Authorities {
    /// Looks at all exports and erasures that there are.
    pub fn new(exports: Vec<Named>, erasures: Vec<Named>) -> Self {
        let by_id = |named: Vec<Named>, judge: fn(&Named) -> Entitlement| {
            named.iter().map(|named| (named.id, judge(named))).collect::<HashMap<_, _>>()
        };
        Self { exports: by_id(exports, export), erasures: by_id(erasures, erasure) }
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

    /// What is wrong with the exports and erasures themselves, by table and number.
    pub fn unfounded(&self) -> impl Iterator<Item = (&'static str, i64, &str)> {
        let exports = self.exports.iter().map(|(id, entitlement)| ("ledger.export", *id, entitlement));
        let erasures = self.erasures.iter().map(|(id, entitlement)| ("ledger.erasure", *id, entitlement));
        exports
            .chain(erasures)
            .filter_map(|(table, id, entitlement)| entitlement.as_ref().err().map(|why| (table, id, why.as_str())))
    }
}

fn export(named: &Named) -> Entitlement {
    said(named.record.as_ref(), "RETENTION_EXPORTED")?;
    Ok(Entitled { table: named.table.clone(), keys: None })
}

fn erasure(named: &Named) -> Entitlement {
    said(named.record.as_ref(), "RECORDS_DELETED")?;
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

fn said(event: Option<&Event>, action: &str) -> Result<Value, String> {
    let event = event.ok_or_else(|| format!("its {action} event does not stand in the ledger"))?;
    let said: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
    if said["action"] == action { Ok(said) } else { Err(format!("the event that it names is no {action}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(actor: &str, action: &str) -> Event {
        let details = json!({"table": "audit_events", "ids": ["e1"]});
        let event = json!({"actor": actor, "action": action, "outcome": "APPROVED", "details": details});
        Event { subject: format!("ledger.SYS.{actor}"), payload: event.to_string().into() }
    }

    fn erasure_by(actor: &str) -> Named {
        Named {
            id: 1,
            table: "audit_events".to_owned(),
            record: Some(event("ARCHITECT", "RECORDS_DELETED")),
            authorisation: Some(event(actor, "DELETION_AUTHORIZED")),
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
        assert!(why(Named { record: None, ..erasure_by("ARCHITECT") }, "e1").contains("does not stand"));
        assert!(why(Named { id: 2, ..erasure_by("ARCHITECT") }, "e1").contains("which there is not"));
        assert!(
            why(Named { table: "decision_trails".to_owned(), ..erasure_by("ARCHITECT") }, "e1").contains("nothing")
        );
        let nothing = Removal { export_id: None, erasure_id: None, leaf_index: None };
        assert!(Authorities::default().explain(&nothing, "audit_events", "e1").is_err());
    }
}
