//! The differences that a verification finds: each names its table, its row and its field. All are counted, and the
//! first ones are kept.

use crate::record::table::Table;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The table, as the database names it; its schema where it is not `public`.
    pub table: String,
    pub id: String,
    /// The column, or several of which one must be it.
    pub field: String,
    /// What is there, and what must be.
    pub says: String,
}

impl Finding {
    /// A difference in a field of a row.
    pub fn new(table: &str, id: impl fmt::Display, field: &str, says: impl Into<String>) -> Self {
        Self { table: table.to_owned(), id: id.to_string(), field: field.to_owned(), says: says.into() }
    }

    /// Whether the tree or custody is at fault, and not what can be made anew from it or stands beside it.
    pub fn is_of_custody(&self) -> bool {
        !is_beside_custody(&self.table)
    }

    pub fn to_json(&self) -> Value {
        json!({ "table": self.table, "id": self.id, "field": self.field, "difference": self.says })
    }
}

/// Tables that nothing is made from.
const UNUSED_BY_CUSTODY: [&str; 4] =
    ["ledger.budget_alert", "ledger.cosignature", "ledger.migration", "ledger.resolution"];

/// Whether custody can make the table's rows anew, or nothing is made from them.
fn is_beside_custody(table: &str) -> bool {
    let is_made = |of: &Table| of.rows().name() == table || of.name() == table;
    Table::ALL.iter().any(is_made) || UNUSED_BY_CUSTODY.contains(&table)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, id, field, says } = self;
        write!(f, "{table} id {id}: {field} {says}")
    }
}

/// How many differences are kept; all are counted.
pub const LISTED_MAX: usize = 1000;

#[derive(Clone, Debug, Default)]
pub struct Findings {
    listed: Vec<Finding>,
    by_table: BTreeMap<String, u64>,
    of_custody: u64,
}

impl Findings {
    /// Takes note of a difference.
    pub fn add(&mut self, finding: Finding) {
        self.count(&finding, 1);
        if self.listed.len() < LISTED_MAX {
            self.listed.push(finding);
        }
    }

    /// Takes note of so many more like this one, which are not listed.
    pub fn count(&mut self, like: &Finding, more: u64) {
        *self.by_table.entry(like.table.clone()).or_default() += more;
        self.of_custody += if like.is_of_custody() { more } else { 0 };
    }

    /// Takes over what another found.
    pub fn append(&mut self, other: Findings) {
        for (table, count) in other.by_table {
            *self.by_table.entry(table).or_default() += count;
        }
        self.of_custody += other.of_custody;
        let room = LISTED_MAX - self.listed.len();
        self.listed.extend(other.listed.into_iter().take(room));
    }

    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    /// How many there are, by table.
    pub fn by_table(&self) -> &BTreeMap<String, u64> {
        &self.by_table
    }

    pub fn total(&self) -> u64 {
        self.by_table.values().sum()
    }

    /// How many are in custody or the tree.
    pub fn of_custody(&self) -> u64 {
        self.of_custody
    }
}

/// A value for a sentence: short, in quotation marks; nothing is `null`.
pub fn shown(value: Option<&str>) -> String {
    const CHARS_MAX: usize = 80;
    let Some(text) = value else { return "null".to_owned() };
    let clean: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    match clean.char_indices().nth(CHARS_MAX) {
        None => format!("\"{clean}\""),
        Some((cut, _)) => format!("\"{}…\"", &clean[..cut]),
    }
}
