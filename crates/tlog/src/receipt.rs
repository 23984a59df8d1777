//! Self-contained proof files, c2sp.org/tlog-proof@v1: a checkpoint with its cosignatures, and the proof that leads
//! from the entry to it.

use crate::checkpoint::{CheckpointError, Log, SignedCheckpoint};
use crate::cosignature::{Quorum, QuorumError};
use crate::note::{NOTE_BYTES_MAX, Note, NoteError};
use crate::proof::{InclusionProof, PATH_MAX, ProofError};
use crate::text::{base64, decimal, from_base64, hash};
use crate::tree::Hash;
use std::fmt;

/// The most extra data, in bytes: the largest record that can be configured (16 MiB) fits, with its headers and its leaf.
pub const EXTRA_BYTES_MAX: usize = 32 << 20;
/// The longest file in bytes: a note and what may precede it.
pub const RECEIPT_BYTES_MAX: usize = NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX;
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// A transparency log proof that nobody has verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofFile {
    extra: Option<Vec<u8>>,
    proof: InclusionProof,
    note: Note,
}

/// A file is not a transparency log proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReceipt {
    /// It is longer than [`RECEIPT_BYTES_MAX`].
    #[error("expected a proof of at most {RECEIPT_BYTES_MAX} bytes", RECEIPT_BYTES_MAX = RECEIPT_BYTES_MAX)]
    TooLong,
    /// It is not UTF-8.
    #[error("expected a proof in UTF-8")]
    NotUtf8,
    /// The first line is another.
    #[error("expected {HEADER} in the first line", HEADER = HEADER)]
    Header,
    /// The extra data is not base64, or more than [`EXTRA_BYTES_MAX`].
    #[error("expected extra data in base64, at most {EXTRA_BYTES_MAX} bytes", EXTRA_BYTES_MAX = EXTRA_BYTES_MAX)]
    Extra,
    /// The line after the header and the extra data is not `index <number>`.
    #[error("expected index, a space and a decimal number below 2^64")]
    Index,
    /// A line of the proof is not 32 bytes in base64.
    #[error("expected line {number} of the proof to be 32 bytes in base64")]
    ProofLine {
        /// Its number among the proof's lines, from 1.
        number: usize,
    },
    /// The proof has more than [`PATH_MAX`] lines.
    #[error("expected at most {PATH_MAX} lines of proof", PATH_MAX = PATH_MAX)]
    TooManyProofLines,
    /// There is no empty line between the proof and a checkpoint.
    #[error("expected an empty line and a checkpoint behind the proof")]
    NoCheckpoint,
    /// What comes behind the empty line is not a note.
    #[error(transparent)]
    Note(NoteError),
}

/// What a verified receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenEntry {
    /// The entry's index in the log.
    pub index: u64,
    pub checkpoint: SignedCheckpoint,
}

/// A receipt does not prove it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The checkpoint is none, or not the log's.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The witnesses did not cosign it.
    #[error(transparent)]
    Quorum(QuorumError),
    /// The entry is not in the checkpoint's tree at that index.
    #[error(transparent)]
    Inclusion(ProofError),
}

impl ProofFile {
    /// The receipt for an entry: its proof in the tree of that checkpoint.
    pub fn new(proof: InclusionProof, checkpoint: &SignedCheckpoint) -> Result<Self, BadReceipt> {
        if proof.path.len() > PATH_MAX {
            return Err(BadReceipt::TooManyProofLines);
        }
        Ok(Self { extra: None, proof, note: checkpoint.note().clone() })
    }

    /// The same, for one that has the log's note and not its key: a receipt is to be verified by whoever reads it.
    pub fn unverified(proof: InclusionProof, note: Note) -> Result<Self, BadReceipt> {
        if proof.path.len() > PATH_MAX {
            return Err(BadReceipt::TooManyProofLines);
        }
        Ok(Self { extra: None, proof, note })
    }

    /// With data of the application's, which the receipt does not authenticate.
    pub fn with_extra(self, extra: Vec<u8>) -> Result<Self, BadReceipt> {
        if extra.len() > EXTRA_BYTES_MAX { Err(BadReceipt::Extra) } else { Ok(Self { extra: Some(extra), ..self }) }
    }

    pub fn parse(file: &[u8]) -> Result<Self, BadReceipt> {
        if file.len() > RECEIPT_BYTES_MAX {
            return Err(BadReceipt::TooLong);
        }
        let file = std::str::from_utf8(file).map_err(|_| BadReceipt::NotUtf8)?;
        let rest = file.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n')).ok_or(BadReceipt::Header)?;
        let (head, note) = rest.split_once("\n\n").ok_or(BadReceipt::NoCheckpoint)?;
        let mut lines = head.split('\n').peekable();
        let extra = lines.next_if(|line| line.starts_with("extra ")).map(parse_extra).transpose()?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(BadReceipt::Index)?;
        let mut path = Vec::new();
        for (row, line) in lines.enumerate() {
            if row == PATH_MAX {
                return Err(BadReceipt::TooManyProofLines);
            }
            path.push(hash(line).ok_or(BadReceipt::ProofLine { number: row + 1 })?);
        }
        let note = Note::parse(note.as_bytes()).map_err(BadReceipt::Note)?;
        Ok(Self { extra, proof: InclusionProof { index, path }, note })
    }

    /// The application's data. Whoever passed the file on can have changed it.
    pub fn unauthenticated_extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// The index that the proof is for.
    pub fn index(&self) -> u64 {
        self.proof.index
    }

    /// Whether the log signed the checkpoint, the witnesses cosigned it, and the leaf with this hash is in its tree. The hash is
    /// the caller's own, computed from the entry.
    pub fn verify(&self, leaf_hash: &Hash, log: &Log, quorum: &Quorum) -> Result<ProvenEntry, Unproven> {
        let checkpoint = SignedCheckpoint::open(self.note.clone(), log).map_err(Unproven::Checkpoint)?;
        quorum.reached(&checkpoint).map_err(Unproven::Quorum)?;
        self.proof.verify(leaf_hash, &checkpoint.head()).map_err(Unproven::Inclusion)?;
        Ok(ProvenEntry { index: self.proof.index, checkpoint })
    }
}

impl fmt::Display for ProofFile {
    /// The file, as [`ProofFile::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", base64(extra))?;
        }
        writeln!(f, "index {}", self.proof.index)?;
        self.proof.path.iter().try_for_each(|node| writeln!(f, "{}", base64(node)))?;
        write!(f, "\n{}", self.note)
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, BadReceipt> {
    let extra = line.strip_prefix("extra ").and_then(from_base64);
    extra.filter(|extra| extra.len() <= EXTRA_BYTES_MAX).ok_or(BadReceipt::Extra)
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
