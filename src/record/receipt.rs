//! A receipt: the answer to a publisher that asks for the outcome of its message. Its subject is derived from the
//! message alone: from the author and the record.

use crate::record::digest::{hex, sha256};
use crate::record::json::Object;
use crate::record::kinds::readable_record_id;
use crate::record::message::{Incarnation, MESSAGE_ID, Message};
use crate::record::subject::Subject;
use crate::record::table::Table;
use serde::{Deserialize, Serialize};

pub const HEADER: &str = "Ledger-Receipt";
pub const YES: &str = "1";

/// A message whose publisher asks what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub incarnation: Incarnation,
    pub sequence: i64,
    /// When the server stored it, in nanoseconds since 1970.
    pub server_time_ns: i64,
    /// The table that its lane fills.
    pub table: Table,
    pub receipt_subject: String,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It is a row.
    Logged,
    /// The same record was a row already.
    Duplicate,
    /// It is a dead letter.
    Rejected,
}

/// What the ledger holds of a message, as its publisher is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub status: Status,
    /// The record's own name: of an audit event its `event_id`. None where a reject had none that could be read.
    pub event_id: Option<String>,
    /// The specification's hash. Audit events alone have one.
    pub integrity_hash: Option<String>,
    /// The leaf of the transparency log, in hexadecimal.
    pub leaf_hash: String,
    pub leaf_index: i64,
    /// Of the bytes that were published, in hexadecimal. Receipts of earlier versions have none.
    pub payload_sha256: Option<String>,
    /// When it was committed, ISO 8601 in UTC.
    pub committed_at: String,
    /// The code of the reject's reason.
    pub reason: Option<String>,
    pub detail: Option<String>,
    /// The stream that the message is in.
    pub stream: String,
    pub sequence: i64,
    /// The receipt's own subject. A copy that somebody made appear on another subject is no receipt.
    pub subject: String,
}

/// The deepest nesting that the settings admit.
const NESTING_MAX: usize = 128;

impl Asked {
    /// `None` where the publisher does not ask.
    pub fn of(message: &Message) -> Option<Self> {
        if message.headers.value(HEADER)?.trim() != YES {
            return None;
        }
        let subject = Subject::parse(&message.subject)?;
        Some(Self {
            incarnation: message.incarnation.clone(),
            sequence: message.sequence,
            server_time_ns: message.server_time_ns,
            table: subject.lane.table(),
            receipt_subject: subject_of(subject, &message.payload, message.headers.value(MESSAGE_ID), message.sequence),
        })
    }
}

impl Receipt {
    /// The bytes to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a receipt is texts and numbers")
    }

    /// Whether the ledger holds a record of these bytes, whichever message brought them.
    pub fn says_stored(&self, payload_sha256: &str) -> bool {
        matches!(self.status, Status::Logged | Status::Duplicate)
            && self.payload_sha256.as_deref() == Some(payload_sha256)
    }

    /// Reads what came on a subject. Whoever publishes in a shared account can make the server's own answer appear there, which
    /// has no `status`, or a copy of a receipt of his own, which names its subject.
    pub fn parse(bytes: &[u8], subject: &str) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|receipt: &Self| receipt.subject == subject)
    }
}

/// All subjects of an actor's receipts.
pub fn subjects_of(actor: &str) -> String {
    format!("receipt.{}.*", token(actor))
}

/// `receipt.<ACTOR>.<record id>`. A record without an id that can be read goes by its message id, and without one by its sequence.
pub fn subject_of(subject: Subject<'_>, payload: &[u8], message_id: Option<&str>, sequence: i64) -> String {
    let own_id = own_id(payload, subject.lane.table());
    let name = own_id.as_deref().or(message_id).filter(|name| !name.is_empty());
    let name = name.map_or_else(|| format!("{SEQUENCE_PREFIX}{sequence}"), token);
    format!("receipt.{}.{name}", token(subject.actor))
}

/// The id that the publisher gave to the record, where it can be read. A metric's key stands for many records.
pub fn own_id(payload: &[u8], table: Table) -> Option<String> {
    if table == Table::EconomicMetrics {
        return None;
    }
    readable_record_id(&Object::parse(payload, NESTING_MAX).ok()?, table)
}

const SEQUENCE_PREFIX: &str = "seq-";
const TOKEN_CHARS_MAX: usize = 255;
const KEPT_CHARS_MAX: usize = 64;
const DIGEST_DIGITS: usize = 32;

/// Any text as one token of a subject, so that two texts never share one. What is harmless stays as it is; of anything else the
/// harmless characters stay, and a digest follows them.
fn token(text: &str) -> String {
    let is_safe = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    let is_whole = !text.is_empty() && text.len() <= TOKEN_CHARS_MAX && text.chars().all(|it| is_safe(&it));
    if is_whole && !text.starts_with(SEQUENCE_PREFIX) {
        return text.to_owned();
    }
    let kept: String = text.chars().filter(is_safe).take(KEPT_CHARS_MAX).collect();
    format!("{kept}~{}", &hex(&sha256(text.as_bytes()))[..DIGEST_DIGITS])
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
