//! Cosignatures, c2sp.org/tlog-cosignature v1: `cosignature/v1`, the Ed25519 statement of a witness.

use crate::checkpoint::SignedCheckpoint;
use crate::key::{self, KeyId, KeyName, Verifier};
use crate::note::{Note, NoteError, Signature, VerifierKey};

/// The signature type of signed-note that stands for these cosignatures.
pub const COSIGNATURE_V1: u8 = 0x04;

pub type WitnessSignerKey = key::TypedSignerKey<COSIGNATURE_V1>;
/// The public half of a [`WitnessSignerKey`].
pub type WitnessVerifierKey = key::TypedVerifierKey<COSIGNATURE_V1>;

/// Seconds since 1970, as POSIX counts them: from 1 to 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// `None` if it is 0, which means that there is no time, or above 2^63 - 1.
    pub fn from_posix_seconds(seconds: u64) -> Option<Self> {
        (1..=i64::MAX.unsigned_abs()).contains(&seconds).then_some(Self(seconds))
    }

    /// Seconds since 1970.
    pub fn posix_seconds(self) -> u64 {
        self.0
    }
}

impl Verifier for WitnessVerifierKey {
    fn name(&self) -> &KeyName {
        self.name()
    }

    fn id(&self) -> KeyId {
        self.id()
    }

    /// `timestamped_signature`: eight bytes of time and 64 of Ed25519 ("Format").
    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let Some((at, ed25519)) = split_timestamp(signature) else { return false };
        self.verifies_message(signed_message(text, at).as_bytes(), ed25519)
    }
}

fn split_timestamp(signature: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (seconds, ed25519) = signature.split_first_chunk::<8>()?;
    Some((Timestamp::from_posix_seconds(u64::from_be_bytes(*seconds))?, ed25519))
}

/// "Ed25519 signed message".
fn signed_message(text: &str, at: Timestamp) -> String {
    format!("cosignature/v1\ntime {}\n{text}", at.0)
}

/// Cosigns a checkpoint: at that time it is the largest that the witness has seen of the log, and it grew out of those before.
/// [`crate::witness::Accepted`] is the one who may say so.
pub(crate) fn cosign(checkpoint: &SignedCheckpoint, key: &WitnessSignerKey, at: Timestamp) -> Signature {
    let ed25519 = key.sign_message(signed_message(checkpoint.text(), at).as_bytes());
    let signature = [at.0.to_be_bytes().as_slice(), &ed25519].concat();
    Signature::new(key.name().clone(), key.verifier().id(), signature)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature<'a> {
    pub witness: &'a WitnessVerifierKey,
    pub at: Timestamp,
}

/// The cosignatures of the known witnesses: for each witness the newest. Those of other keys are ignored; one that is invalid is
/// an error.
pub fn cosignatures<'a>(
    checkpoint: &'a SignedCheckpoint,
    witnesses: &'a [WitnessVerifierKey],
) -> Result<Vec<Cosignature<'a>>, NoteError> {
    of_note(checkpoint.note(), witnesses)
}

fn of_note<'a>(note: &'a Note, witnesses: &'a [WitnessVerifierKey]) -> Result<Vec<Cosignature<'a>>, NoteError> {
    let mut found: Vec<Cosignature<'a>> = Vec::new();
    for (signature, witness) in note.verified_by(witnesses)? {
        let Some((at, _)) = split_timestamp(signature.bytes()) else { continue };
        match found.iter_mut().find(|other| other.witness == witness) {
            Some(other) => other.at = other.at.max(at),
            None => found.push(Cosignature { witness, at }),
        }
    }
    Ok(found)
}

/// Takes a witness's answer to `add-checkpoint`, signature lines, and adds to the checkpoint what known witnesses signed. Other
/// lines are ignored; an invalid one is an error, and nothing is added. Returns how many were added.
pub fn collect(
    checkpoint: &mut SignedCheckpoint,
    answer: &str,
    witnesses: &[WitnessVerifierKey],
) -> Result<usize, NoteError> {
    let mut cosigned = checkpoint.clone();
    let mut added = 0;
    for line in Signature::parse_lines(answer)? {
        let Some(witness) = witnesses.iter().find(|witness| line.is_by(*witness)) else { continue };
        if !witness.verifies(cosigned.text(), line.bytes()) {
            return Err(NoteError::InvalidSignature { name: line.name().clone() });
        }
        cosigned.add(line)?;
        added += 1;
    }
    *checkpoint = cosigned;
    Ok(added)
}

/// How many of which witnesses a verifier asks for.
#[derive(Clone, Debug)]
pub struct Quorum {
    witnesses: Vec<WitnessVerifierKey>,
    threshold: usize,
}

/// A quorum is not one, or is not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// More witnesses are asked for than there are.
    #[error("expected at least {threshold} witnesses to be known, found {witnesses}")]
    Unreachable {
        /// How many are asked for.
        threshold: usize,
        witnesses: usize,
    },
    /// One public key is there twice, and would count twice.
    #[error("expected witnesses with keys of their own, and {name} shares one")]
    SameKeyTwice {
        /// The name of the second.
        name: KeyName,
    },
    /// The log cannot vouch for itself.
    #[error("expected the keys of witnesses, and {name} has the log's own key")]
    LogsOwnKey {
        /// The name under which it was given.
        name: KeyName,
    },
    /// Too few cosigned it.
    #[error("expected the cosignatures of {threshold} known witnesses, found {found}")]
    TooFew {
        /// How many are asked for.
        threshold: usize,
        found: usize,
    },
    /// A signature in a witness's name is invalid.
    #[error(transparent)]
    Note(NoteError),
}

impl Quorum {
    /// No witness is asked for: the log's word alone.
    pub const NONE: Quorum = Quorum { witnesses: Vec::new(), threshold: 0 };

    /// `threshold` of these witnesses. As c2sp.org/tlog-policy has it, no two may share a public key, under whatever names.
    pub fn new(witnesses: Vec<WitnessVerifierKey>, threshold: usize) -> Result<Self, QuorumError> {
        for (index, witness) in witnesses.iter().enumerate() {
            if witnesses[..index].iter().any(|other| other.public_key() == witness.public_key()) {
                return Err(QuorumError::SameKeyTwice { name: witness.name().clone() });
            }
        }
        if threshold > witnesses.len() {
            return Err(QuorumError::Unreachable { threshold, witnesses: witnesses.len() });
        }
        Ok(Self { witnesses, threshold })
    }

    /// The same, where none of the witnesses has the log's own key.
    pub fn beside(self, log: &VerifierKey) -> Result<Self, QuorumError> {
        match self.witnesses.iter().find(|witness| witness.public_key() == log.public_key()) {
            Some(own) => Err(QuorumError::LogsOwnKey { name: own.name().clone() }),
            None => Ok(self),
        }
    }

    /// The cosignatures of these witnesses, if they are enough.
    pub fn reached<'a>(&'a self, checkpoint: &'a SignedCheckpoint) -> Result<Vec<Cosignature<'a>>, QuorumError> {
        self.reached_by(checkpoint.note())
    }

    /// The same for a note whose log's key is not known.
    pub fn reached_by<'a>(&'a self, note: &'a Note) -> Result<Vec<Cosignature<'a>>, QuorumError> {
        let found = of_note(note, &self.witnesses).map_err(QuorumError::Note)?;
        if found.len() < self.threshold {
            return Err(QuorumError::TooFew { threshold: self.threshold, found: found.len() });
        }
        Ok(found)
    }
}

#[cfg(test)]
#[path = "cosignature_tests.rs"]
mod tests;
