//! The verification report: the checked items and the findings, for people and for machines.

use crate::verify::entry::Checked;
use crate::verify::findings::{Finding, Findings};
use crate::verify::stored::Epochs;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Entries that were looked at.
    pub leaves: u64,
    /// The root of the tree, in hexadecimal.
    pub root: Option<String>,
    pub rows: BTreeMap<&'static str, u64>,
    /// Entries that came again.
    pub duplicates: u64,
    /// Known roots that were compared.
    pub known_roots: u64,
    pub findings: Findings,
    /// References that lead nowhere (yet): no difference.
    pub dangling: Vec<String>,
    pub dangling_total: u64,
    /// Rows and bytes that are gone by right, by table.
    pub explained: BTreeMap<&'static str, u64>,
    /// What is worth knowing, and no difference.
    pub remarks: Vec<String>,
}

impl VerifyReport {
    /// Takes over what was found of all entries.
    pub fn take(&mut self, checked: Checked, epochs: &Epochs) {
        for (number, epoch) in &checked.epochs {
            if epoch.entries == epoch.other_leaves {
                let fields = "stream, stream_created_ns, regressions";
                let says = "are not what the leaves say: no entry of the epoch has the leaf that follows from them";
                self.findings.add(Finding::new("ledger.epoch", number, fields, says));
            }
        }
        for (number, epoch) in epochs.iter().filter(|(number, _)| !checked.epochs.contains_key(number)) {
            self.remarks.push(format!("ledger.epoch id {number} ({}) has no entry", epoch.incarnation));
        }
        for (table, rows) in &checked.rows {
            self.rows.insert(table.rows().name(), rows.count);
        }
        self.rows.insert("ledger.dead_letter", checked.dead_letters.count);
        self.duplicates = checked.duplicates;
        self.explained.extend(checked.explained);
        self.findings.append(checked.findings);
    }

    pub fn is_clean(&self) -> bool {
        self.findings.total() == 0
    }

    pub fn to_json(&self) -> Value {
        let differences: Vec<Value> = self.findings.listed().iter().map(Finding::to_json).collect();
        json!({
            "verified": self.is_clean(),
            "leaves": self.leaves,
            "root": self.root,
            "rows": self.rows,
            "duplicates": self.duplicates,
            "known_roots_compared": self.known_roots,
            "differences_total": self.findings.total(),
            "differences_by_table": self.findings.by_table(),
            "differences": differences,
            "dangling_total": self.dangling_total,
            "dangling": self.dangling,
            "explained_removals": self.explained,
            "remarks": self.remarks,
        })
    }

    pub fn lines(&self) -> Vec<String> {
        const DANGLING_SHOWN: usize = 20;
        let mut lines: Vec<String> = self.findings.listed().iter().map(ToString::to_string).collect();
        let more = self.findings.total().saturating_sub(lines.len() as u64);
        if more > 0 {
            lines.push(format!("… and {more} more differences"));
        }
        lines.extend(self.dangling.iter().take(DANGLING_SHOWN).map(|line| format!("dangling: {line}")));
        if self.dangling_total > DANGLING_SHOWN as u64 {
            lines.push(format!("… {} references dangle", self.dangling_total));
        }
        lines.extend(self.remarks.iter().map(|remark| format!("remark: {remark}")));
        lines.push(format!("{:<24}{:>14}", "leaves", self.leaves));
        lines.extend(self.rows.iter().map(|(table, rows)| format!("{table:<24}{rows:>14}")));
        lines.push(format!("{:<24}{:>14}", "duplicates", self.duplicates));
        lines.push(format!("{:<24}{:>14}", "known roots compared", self.known_roots));
        lines.extend(
            self.explained
                .iter()
                .map(|(table, gone)| format!("{:<24}{gone:>14}", format!("removed by right: {table}"))),
        );
        lines
            .push(format!("tree root               {}", self.root.as_deref().unwrap_or("unknown: leaves are missing")));
        if self.is_clean() {
            lines.push("verified: nothing differs".to_owned());
        } else {
            let tables: Vec<_> =
                self.findings.by_table().iter().map(|(table, count)| format!("{table} {count}")).collect();
            lines.push(format!("NOT verified: {} differences ({})", self.findings.total(), tables.join(", ")));
        }
        lines
    }
}
