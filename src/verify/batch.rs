//! Compares the columns of a batch with its entries. Everything in a batch follows from its entries.

use crate::record::leaf::Disposition;
use crate::record::subject::lane_of;
use crate::verify::findings::{Finding, Findings, shown};
use crate::verify::stored::{BatchRow, EntryRow};
use std::collections::BTreeMap;

impl BatchRow {
    /// How many entries it has: as many as most of its arrays have elements.
    pub fn unfolded(&self) -> usize {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, length) in &self.lengths {
            *votes.entry(*length).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, arrays)| *arrays).map_or(0, |(length, _)| length)
    }

    /// Compares it with its entries.
    pub(crate) fn check(&self, entries: &[EntryRow], findings: &mut Findings) {
        let mut differ =
            |field: &str, says: String| findings.add(Finding::new("ledger.batch", self.first_leaf, field, says));
        let unfolded = self.unfolded();
        if usize::try_from(self.leaves) != Ok(unfolded) {
            differ("leaves", format!("is {}, and its arrays have {unfolded} elements", self.leaves));
        }
        for (name, length) in self.lengths.iter().filter(|(_, length)| *length != unfolded) {
            differ(name, format!("has {length} elements, and other arrays have {unfolded}"));
        }
        if let Some(other) = entries.iter().find(|entry| lane_of(&entry.subject) != self.lane) {
            differ("lane", format!("is {}, and leaf {} is of another", shown(Some(&self.lane)), other.leaf_index));
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].sequence >= pair[1].sequence) {
            differ("sequences", format!("do not ascend at leaf {}", pair[1].leaf_index));
        }
        let count = |is: fn(&EntryRow) -> bool| i64::try_from(entries.iter().filter(|entry| is(entry)).count()).ok();
        let row_ids = || entries.iter().filter_map(|entry| entry.row_id);
        let sequence = |entry: Option<&EntryRow>| entry.map(|entry| entry.sequence);
        let mut compare = |field: &str, says: Option<i64>, found: Option<i64>| {
            let number = |number: Option<i64>| number.map_or_else(|| "null".to_owned(), |number| number.to_string());
            if says != found {
                differ(field, format!("is {}, and its entries say {}", number(says), number(found)));
            }
        };
        compare("first_sequence", Some(self.first_sequence), sequence(entries.first()));
        compare("last_sequence", Some(self.last_sequence), sequence(entries.last()));
        compare("first_row_id", self.first_row_id, row_ids().min());
        compare("last_row_id", self.last_row_id, row_ids().max());
        compare("duplicates", Some(self.duplicates.into()), count(|entry| entry.was(Disposition::Duplicate)));
        compare("rejected", Some(self.rejected.into()), count(|entry| entry.was(Disposition::Rejected)));
        compare("erased", Some(self.erased.into()), count(|entry| entry.payload.is_none()));
    }
}
