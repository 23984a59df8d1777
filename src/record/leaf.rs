//! The leaf of a custody entry: every field of the entry, and the SHA-256 of its bytes.
//!
//! A leaf is `"LEDGER-LEAF\0"`, a version byte, and fields in ascending order of their tags. A field is a tag (one
//! byte), a length (four bytes, big-endian) and a value. An absent field is left out, so that a field added later
//! changes no old leaf. Its hash is RFC 6962's leaf hash, SHA-256 over a zero byte and the leaf.

use crate::record::digest::{Hash, sha256};
use crate::record::message::Message;
use crate::record::tlv;
use sha2::{Digest, Sha256};

pub(crate) const MAGIC: &[u8] = b"LEDGER-LEAF\0";
pub(crate) const VERSION: u8 = 1;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// It is a row of its table.
    Recorded,
    /// The same record was stored before.
    Duplicate,
    /// It is a dead letter.
    Rejected,
}

impl Disposition {
    /// The disposition of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|disposition| disposition.name() == name)
    }

    pub const ALL: [Disposition; 3] = [Disposition::Recorded, Disposition::Duplicate, Disposition::Rejected];

    /// As custody stores it.
    pub const fn name(self) -> &'static str {
        match self {
            Disposition::Recorded => "recorded",
            Disposition::Duplicate => "duplicate",
            Disposition::Rejected => "rejected",
        }
    }
}

/// The fields of a leaf.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    pub stream: &'a str,
    /// When this incarnation of the stream was made, in nanoseconds since 1970.
    pub stream_created_ns: i64,
    /// How often that incarnation went back in its sequences.
    pub regressions: i32,
    /// The sequence in the stream.
    pub sequence: i64,
    pub subject: &'a str,
    /// When the server stored it.
    pub server_time_ns: i64,
    /// SHA-256 of the stored headers.
    pub headers_sha256: Option<Hash>,
    /// SHA-256 of the payload.
    pub payload_sha256: Hash,
    pub disposition: Disposition,
    pub record_id: Option<&'a str>,
    /// The row of its table.
    pub row_id: Option<i64>,
    /// When it was committed, in microseconds since 1970.
    pub committed_at_us: i64,
    /// Why it was rejected: the stable code and the sentence.
    pub rejection: Option<(&'a str, &'a str)>,
}

impl Leaf<'_> {
    /// The leaf's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut leaf = Vec::with_capacity(320);
        leaf.extend_from_slice(MAGIC);
        leaf.push(VERSION);
        let mut field = |tag: u8, value: &[u8]| tlv::write(&mut leaf, tag, value);
        field(1, self.stream.as_bytes());
        field(2, &self.stream_created_ns.to_be_bytes());
        field(3, &self.regressions.to_be_bytes());
        field(4, &self.sequence.to_be_bytes());
        field(5, self.subject.as_bytes());
        field(6, &self.server_time_ns.to_be_bytes());
        if let Some(hash) = &self.headers_sha256 {
            field(7, hash);
        }
        field(8, &self.payload_sha256);
        field(9, self.disposition.name().as_bytes());
        if let Some(id) = self.record_id {
            field(10, id.as_bytes());
        }
        if let Some(id) = self.row_id {
            field(11, &id.to_be_bytes());
        }
        field(12, &self.committed_at_us.to_be_bytes());
        if let Some((reason, detail)) = self.rejection {
            field(13, reason.as_bytes());
            field(14, detail.as_bytes());
        }
        leaf
    }

    /// RFC 6962's hash of the leaf.
    pub fn hash(&self) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update([0]);
        hasher.update(self.encode());
        hasher.finalize().into()
    }
}

/// SHA-256 of a message's bytes.
pub fn payload_sha256(message: &Message) -> Hash {
    sha256(&message.payload)
}

/// SHA-256 of a message's headers, if it has any.
pub fn headers_sha256(message: &Message) -> Option<Hash> {
    message.headers.as_bytes().map(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::digest::hex;

    fn leaf() -> Leaf<'static> {
        Leaf {
            stream: "LEDGER",
            stream_created_ns: 1_763_785_913_123_456_789,
            regressions: 0,
            sequence: 7,
            subject: "ledger.EXEC.BRM-CTO",
            server_time_ns: 1_771_609_634_568_000_001,
            headers_sha256: None,
            payload_sha256: sha256(b"{}"),
            disposition: Disposition::Recorded,
            record_id: Some("EXEC-BRM-CTO-1708451234568"),
            row_id: Some(1),
            committed_at_us: 1_771_609_634_570_000,
            rejection: None,
        }
    }

    /// Made with Python's `struct` and `hashlib` from the description at the top of this file. It never changes.
    #[test]
    fn the_encoding_is_frozen() {
        assert_eq!(hex(&leaf().hash()), "5795299cfae33a59a574239552d44fe3d7786cade74bbde18a942a7c33cb8e02");
    }

    #[test]
    fn every_field_changes_the_hash() {
        let base = leaf();
        let variants = [
            Leaf { stream: "LEDGES", ..base.clone() },
            Leaf { stream_created_ns: 2, ..base.clone() },
            Leaf { regressions: 1, ..base.clone() },
            Leaf { sequence: 8, ..base.clone() },
            Leaf { subject: "ledger.EXEC.BRM-CTP", ..base.clone() },
            Leaf { server_time_ns: 0, ..base.clone() },
            Leaf { headers_sha256: Some([0; 32]), ..base.clone() },
            Leaf { payload_sha256: [0; 32], ..base.clone() },
            Leaf { disposition: Disposition::Duplicate, ..base.clone() },
            Leaf { record_id: None, ..base.clone() },
            Leaf { row_id: Some(2), ..base.clone() },
            Leaf { committed_at_us: 0, ..base.clone() },
            Leaf { rejection: Some(("too_long", "x")), ..base.clone() },
            Leaf { rejection: Some(("too_long", "y")), ..base.clone() },
        ];
        let mut hashes: Vec<_> = variants.iter().map(Leaf::hash).collect();
        hashes.push(base.hash());
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), variants.len() + 1);
    }
}
