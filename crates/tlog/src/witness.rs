//! The checks before a witness cosigns a checkpoint, c2sp.org/tlog-witness v1: the `add-checkpoint` request, and its
//! answers.
//!
//! ```text
//! AddCheckpoint ──authenticate──▶ Authentic ──judge, against the stored head──▶ Accepted ──the caller stores──▶ cosign
//!       │ 400                         │ 404, 403, 400                    409, 422
//! ```

use crate::checkpoint::{Checkpoint, CheckpointError, Log, Origin, SignedCheckpoint};
use crate::cosignature::{self, Timestamp, cosign};
use crate::note::{NOTE_BYTES_MAX, Note, NoteError, Signature};
use crate::proof::{ConsistencyProof, ProofError};
use crate::text::{base64, decimal, hash};
use crate::tree::TreeHead;
use std::fmt;

/// The longest request body in bytes: a note and what may precede it.
pub const REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + 4096;
/// "The client MUST NOT send more than 63 consistency proof lines."
pub const PROOF_LINES_MAX: usize = 63;
/// The content type of the answer to [`CosignRefusal::Stale`], whose body is the stored size in decimal and a newline.
pub const STALE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// The body of a request to cosign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old_size: u64,
    proof: ConsistencyProof,
    note: Note,
}

/// A request body is not one: 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It is longer than [`REQUEST_BYTES_MAX`].
    #[error("expected a request of at most {REQUEST_BYTES_MAX} bytes", REQUEST_BYTES_MAX = REQUEST_BYTES_MAX)]
    TooLong,
    /// It is not UTF-8.
    #[error("expected a request in UTF-8")]
    NotUtf8,
    /// There is no empty line between the proof and a checkpoint.
    #[error("expected an empty line and a checkpoint behind the proof")]
    NoCheckpoint,
    /// The first line is not `old <size>`.
    #[error("expected old, a space and a decimal number below 2^64 in the first line")]
    OldSize,
    /// A line of the proof is not 32 bytes in base64.
    #[error("expected line {number} of the proof to be 32 bytes in base64")]
    ProofLine {
        /// Its number among the proof's lines, from 1.
        number: usize,
    },
    /// The proof has more than [`PROOF_LINES_MAX`] lines.
    #[error("expected at most {PROOF_LINES_MAX} lines of proof", PROOF_LINES_MAX = PROOF_LINES_MAX)]
    TooManyProofLines,
    /// What comes behind the empty line is not a note.
    #[error(transparent)]
    Note(NoteError),
}

impl AddCheckpoint {
    /// Asks for the cosignature of a checkpoint; the proof leads to it from the tree of `old_size` leaves, the largest that the
    /// witness has cosigned.
    pub fn new(old_size: u64, proof: ConsistencyProof, checkpoint: &SignedCheckpoint) -> Result<Self, BadRequest> {
        if proof.path.len() > PROOF_LINES_MAX {
            return Err(BadRequest::TooManyProofLines);
        }
        Ok(Self { old_size, proof, note: checkpoint.note().clone() })
    }

    /// Reads a request body.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err(BadRequest::TooLong);
        }
        let body = std::str::from_utf8(body).map_err(|_| BadRequest::NotUtf8)?;
        let (head, note) = body.split_once("\n\n").ok_or(BadRequest::NoCheckpoint)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal);
        let old_size = old.ok_or(BadRequest::OldSize)?;
        let mut path = Vec::new();
        for (index, line) in lines.enumerate() {
            if index == PROOF_LINES_MAX {
                return Err(BadRequest::TooManyProofLines);
            }
            path.push(hash(line).ok_or(BadRequest::ProofLine { number: index + 1 })?);
        }
        let note = Note::parse(note.as_bytes()).map_err(BadRequest::Note)?;
        Ok(Self { old_size, proof: ConsistencyProof { path }, note })
    }

    /// The first checks: the log is known (404), it signed this (403), and the sizes are in order (400).
    pub fn authenticate(self, logs: &[Log]) -> Result<Authentic, CosignRefusal> {
        let origin = Checkpoint::parse(self.note.unverified_text()).map_err(CosignRefusal::Malformed)?.origin().clone();
        let log = logs.iter().find(|log| *log.origin() == origin).ok_or(CosignRefusal::UnknownLog { origin })?;
        let checkpoint = SignedCheckpoint::open(self.note, log).map_err(CosignRefusal::Signature)?;
        if self.old_size > checkpoint.head().size {
            return Err(CosignRefusal::OldLargerThanNew { old: self.old_size, new: checkpoint.head().size });
        }
        Ok(Authentic { old_size: self.old_size, proof: self.proof, checkpoint })
    }
}

impl fmt::Display for AddCheckpoint {
    /// The body, as [`AddCheckpoint::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.path.iter().try_for_each(|node| writeln!(f, "{}", base64(node)))?;
        write!(f, "\n{}", self.note)
    }
}

/// A request about a known log's own checkpoint.
#[derive(Clone, Debug)]
pub struct Authentic {
    old_size: u64,
    proof: ConsistencyProof,
    checkpoint: SignedCheckpoint,
}

impl Authentic {
    /// Whose stored head to judge by.
    pub fn origin(&self) -> &Origin {
        self.checkpoint.checkpoint().origin()
    }

    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    /// The other checks, against the head of the latest checkpoint that was cosigned for this origin, if there is one: the old
    /// size is its size (409), and the checkpoint's tree grew out of its tree (422).
    ///
    /// Between the reading of that head and the storing of the accepted one, no other request may do either.
    pub fn judge(self, latest: Option<TreeHead>) -> Result<Accepted, CosignRefusal> {
        let latest = latest.unwrap_or(TreeHead::EMPTY);
        if self.old_size != latest.size {
            return Err(CosignRefusal::Stale { size: latest.size });
        }
        let new = self.checkpoint.head();
        match self.proof.verify(&latest, &new) {
            Ok(()) => Ok(Accepted { checkpoint: self.checkpoint }),
            Err(ProofError::AnotherRoot) if new.size == latest.size => {
                Err(CosignRefusal::AnotherRoot { size: latest.size })
            }
            Err(error) => Err(CosignRefusal::Proof(error)),
        }
    }
}

/// A checkpoint that the witness may cosign, as soon as its head is stored.
#[derive(Clone, Debug)]
pub struct Accepted {
    checkpoint: SignedCheckpoint,
}

impl Accepted {
    /// The latest checkpoint that was cosigned and stored: it may be cosigned again, at another time.
    pub fn again(latest: SignedCheckpoint) -> Self {
        Self { checkpoint: latest }
    }

    /// The checkpoint, to be stored durably before it is cosigned.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    /// The cosignature, whose line is the answer's body (200). The caller has stored the checkpoint.
    pub fn cosign(&self, key: &cosignature::WitnessSignerKey, at: Timestamp) -> Signature {
        cosign(&self.checkpoint, key, at)
    }
}

/// Why the witness does not cosign, in the order of the checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosignRefusal {
    /// The note's text is not a checkpoint's.
    #[error(transparent)]
    Malformed(CheckpointError),
    /// The witness knows no log of this origin.
    #[error("expected a checkpoint of a known log, found one of {origin}")]
    UnknownLog { origin: Origin },
    /// No trusted key of the log signed it, or a signature in the name of one is invalid.
    #[error(transparent)]
    Signature(CheckpointError),
    /// The old size is above the checkpoint's.
    #[error("expected an old size of at most {new}, the checkpoint's, found {old}")]
    OldLargerThanNew { old: u64, new: u64 },
    /// The old size is not that of the latest checkpoint that the witness cosigned.
    #[error("expected a proof from the latest checkpoint, of size {size}")]
    Stale {
        /// The size of that checkpoint.
        size: u64,
    },
    /// The proof does not lead from the latest checkpoint to this one.
    #[error(transparent)]
    Proof(ProofError),
    /// The log signed two trees of one size: the two checkpoints are the evidence.
    #[error("expected the root that the log signed before at size {size}")]
    AnotherRoot { size: u64 },
}

impl CosignRefusal {
    /// The status of the HTTP answer.
    pub fn status(&self) -> u16 {
        match self {
            CosignRefusal::Malformed(_) | CosignRefusal::OldLargerThanNew { .. } => 400,
            CosignRefusal::Signature(_) => 403,
            CosignRefusal::UnknownLog { .. } => 404,
            CosignRefusal::Stale { .. } => 409,
            CosignRefusal::Proof(_) | CosignRefusal::AnotherRoot { .. } => 422,
        }
    }
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
