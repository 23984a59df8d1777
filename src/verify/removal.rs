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
    /// The stream it came from.
    pub stream: String,
    /// Its sequence there.
    pub sequence: i64,
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
    /// How many removals name it.
    pub removals: i64,
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
    unfounded: Vec<(&'static str, i64, String)>,
}

impl Authorities {
    /// Looks at all exports and erasures that there are.
    pub fn new(exports: Vec<Named>, erasures: Vec<Named>) -> Self {
        let mut all = Self::default();
        for named in exports {
            let entitlement = export(&named);
            all.note("ledger.export", &named, &entitlement);
            all.exports.insert(named.id, entitlement);
        }
        for named in erasures {
            let entitlement = erasure(&named);
            all.note("ledger.erasure", &named, &entitlement);
            all.erasures.insert(named.id, entitlement);
        }
        all
    }

    /// One that removed nothing yet may still wait for its event.
    fn note(&mut self, table: &'static str, named: &Named, entitlement: &Entitlement) {
        if let Err(why) = entitlement
            && named.removals > 0
        {
            self.unfounded.push((table, named.id, why.clone()));
        }
    }

    /// The exports and erasures that removed rows without a right, by table and number.
    pub fn unfounded(&self) -> impl Iterator<Item = (&'static str, i64, &str)> {
        self.unfounded.iter().map(|(table, id, why)| (*table, *id, why.as_str()))
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

/// Only this program writes to the stream in which an export is recorded, under the export's own number.
const EXPORTS: &str = "ledgerd-retention";

fn export(named: &Named) -> Entitlement {
    let event = said(named.record.as_ref(), "RETENTION_EXPORTED")?;
    let is_its = named.record.as_ref().is_some_and(|event| event.stream == EXPORTS && event.sequence == named.id);
    if !is_its {
        return Err("the RETENTION_EXPORTED event that it names is not its own".to_owned());
    }
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

fn said(event: Option<&Event>, action: &str) -> Result<Value, String> {
    let event = event.ok_or_else(|| format!("its {action} event does not stand in the ledger"))?;
    let said: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
    if said["action"] == action { Ok(said) } else { Err(format!("the event that it names is no {action}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(actor: &str, action: &str, details: &Value) -> Event {
        let event = json!({"actor": actor, "action": action, "outcome": "APPROVED", "details": details});
        Event {
            stream: EXPORTS.to_owned(),
            sequence: 1,
            subject: format!("ledger.SYS.{actor}"),
            payload: event.to_string().into(),
        }
    }

    fn erasure_by(actor: &str) -> Named {
        let details = json!({"table": "audit_events", "ids": ["e1"]});
        Named {
            id: 1,
            table: "audit_events".to_owned(),
            removals: 1,
            record: None,
            authorisation: Some(event(actor, "DELETION_AUTHORIZED", &details)),
        }
    }

    fn export_of(rows: i64) -> Named {
        let details = json!({"table": "economic_metrics", "rows": rows});
        let record = Some(event("ARCHITECT", "RETENTION_EXPORTED", &details));
        Named { id: 1, table: "economic_metrics".to_owned(), removals: 2, record, authorisation: None }
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
        let elsewhere = |stream: &str, sequence| {
            let record = export_of(2).record.map(|event| Event { stream: stream.to_owned(), sequence, ..event });
            why(Named { record, ..export_of(2) })
        };
        assert!(elsewhere("LEDGER", 1).contains("not its own") && elsewhere(EXPORTS, 2).contains("not its own"));
    }
}
