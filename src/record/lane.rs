//! The lanes: the event prefixes of LDG-002, those that registry files add to them, and one for each of the other
//! tables.

use crate::record::table::Table;
use parking_lot::RwLock;
use std::fmt;
use std::str::FromStr;
use strum::IntoStaticStr;

/// Each lane has a durable consumer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum Lane {
    /// Execution events (Brom).
    Exec,
    /// Council vote events (Roxy).
    Vote,
    /// Proposal events (Sorin).
    Prop,
    /// Economic clearance events (Vera).
    Clr,
    /// Security events (any agent).
    Sec,
    /// Tool authorization events.
    Tool,
    /// System events (n8n, watchdog).
    Sys,
    /// Routing events.
    Route,
    /// Corpus events (Astra).
    Corp,
    /// n8n workflow events.
    N8n,
    /// Error events.
    Err,
    /// Token usage.
    Tokens,
    /// Council votes and their outcomes.
    Trail,
    /// Limits, rates, revenue and cost.
    Metric,
    /// Uses of tools.
    Usage,
    /// Audit events under a prefix that a registry file adds.
    Added(AddedPrefix),
}

/// A prefix beyond those of LDG-002, whose amendment process may bring some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddedPrefix(&'static str);

/// The prefixes that were added. The whole process knows them, as it knows the built-in ones: subjects, settings and
/// rows of the database are read in many places. They are never forgotten, and so are few.
static ADDED: RwLock<Vec<AddedPrefix>> = RwLock::new(Vec::new());

const ADDED_MAX: usize = 32;
const PREFIX_CHARS_MAX: usize = 16;

impl Lane {
    /// The lanes of the specification, in its order.
    pub const BUILT_IN: [Lane; 15] = [
        Lane::Exec,
        Lane::Vote,
        Lane::Prop,
        Lane::Clr,
        Lane::Sec,
        Lane::Tool,
        Lane::Sys,
        Lane::Route,
        Lane::Corp,
        Lane::N8n,
        Lane::Err,
        Lane::Tokens,
        Lane::Trail,
        Lane::Metric,
        Lane::Usage,
    ];

    /// The lanes of the specification, and then those that registry files have added.
    pub fn all() -> Vec<Lane> {
        Lane::BUILT_IN.into_iter().chain(Lane::added()).collect()
    }

    /// The lanes that registry files have added, in the order of their names.
    pub fn added() -> Vec<Lane> {
        ADDED.read().iter().copied().map(Lane::Added).collect()
    }

    /// Adds the lane of a prefix, for the whole process. One that is known stays as it is.
    ///
    /// # Errors
    /// A sentence that says why the text is no prefix.
    pub fn add(prefix: &str) -> Result<Lane, String> {
        let is_upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        let starts_well = prefix.starts_with(|first: char| first.is_ascii_uppercase());
        if !starts_well || prefix.len() > PREFIX_CHARS_MAX || !prefix.bytes().all(is_upper) {
            return Err(format!("a prefix has 1 to {PREFIX_CHARS_MAX} of A-Z 0-9, the first of them a letter"));
        }
        if Lane::BUILT_IN.iter().any(|lane| lane.prefix() == prefix) {
            return Err("the prefix is one of the specification's own".to_owned());
        }
        let mut added = ADDED.write();
        if let Some(known) = added.iter().find(|known| known.0 == prefix) {
            return Ok(Lane::Added(*known));
        }
        if added.len() >= ADDED_MAX {
            return Err(format!("at most {ADDED_MAX} prefixes can be added"));
        }
        let prefix = AddedPrefix(Box::leak(prefix.to_owned().into_boxed_str()));
        added.push(prefix);
        added.sort_unstable();
        Ok(Lane::Added(prefix))
    }

    /// The prefix: the lane's name in event ids, subjects and consumers.
    pub const fn prefix(self) -> &'static str {
        match self {
            Lane::Added(prefix) => prefix.0,
            _ => self.into_str(),
        }
    }

    /// The table that its records fill.
    pub const fn table(self) -> Table {
        match self {
            Lane::Tokens => Table::TokenLedger,
            Lane::Trail => Table::DecisionTrails,
            Lane::Metric => Table::EconomicMetrics,
            Lane::Usage => Table::ToolUsageLedger,
            _ => Table::AuditEvents,
        }
    }

    /// The lane whose records those of this one refer to: a usage is priced at rates that were published before it.
    pub const fn refers_to(self) -> Option<Lane> {
        match self {
            Lane::Tokens => Some(Lane::Metric),
            _ => None,
        }
    }

    /// The subject filter of the lane's consumer.
    pub fn filter(self) -> String {
        format!("ledger.{}.*", self.prefix())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

/// The text is none of the lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLane(String);

impl fmt::Display for UnknownLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = Lane::all().into_iter().map(Lane::prefix).collect();
        write!(f, "\"{}\" is not a lane; the lanes are {}", self.0, known.join(" "))
    }
}

impl std::error::Error for UnknownLane {}

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(text: &str) -> Result<Self, UnknownLane> {
        let built_in = || Lane::BUILT_IN.into_iter().find(|lane| lane.prefix() == text);
        let added = || ADDED.read().iter().find(|prefix| prefix.0 == text).copied().map(Lane::Added);
        built_in().or_else(added).ok_or_else(|| UnknownLane(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_added_once_and_fills_audit_events() {
        let lane = Lane::add("ADDEDHERE").expect("a prefix");
        assert_eq!(Lane::add("ADDEDHERE"), Ok(lane));
        assert_eq!("ADDEDHERE".parse(), Ok(lane));
        assert_eq!((lane.table(), lane.filter()), (Table::AuditEvents, "ledger.ADDEDHERE.*".to_owned()));
        assert_eq!(Lane::added().iter().filter(|known| **known == lane).count(), 1);
        for wrong in ["", "a", "A-B", "A.B", ">", "*", "1A", "EXEC", "USAGE", "SEVENTEENLETTERSX"] {
            assert!(Lane::add(wrong).is_err(), "{wrong}");
        }
    }
}
