//! Decodes the bytes of `leaf.rs`. Decoding is strict: each leaf has exactly one reading, and each reading exactly one
//! leaf.

use crate::record::digest::Hash;
use crate::record::leaf::{Disposition, Leaf, MAGIC, VERSION};
use crate::record::tlv::{self, BadTlv};

/// What a leaf says, as [`crate::record::leaf::Leaf`] says it, with texts of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFields {
    pub stream: String,
    /// When the stream was made, in nanoseconds since 1970.
    pub stream_created_ns: i64,
    /// How often the stream went back in its sequences.
    pub regressions: i32,
    /// The sequence in the stream.
    pub sequence: i64,
    pub subject: String,
    /// When the server stored the message, in nanoseconds since 1970.
    pub server_time_ns: i64,
    /// SHA-256 of the stored headers.
    pub headers_sha256: Option<Hash>,
    /// SHA-256 of the payload.
    pub payload_sha256: Hash,
    pub disposition: Disposition,
    pub record_id: Option<String>,
    /// The row of its table.
    pub row_id: Option<i64>,
    /// When it was committed, in microseconds since 1970.
    pub committed_at_us: i64,
    /// Why it was rejected.
    pub rejection: Option<LeafRejection>,
}

/// Why a message was rejected, as a leaf says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRejection {
    pub reason: String,
    pub detail: String,
}

/// Bytes are not a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLeaf {
    /// They are not a sequence of fields.
    #[error("not a leaf of a ledger: {0}")]
    Fields(BadTlv),
    #[error("not a leaf of a ledger: {field} is missing")]
    Missing { field: &'static str },
    /// A field cannot be what it should be: a number of another length, a text that is not UTF-8.
    #[error("not a leaf of a ledger: {field} has an impossible value")]
    Value { field: &'static str },
    /// A field that this program does not know.
    #[error("a leaf with the unknown field {tag}: a newer ledgerd may know it")]
    Unknown { tag: u8 },
}

impl LeafFields {
    /// Reads a leaf's bytes.
    pub fn decode(leaf: &[u8]) -> Result<Self, BadLeaf> {
        let mut fields = TlvFields::read(leaf)?;
        let decoded = Self {
            stream: fields.text(1, "the stream's name")?,
            stream_created_ns: fields.number(2, "the stream's time")?,
            regressions: i32::from_be_bytes(fields.bytes(3, "the count of regressions")?),
            sequence: fields.number(4, "the sequence")?,
            subject: fields.text(5, "the subject")?,
            server_time_ns: fields.number(6, "the server's time")?,
            headers_sha256: fields.optional(7).map(|value| sized(value, "the headers' SHA-256")).transpose()?,
            payload_sha256: fields.bytes(8, "the payload's SHA-256")?,
            disposition: disposition(fields.required(9, "the disposition")?)?,
            record_id: fields.optional(10).map(|value| utf8(value, "the record's id")).transpose()?,
            row_id: fields.optional(11).map(|value| sized(value, "the row")).transpose()?.map(i64::from_be_bytes),
            committed_at_us: fields.number(12, "the time of the commit")?,
            rejection: match (fields.optional(13), fields.optional(14)) {
                (None, None) => None,
                (Some(reason), Some(detail)) => {
                    Some(LeafRejection { reason: utf8(reason, "the reason")?, detail: utf8(detail, "the detail")? })
                }
                (None, Some(_)) => return Err(BadLeaf::Missing { field: "the reason" }),
                (Some(_), None) => return Err(BadLeaf::Missing { field: "the detail" }),
            },
        };
        match fields.0.first() {
            Some((tag, _)) => Err(BadLeaf::Unknown { tag: *tag }),
            None => Ok(decoded),
        }
    }

    /// The leaf's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.as_leaf().encode()
    }

    fn as_leaf(&self) -> Leaf<'_> {
        Leaf {
            stream: &self.stream,
            stream_created_ns: self.stream_created_ns,
            regressions: self.regressions,
            sequence: self.sequence,
            subject: &self.subject,
            server_time_ns: self.server_time_ns,
            headers_sha256: self.headers_sha256,
            payload_sha256: self.payload_sha256,
            disposition: self.disposition,
            record_id: self.record_id.as_deref(),
            row_id: self.row_id,
            committed_at_us: self.committed_at_us,
            rejection: self
                .rejection
                .as_ref()
                .map(|LeafRejection { reason, detail }| (reason.as_str(), detail.as_str())),
        }
    }
}

/// The fields that were not taken yet.
struct TlvFields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> TlvFields<'a> {
    fn read(leaf: &'a [u8]) -> Result<Self, BadLeaf> {
        tlv::read(leaf, MAGIC, VERSION).map(Self).map_err(BadLeaf::Fields)
    }

    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        let place = self.0.iter().position(|(other, _)| *other == tag)?;
        Some(self.0.remove(place).1)
    }

    fn required(&mut self, tag: u8, field: &'static str) -> Result<&'a [u8], BadLeaf> {
        self.optional(tag).ok_or(BadLeaf::Missing { field })
    }

    fn text(&mut self, tag: u8, field: &'static str) -> Result<String, BadLeaf> {
        utf8(self.required(tag, field)?, field)
    }

    fn bytes<const N: usize>(&mut self, tag: u8, field: &'static str) -> Result<[u8; N], BadLeaf> {
        sized(self.required(tag, field)?, field)
    }

    fn number(&mut self, tag: u8, field: &'static str) -> Result<i64, BadLeaf> {
        self.bytes(tag, field).map(i64::from_be_bytes)
    }
}

fn sized<const N: usize>(value: &[u8], field: &'static str) -> Result<[u8; N], BadLeaf> {
    value.try_into().map_err(|_| BadLeaf::Value { field })
}

fn utf8(value: &[u8], field: &'static str) -> Result<String, BadLeaf> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| BadLeaf::Value { field })
}

fn disposition(value: &[u8]) -> Result<Disposition, BadLeaf> {
    let named = std::str::from_utf8(value).ok().and_then(Disposition::named);
    named.ok_or(BadLeaf::Value { field: "the disposition" })
}

#[cfg(test)]
#[path = "leaf_fields_tests.rs"]
mod tests;
