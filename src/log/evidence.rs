//! The evidence in a proof, besides hashes: the leaf that was logged, and the publisher's bytes that it covers.
//!
//! The encoding is `"LEDGER-PROOF\0"`, a version byte, and fields like those of a leaf: 1 the leaf, 2 the headers, 3
//! the payload. It is untrusted until [`Evidence::examine`] has compared it, and the leaf's hash was found in the log.

use crate::record::digest::{Hash, hex, sha256};
use crate::record::leaf_fields::{BadLeaf, LeafFields};
use crate::record::tlv::{self, BadTlv};
use std::fmt;

const MAGIC: &[u8] = b"LEDGER-PROOF\0";
const VERSION: u8 = 1;

/// A leaf with what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The leaf's bytes.
    pub leaf: Vec<u8>,
    /// The headers as custody keeps them, where there are any and they are shown.
    pub headers: Option<Vec<u8>>,
    /// The publisher's bytes, where they are shown.
    pub payload: Option<Vec<u8>>,
}

/// Evidence that does not hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadEvidence {
    /// The bytes are no evidence.
    Fields(BadTlv),
    /// A field that this program does not know.
    Unknown {
        tag: u8,
    },
    /// There is no leaf in it.
    NoLeaf,
    Leaf(BadLeaf),
    /// The bytes are not those that the leaf covers.
    Another {
        /// `the payload is` or `the headers are`.
        what: &'static str,
        /// The SHA-256 that the leaf has; `None`: the message had no headers.
        expected: Option<Hash>,
        /// The SHA-256 of the bytes that are shown.
        found: Hash,
    },
}

impl fmt::Display for BadEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadEvidence::Fields(error) => write!(f, "the extra data is not that of a ledger's proof: {error}"),
            BadEvidence::Unknown { tag } => {
                write!(f, "the extra data has the unknown field {tag}: a newer ledgerd may know it")
            }
            BadEvidence::NoLeaf => f.write_str("the extra data holds no leaf"),
            BadEvidence::Leaf(error) => write!(f, "the extra data holds something that is {error}"),
            BadEvidence::Another { what, expected: Some(expected), found } => {
                let (expected, found) = (hex(expected), hex(found));
                write!(f, "{what} not what was logged: expected SHA-256 {expected}, found {found}")
            }
            BadEvidence::Another { what, expected: None, found } => {
                write!(f, "{what} not what was logged: expected none, found some with SHA-256 {}", hex(found))
            }
        }
    }
}

impl std::error::Error for BadEvidence {}

impl Evidence {
    /// Reads what [`Evidence::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadEvidence> {
        let (mut leaf, mut headers, mut payload) = (None, None, None);
        for (tag, value) in tlv::read(bytes, MAGIC, VERSION).map_err(BadEvidence::Fields)? {
            let field = match tag {
                1 => &mut leaf,
                2 => &mut headers,
                3 => &mut payload,
                _ => return Err(BadEvidence::Unknown { tag }),
            };
            *field = Some(value.to_vec());
        }
        Ok(Self { leaf: leaf.ok_or(BadEvidence::NoLeaf)?, headers, payload })
    }

    /// Its bytes: one spelling for each evidence.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [MAGIC, &[VERSION]].concat();
        tlv::write(&mut bytes, 1, &self.leaf);
        if let Some(headers) = &self.headers {
            tlv::write(&mut bytes, 2, headers);
        }
        if let Some(payload) = &self.payload {
            tlv::write(&mut bytes, 3, payload);
        }
        bytes
    }

    /// What the leaf says, if headers and payload are those that it covers.
    pub fn examine(&self) -> Result<LeafFields, BadEvidence> {
        let fields = LeafFields::decode(&self.leaf).map_err(BadEvidence::Leaf)?;
        let shown = [
            ("the payload is", &self.payload, Some(fields.payload_sha256)),
            ("the headers are", &self.headers, fields.headers_sha256),
        ];
        for (what, bytes, expected) in shown {
            let Some(found) = bytes.as_deref().map(sha256) else { continue };
            if expected != Some(found) {
                return Err(BadEvidence::Another { what, expected, found });
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::leaf::Disposition;
    use proptest::prelude::*;

    fn evidence(headers: Option<&[u8]>, payload: &[u8]) -> Evidence {
        let leaf = LeafFields {
            stream: "LEDGER".to_owned(),
            stream_created_ns: 1,
            regressions: 0,
            sequence: 1,
            subject: "ledger.EXEC.BRM-CTO".to_owned(),
            server_time_ns: 1,
            headers_sha256: headers.map(sha256),
            payload_sha256: sha256(payload),
            disposition: Disposition::Recorded,
            record_id: Some("EXEC-BRM-CTO-1708451234568".to_owned()),
            row_id: Some(1),
            committed_at_us: 1,
            rejection: None,
        };
        Evidence { leaf: leaf.encode(), headers: headers.map(<[u8]>::to_vec), payload: Some(payload.to_vec()) }
    }

    #[test]
    fn other_bytes_than_the_logged_ones_are_named() {
        let good = evidence(Some(b"A: b\r\n"), b"{}");
        assert!(good.examine().is_ok());
        assert!(Evidence { payload: None, ..good.clone() }.examine().is_ok(), "it may be left out");
        assert!(Evidence { headers: None, ..good.clone() }.examine().is_ok(), "they may be left out");
        let another = Evidence { payload: Some(b"[]".to_vec()), ..good.clone() };
        assert!(another.examine().expect_err("another").to_string().starts_with("the payload is not what was logged"));
        let another = Evidence { headers: Some(b"A: c\r\n".to_vec()), ..good };
        assert!(another.examine().expect_err("another").to_string().starts_with("the headers are not what was logged"));
        let added = Evidence { headers: Some(b"A: b\r\n".to_vec()), ..evidence(None, b"{}") };
        assert!(added.examine().expect_err("added").to_string().contains("expected none"));
    }

    proptest! {
        #[test]
        fn it_is_read_as_it_was_written(
            headers in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            at in 0_usize..400,
            flip in 1_u8..=255,
        ) {
            let good = evidence(headers.as_deref(), &payload);
            let bytes = good.encode();
            prop_assert_eq!(&Evidence::decode(&bytes), &Ok(good.clone()));
            let mut bad = bytes.clone();
            bad[at % bytes.len()] ^= flip;
            if let Ok(read) = Evidence::decode(&bad) {
                prop_assert_eq!(read.encode(), bad);
                prop_assert!(read.leaf != good.leaf || read.examine().is_err(), "only another leaf could be good");
            }
        }
    }
}
