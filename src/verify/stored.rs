//! What is read? Rows as the database has them, unchecked.

use crate::domain::message::Incarnation;
use crate::domain::subject::Table;
use crate::verify::removal::Removal;
use std::collections::{BTreeMap, HashMap};

/// A row of `ledger.epoch`.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Which incarnation of which stream.
    pub incarnation: Incarnation,
    /// How often it went back.
    pub regressions: i32,
}

/// All of them, by their numbers.
pub type Epochs = BTreeMap<i32, Epoch>;

/// A row of `ledger.dead_letter`.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The code.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// Where it goes.
    pub dlq_subject: String,
    /// In microseconds since 1970; `None` for infinity.
    pub rejected_at_us: Option<i64>,
    /// It was published, and before it was rejected.
    pub published_too_early: bool,
}

/// A row of `ledger.entry`, with the dead letter of its leaf.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its leaf.
    pub leaf_index: i64,
    /// Its epoch's number.
    pub epoch: i32,
    /// Its sequence in the stream.
    pub sequence: i64,
    /// The subject.
    pub subject: String,
    /// In nanoseconds since 1970.
    pub server_time_ns: i64,
    /// The publisher's headers.
    pub headers: Option<Vec<u8>>,
    /// The publisher's bytes.
    pub payload: Option<Vec<u8>>,
    /// What is said to be their SHA-256.
    pub payload_sha256: Vec<u8>,
    /// One of three words.
    pub disposition: String,
    /// The record's own name.
    pub record_id: Option<String>,
    /// The row that it made.
    pub row_id: Option<i64>,
    /// What is said to be the leaf's hash.
    pub leaf_hash: Vec<u8>,
    /// In microseconds since 1970; `None` for infinity.
    pub committed_at_us: Option<i64>,
    /// The dead letter of this leaf.
    pub dead_letter: Option<DeadLetter>,
    /// Its bytes were given up by the authority of this erasure.
    pub erasure_id: Option<i64>,
    /// SHA-256 of headers that were given up.
    pub headers_sha256: Option<Vec<u8>>,
}

/// A recorded entry that bears the name of a duplicate.
#[derive(Clone, Debug)]
pub struct Sibling {
    /// The subject.
    pub subject: String,
    /// SHA-256 of its bytes.
    pub payload_sha256: Vec<u8>,
}

/// The values of a row as PostgreSQL prints them, in the order of [`crate::domain::row::columns`].
pub type Values = Vec<Option<String>>;

/// A rate that usage may be charged by.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The metric's key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// When it was published, in microseconds since 1970.
    pub published_at_us: i64,
    /// When it was stored.
    pub created_at_us: i64,
    /// When the next rate of this key was set.
    pub superseded_at_us: Option<i64>,
}

/// Consecutive entries, and all that stands beside them.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order of their leaves.
    pub entries: Vec<Entry>,
    /// The rows that they name, by table and key.
    pub rows: HashMap<(Table, String), Values>,
    /// The recorded entries of the names that duplicates bear.
    pub siblings: HashMap<String, Vec<Sibling>>,
    /// What was removed of the rows that are not there, by table and key.
    pub removals: HashMap<(String, String), Removal>,
    /// Which of the named ventures there still are.
    pub ventures: Vec<String>,
}

/// `ledger.tree_head`.
#[derive(Clone, Debug)]
pub struct Head {
    /// How many leaves.
    pub size: i64,
    /// The root.
    pub root: Vec<u8>,
    /// The roots of the perfect subtrees.
    pub frontier: Vec<u8>,
}

/// A row of `ledger.subtree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its level.
    pub level: i16,
    /// Its place in the level.
    pub index: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}
