//! The rows as they are read from the database, unchecked.

use crate::record::digest::Hash;
use crate::record::leaf::Disposition;
use crate::record::message::Incarnation;
use crate::record::table::Table;
use crate::verify::removal::Removal;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::{Deref, Range};

/// A row of `ledger.epoch`.
#[derive(Clone, Debug)]
pub struct EpochRow {
    /// Which incarnation of which stream.
    pub incarnation: Incarnation,
    /// How often it went back.
    pub regressions: i32,
}

/// All of them, by their numbers.
pub type Epochs = BTreeMap<i32, EpochRow>;

/// A row of `ledger.dead_letter`.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    pub reason: String,
    pub detail: String,
    pub dlq_subject: String,
    /// In microseconds since 1970; `None` for infinity.
    pub rejected_at_us: Option<i64>,
    /// It was published, and before it was rejected.
    pub published_too_early: bool,
}

/// A row of `ledger.erased`: what is kept of bytes that were given up.
#[derive(Clone, Debug)]
pub struct ErasureRow {
    pub erasure_id: i64,
    /// SHA-256 of the payload.
    pub payload_sha256: StoredHash,
    /// SHA-256 of the headers, where there were any.
    pub headers_sha256: Option<StoredHash>,
}

/// An entry of custody, with the dead letter of its leaf.
#[derive(Clone, Debug)]
pub struct EntryRow {
    pub leaf_index: i64,
    pub epoch: i32,
    /// Its sequence in the stream.
    pub sequence: i64,
    pub subject: String,
    /// The table that the subject's lane fills; nothing where it has no lane.
    pub table: Option<Table>,
    /// In nanoseconds since 1970.
    pub server_time_ns: i64,
    pub headers: Option<Vec<u8>>,
    /// The publisher's bytes.
    pub payload: Option<Bytes>,
    /// One of three words, or another.
    pub disposition: Result<Disposition, String>,
    pub record_id: Option<String>,
    /// The row that it made.
    pub row_id: Option<i64>,
    /// What is said to be the leaf's hash.
    pub leaf_hash: StoredHash,
    /// In microseconds since 1970; `None` for infinity.
    pub committed_at_us: Option<i64>,
    /// The dead letter of this leaf.
    pub dead_letter: Option<DeadLetterRow>,
    /// What is kept of its bytes, which were given up.
    pub erased: Option<ErasureRow>,
}

impl EntryRow {
    /// The key of the row that it names as a recorded entry of this table: a number, or for uses of tools the record's own id.
    pub fn row_key(&self, table: Table) -> Option<RowKey> {
        match (table, self.row_id) {
            (Table::ToolUsageLedger, None) => self.record_id.clone().map(RowKey::Name),
            (Table::ToolUsageLedger, Some(_)) => None,
            (_, row_id) => row_id.map(RowKey::Number),
        }
    }

    /// Whether this became of it.
    pub fn was(&self, disposition: Disposition) -> bool {
        self.disposition == Ok(disposition)
    }
}

/// What is said to be a SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredHash {
    /// It can be one.
    Whole(Hash),
    /// It has another length.
    Other(Vec<u8>),
}

impl StoredHash {
    /// Takes what is stored.
    pub fn of(bytes: &[u8]) -> Self {
        Hash::try_from(bytes).map_or_else(|_| Self::Other(bytes.to_vec()), Self::Whole)
    }

    /// The hash, if it can be one.
    pub fn whole(&self) -> Option<Hash> {
        if let Self::Whole(hash) = self { Some(*hash) } else { None }
    }
}

impl Deref for StoredHash {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Whole(hash) => hash,
            Self::Other(bytes) => bytes,
        }
    }
}

/// What names a row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowKey {
    Number(i64),
    Name(String),
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// The values of a row as PostgreSQL prints them, in the order of [`crate::record::row::columns`]: one text, cut into pieces.
#[derive(Clone, Debug, Default)]
pub struct Values {
    text: String,
    pieces: Vec<Option<Range<usize>>>,
}

impl Values {
    /// None yet, with room for so many columns and bytes.
    pub fn with_capacity(columns: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), pieces: Vec::with_capacity(columns) }
    }

    /// Appends the value of the next column.
    pub fn push(&mut self, value: Option<&str>) {
        let start = self.text.len();
        self.text.push_str(value.unwrap_or_default());
        self.pieces.push(value.map(|_| start..self.text.len()));
    }

    /// The value of a column; nothing where it is null, or there is no such column.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.pieces.get(column)?.clone().map(|piece| &self.text[piece])
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        self.pieces.iter().map(|piece| piece.clone().map(|piece| &self.text[piece]))
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Consecutive entries, and all that stands beside them.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order of their leaves.
    pub entries: Vec<EntryRow>,
    /// The batches that they are of, each with where its first entry is among these.
    pub batches: Vec<(BatchRow, usize)>,
    /// The rows that they name, by table and key.
    pub rows: HashMap<(Table, RowKey), Values>,
    /// What was removed of the rows that are not there, by table and key.
    pub removals: HashMap<(String, String), Removal>,
    /// Which of the named ventures there still are.
    pub ventures: Vec<String>,
}

/// `ledger.tree_head`.
#[derive(Clone, Debug)]
pub struct HeadRow {
    pub size: i64,
    pub root: Vec<u8>,
    /// The roots of the perfect subtrees.
    pub frontier: Vec<u8>,
}

/// A row of `ledger.subtree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtreeRow {
    pub level: i16,
    /// Its place in the level.
    pub index: i64,
    pub hash: Vec<u8>,
}

/// A row of `ledger.batch` without its elements.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// The leaf of its first entry.
    pub first_leaf: i64,
    /// How many entries it says that it has.
    pub leaves: i32,
    pub lane: String,
    pub first_sequence: i64,
    pub last_sequence: i64,
    /// The least number of a row.
    pub first_row_id: Option<i64>,
    pub last_row_id: Option<i64>,
    /// How many entries came again.
    pub duplicates: i32,
    pub rejected: i32,
    /// How many gave up their bytes.
    pub erased: i32,
    /// How many elements each array has that is there.
    pub lengths: Vec<(&'static str, usize)>,
}
