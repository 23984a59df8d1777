//! Compares each entry with its leaf, its dead letter or its row. Entries are checked independently, so that many can
//! be checked in parallel.

use crate::record::dead_letter::dlq_subject;
use crate::record::digest::{Hash, hex, sha256};
use crate::record::leaf::{Disposition, Leaf};
use crate::record::message::{Headers, Message};
use crate::record::own_streams::MIGRATIONS;
use crate::record::reject::{Reason, Rejection};
use crate::record::row::Row;
use crate::record::table::Table;
use crate::verify::findings::{Finding, Findings, shown};
use crate::verify::fingerprint::{Fingerprint, Key};
use crate::verify::rates::Rates;
use crate::verify::removal::{Authorities, Removal};
use crate::verify::rows::{Charge, compare};
use crate::verify::stored::{DeadLetterRow, EntryRow, EpochRow, Epochs, ErasureRow, Page, RowKey};
use std::collections::BTreeMap;

/// What every entry is looked at with.
#[derive(Debug, Default)]
pub struct Background {
    pub epochs: Epochs,
    pub rates: Rates,
    pub authorities: Authorities,
    /// For the fingerprints of this run.
    pub key: Key,
}

/// How many entries of an epoch there are, and how many of them have another leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfEpoch {
    pub entries: u64,
    /// Those that have another leaf.
    pub other_leaves: u64,
}

/// What was found of some entries.
#[derive(Debug, Default)]
pub struct Checked {
    /// Leaf indexes and stored leaf hashes; nothing where what is stored is no hash.
    pub leaves: Vec<(i64, Option<Hash>)>,
    pub findings: Findings,
    /// The rows that were found, by table.
    pub rows: BTreeMap<Table, Fingerprint>,
    /// The dead letters that were found.
    pub dead_letters: Fingerprint,
    /// What is kept of bytes that were given up, where it was found.
    pub erased: Fingerprint,
    pub epochs: BTreeMap<i32, OfEpoch>,
    /// Entries that came again.
    pub duplicates: u64,
    /// Leaves whose row is not what it must be.
    pub damaged: Vec<i64>,
    /// Rows and bytes that are gone by right.
    pub explained: BTreeMap<&'static str, u64>,
    /// Events of our own, which record migrations: sequence and bytes.
    pub migrations: Vec<(i64, Vec<u8>)>,
}

impl Checked {
    /// Compares the batches of a page with their entries.
    pub fn take_batches(&mut self, page: &Page) {
        for (at, (batch, first)) in page.batches.iter().enumerate() {
            let past = page.batches.get(at + 1).map_or(page.entries.len(), |(_, first)| *first);
            batch.check(&page.entries[*first..past], &mut self.findings);
        }
    }

    /// Looks at some entries of a page.
    pub fn take(&mut self, entries: &[EntryRow], page: &Page, background: &Background) {
        for entry in entries {
            self.leaves.push((entry.leaf_index, entry.leaf_hash.whole()));
            let payload_sha256 = match (&entry.payload, &entry.erased) {
                (Some(payload), _) => Some(sha256(payload)),
                (None, erased) => erased.as_ref().and_then(|erased| erased.payload_sha256.whole()),
            };
            Looking { entry, payload_sha256, page, background, into: self }.look();
        }
    }

    /// Takes over what was found of the entries that follow.
    pub fn merge(&mut self, other: Checked) {
        self.findings.append(other.findings);
        for (table, rows) in other.rows {
            self.rows.entry(table).or_default().merge(&rows);
        }
        self.dead_letters.merge(&other.dead_letters);
        self.erased.merge(&other.erased);
        for (number, epoch) in other.epochs {
            let sum = self.epochs.entry(number).or_default();
            sum.entries += epoch.entries;
            sum.other_leaves += epoch.other_leaves;
        }
        self.duplicates += other.duplicates;
        self.damaged.extend(other.damaged);
        for (table, count) in other.explained {
            *self.explained.entry(table).or_default() += count;
        }
        self.migrations.extend(other.migrations);
    }
}

struct Looking<'a> {
    entry: &'a EntryRow,
    /// Of its bytes, or what is kept of them.
    payload_sha256: Option<Hash>,
    page: &'a Page,
    background: &'a Background,
    into: &'a mut Checked,
}

impl Looking<'_> {
    fn differ(&mut self, field: &str, says: impl Into<String>) {
        self.into.findings.add(Finding::new("ledger.entry", self.entry.leaf_index, field, says));
    }

    fn differ_in_dead_letter(&mut self, field: &str, says: impl Into<String>) {
        self.into.findings.add(Finding::new("ledger.dead_letter", self.entry.leaf_index, field, says));
    }

    fn look(mut self) {
        let entry = self.entry;
        if entry.sequence < 1 {
            self.differ("sequence", format!("is {}, and sequences begin with 1", entry.sequence));
        }
        self.look_at_bytes();
        let Some(epoch) = self.background.epochs.get(&entry.epoch) else {
            return self.differ("epoch", format!("is {}, which ledger.epoch does not have", entry.epoch));
        };
        let disposition = match &entry.disposition {
            Ok(disposition) => *disposition,
            Err(other) => return self.differ("disposition", format!("is {}", shown(Some(other)))),
        };
        self.look_at_leaf(epoch, disposition);
        let message = self.message(epoch);
        match disposition {
            Disposition::Recorded => self.look_at_row(message.as_ref()),
            Disposition::Duplicate => self.look_at_duplicate(message.as_ref()),
            Disposition::Rejected => self.look_at_dead_letter(epoch),
        }
        if disposition != Disposition::Rejected && entry.dead_letter.is_some() {
            self.differ_in_dead_letter("leaf_index", format!("is that of an entry that was {}", disposition.name()));
        }
    }

    /// The message as it came; nothing where its bytes are not kept here.
    fn message(&self, epoch: &EpochRow) -> Option<Message> {
        Some(Message {
            incarnation: epoch.incarnation.clone(),
            sequence: self.entry.sequence,
            subject: self.entry.subject.clone(),
            server_time_ns: self.entry.server_time_ns,
            headers: Headers::from_stored(self.entry.headers.clone()),
            payload: self.entry.payload.clone()?,
        })
    }

    fn look_at_bytes(&mut self) {
        let entry = self.entry;
        if entry.erased.is_some() {
            self.into.erased.add(&self.background.key, &RowKey::Number(entry.leaf_index));
        }
        match (&entry.payload, &entry.erased) {
            (Some(_), None) => {}
            (Some(_), Some(_)) => {
                let says = "is that of an entry whose bytes are still there";
                self.into.findings.add(Finding::new("ledger.erased", entry.leaf_index, "leaf_index", says));
            }
            // With their hash kept, the leaf would not miss them.
            (None, None) => self.differ("payload", "is null, and no erasure says why"),
            (None, Some(erased)) => {
                if entry.headers.is_some() {
                    self.differ("headers", "are there, and the payload was erased");
                }
                self.look_at_erasure(erased);
            }
        }
    }

    /// Bytes that were given up by the authority of the Architect.
    fn look_at_erasure(&mut self, erased: &ErasureRow) {
        let entry = self.entry;
        let table = entry.table.map_or("no table", |table| table.rows().name());
        let key = entry.record_id.clone().unwrap_or_default();
        let removal = self.page.removals.get(&(table.to_owned(), key.clone()));
        let why = match removal {
            None => Some("no removal names it".to_owned()),
            Some(removal) if removal.erasure_id != Some(erased.erasure_id) => Some("its removal is another".to_owned()),
            Some(removal) if !is_leaf_of(removal, entry) => Some("its removal names another leaf".to_owned()),
            Some(removal) => self.background.authorities.explain(removal, table, &key).err(),
        };
        match why {
            None => *self.into.explained.entry("ledger.entry").or_default() += 1,
            Some(why) => self.differ("payload", format!("was erased, and {why}")),
        }
    }

    fn look_at_leaf(&mut self, epoch: &EpochRow, disposition: Disposition) {
        let entry = self.entry;
        let of_epoch = self.into.epochs.entry(entry.epoch).or_default();
        of_epoch.entries += 1;
        if disposition == Disposition::Rejected && self.entry.dead_letter.as_ref().and_then(rejection).is_none() {
            // The dead letter itself is the difference, and is named as such.
            return;
        }
        if self.fits(|look| look.leaf(None, None, None)) {
            return;
        }
        self.into.epochs.entry(entry.epoch).or_default().other_leaves += 1;
        let other = Disposition::ALL.into_iter().find(|other| self.fits(|look| look.leaf(None, Some(*other), None)));
        if let Some(other) = other {
            let says = format!("is {}, and the leaf says {}", disposition.name(), other.name());
            return self.differ("disposition", says);
        }
        let number =
            self.background.epochs.iter().find(|(_, other)| self.fits(|look| look.leaf(Some(*other), None, None)));
        if let Some(number) = number.map(|(number, _)| *number) {
            return self.differ("epoch", format!("is {}, and the leaf says {number}", entry.epoch));
        }
        let message = self.message(epoch);
        let derived = message.as_ref().and_then(|message| Row::of(message, 0, None).ok()).map(|row| row.record_id);
        if let Some(id) = derived
            && self.fits(|look| look.leaf(None, None, Some(&id)))
        {
            let says = format!("is {}, and the leaf says {}", shown(entry.record_id.as_deref()), shown(Some(&id)));
            return self.differ("record_id", says);
        }
        if entry.dead_letter.is_some() {
            self.differ_in_dead_letter(
                "reason, detail",
                "are not what the leaf says, or the entry's own fields are not",
            );
        }
        let says = format!(
            "is {}, and is not that of the fields epoch, sequence, subject, server_time_ns, headers, payload, \
             disposition, record_id, row_id, committed_at",
            hex(&entry.leaf_hash)
        );
        self.differ("leaf_hash", says);
    }

    fn fits(&self, leaf: impl FnOnce(&Self) -> Option<Hash>) -> bool {
        leaf(self).is_some_and(|hash| hash == self.entry.leaf_hash[..])
    }

    /// The hash of the entry's leaf, or of what it would be with another epoch, disposition or record id.
    fn leaf(
        &self,
        epoch: Option<&EpochRow>,
        disposition: Option<Disposition>,
        record_id: Option<&str>,
    ) -> Option<Hash> {
        let entry = self.entry;
        let own = self.background.epochs.get(&entry.epoch);
        let epoch = epoch.or(own)?;
        let disposition = disposition.or(entry.disposition.as_ref().ok().copied())?;
        let rejection = match disposition {
            Disposition::Rejected => Some(entry.dead_letter.as_ref().and_then(rejection)?),
            _ => None,
        };
        let headers_sha256 = match &entry.headers {
            Some(headers) => Some(sha256(headers)),
            None => match entry.erased.as_ref().and_then(|erased| erased.headers_sha256.as_ref()) {
                Some(stored) => Some(stored.whole()?),
                None => None,
            },
        };
        let leaf = Leaf {
            stream: &epoch.incarnation.stream,
            stream_created_ns: epoch.incarnation.created_ns,
            regressions: epoch.regressions,
            sequence: entry.sequence,
            subject: &entry.subject,
            server_time_ns: entry.server_time_ns,
            headers_sha256,
            payload_sha256: self.payload_sha256?,
            disposition,
            record_id: record_id.or(entry.record_id.as_deref()),
            row_id: entry.row_id,
            committed_at_us: entry.committed_at_us?,
            rejection: rejection.as_ref().map(|rejection| (rejection.reason().code(), rejection.detail())),
        };
        Some(leaf.hash())
    }

    fn look_at_dead_letter(&mut self, epoch: &EpochRow) {
        let entry = self.entry;
        let Some(letter) = &entry.dead_letter else {
            return self.differ_in_dead_letter("leaf_index", "is missing, and the entry was rejected");
        };
        self.into.dead_letters.add(&self.background.key, &RowKey::Number(entry.leaf_index));
        if Reason::of_code(&letter.reason).is_none() {
            self.differ_in_dead_letter("reason", format!("is {}, which is none", shown(Some(&letter.reason))));
        } else if rejection(letter).is_none() {
            self.differ_in_dead_letter("detail", format!("is {}, which no reject says", shown(Some(&letter.detail))));
        }
        if letter.rejected_at_us != entry.committed_at_us {
            self.differ_in_dead_letter("rejected_at", "is not when the entry was committed (committed_at)");
        }
        if letter.published_too_early {
            self.differ_in_dead_letter("published_at", "is before rejected_at");
        }
        if let Some(message) = self.message(epoch) {
            let subject = dlq_subject(&message, epoch.regressions);
            if letter.dlq_subject != subject {
                let says = format!("is {}, custody says {subject}", shown(Some(&letter.dlq_subject)));
                self.differ_in_dead_letter("dlq_subject", says);
            }
        }
        if let Some(row) = entry.row_id {
            self.differ("row_id", format!("is {row}, and what was rejected has no row"));
        }
    }

    fn look_at_duplicate(&mut self, message: Option<&Message>) {
        let entry = self.entry;
        self.into.duplicates += 1;
        if let Some(row) = entry.row_id {
            self.differ("row_id", format!("is {row}, and a duplicate makes no row"));
        }
        if let Some(message) = message {
            self.look_at_name(Row::of(message, 0, entry.record_id.as_deref()).as_ref());
        }
    }

    fn look_at_name(&mut self, row: Result<&Row<'_>, &String>) {
        let entry = self.entry;
        match row {
            Err(why) => self.differ("payload", format!("makes no record: {why}")),
            Ok(row) if entry.record_id.as_deref() != Some(&*row.record_id) => {
                let says =
                    format!("is {}, its bytes say {}", shown(entry.record_id.as_deref()), shown(Some(&row.record_id)));
                self.differ("record_id", says);
            }
            Ok(_) => {}
        }
    }

    fn look_at_row(&mut self, message: Option<&Message>) {
        let entry = self.entry;
        let Some(table) = entry.table else {
            return self.differ("subject", format!("is {}, which is of no lane", shown(Some(&entry.subject))));
        };
        let Some(key) = entry.row_key(table) else {
            return self.differ("row_id", "is null, or names another row than record_id");
        };
        if let Some(message) = message
            && message.incarnation.stream.as_ref() == MIGRATIONS
        {
            self.into.migrations.push((entry.sequence, message.payload.to_vec()));
        }
        let named = (table, key);
        let found = self.page.rows.get(&named);
        let key = named.1;
        let derived = message
            .map(|message| Row::of(message, entry.committed_at_us.unwrap_or(i64::MAX), entry.record_id.as_deref()));
        if let Some(derived) = &derived {
            self.look_at_name(derived.as_ref());
        }
        let Some(found) = found else { return self.look_at_removal(table, &key) };
        self.into.rows.entry(table).or_default().add(&self.background.key, &key);
        match derived {
            Some(Ok(row)) => {
                let charge = Charge {
                    rates: &self.background.rates,
                    published_ns: entry.server_time_ns,
                    committed_at_us: entry.committed_at_us.unwrap_or(0),
                };
                let differences = compare(table, &key, &row, found, &self.page.ventures, charge);
                if !differences.is_empty() {
                    self.into.damaged.push(entry.leaf_index);
                }
                for difference in differences {
                    self.into.findings.add(difference);
                }
            }
            Some(Err(_)) => {}
            None => {
                let says = format!("is there, and leaf {} that made it was erased", entry.leaf_index);
                self.into.findings.add(Finding::new(table.rows().name(), &key, "id", says));
            }
        }
    }

    /// The row is not there.
    fn look_at_removal(&mut self, table: Table, key: &RowKey) {
        let entry = self.entry;
        let name = table.rows().name();
        let by_key = match table {
            Table::AuditEvents | Table::DecisionTrails => entry.record_id.clone().unwrap_or_default(),
            _ => key.to_string(),
        };
        let why = match self.page.removals.get(&(name.to_owned(), by_key.clone())) {
            None => Some(String::new()),
            Some(removal) if removal.erasure_id.is_some() && !is_leaf_of(removal, entry) => {
                Some(": its removal names another leaf".to_owned())
            }
            Some(removal) => {
                self.background.authorities.explain(removal, name, &by_key).err().map(|why| format!(": {why}"))
            }
        };
        match why {
            None => *self.into.explained.entry(name).or_default() += 1,
            Some(why) => {
                let says = format!("is missing, and leaf {} made it{why}", entry.leaf_index);
                self.into.findings.add(Finding::new(name, key, "id", says));
                self.into.damaged.push(entry.leaf_index);
            }
        }
    }
}

/// A removal names the leaf of the record; duplicates of the record are removed with it.
fn is_leaf_of(removal: &Removal, entry: &EntryRow) -> bool {
    removal.leaf_index == Some(entry.leaf_index) || entry.was(Disposition::Duplicate)
}

fn rejection(letter: &DeadLetterRow) -> Option<Rejection> {
    let rejection = Rejection::new(Reason::of_code(&letter.reason)?, &letter.detail);
    (rejection.detail() == letter.detail).then_some(rejection)
}
