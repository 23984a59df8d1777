//! Checkpoints, c2sp.org/tlog-checkpoint v1: a signed note with the log's origin, its size and its root.

use crate::key::KeyName;
use crate::note::{Note, NoteError, Signature, SignerKey, VerifierKey};
use crate::proof::{ConsistencyProof, ProofError};
use crate::text::{base64, decimal, hash};
use crate::tree::TreeHead;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A log's identity: the first line of its checkpoints. It is not empty and one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

impl Origin {
    /// An origin, best a URL without its scheme, such as `example.com/ledger`.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let possible = !text.is_empty() && !text.contains(|c: char| c < ' ');
        if possible { Ok(Self(text.to_owned())) } else { Err(CheckpointError::Origin) }
    }

    /// The line, without its newline.
    /// SHA-256 in small hexadecimal digits: how the origin stands in the address of a witness.
    pub fn sha256_hex(&self) -> String {
        Sha256::digest(&self.0).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&KeyName> for Origin {
    /// "The log's key name in its signature line SHOULD match the origin line."
    fn from(name: &KeyName) -> Self {
        Self(name.as_str().to_owned())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A note is not a checkpoint, or not one of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The text has fewer than three lines, or an empty one.
    #[error("expected a checkpoint of at least three lines, none of them empty")]
    Lines,
    /// The origin is empty, or has a control character in it.
    #[error("expected an origin without control characters")]
    Origin,
    /// The second line is not a decimal number below 2^64 without leading zeros.
    #[error("expected the tree's size, a decimal number below 2^64, in line 2")]
    Size,
    /// The third line is not 32 bytes in base64.
    #[error("expected the tree's root, 32 bytes in base64, in line 3")]
    Root,
    /// It is a checkpoint of another log.
    #[error("expected a checkpoint of the log {expected}, found one of {found}")]
    AnotherOrigin { expected: Origin, found: Origin },
    /// The note is none, or not signed by the log.
    #[error(transparent)]
    Note(NoteError),
}

impl From<NoteError> for CheckpointError {
    fn from(error: NoteError) -> Self {
        CheckpointError::Note(error)
    }
}

/// What a checkpoint's text says ("Note text").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: Origin,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// The checkpoint of a tree, without extension lines.
    pub fn new(origin: Origin, head: TreeHead) -> Self {
        Self { origin, head, extensions: Vec::new() }
    }

    /// Reads a note's text.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Lines);
        };
        let origin = Origin::parse(origin)?;
        let size = decimal(size).ok_or(CheckpointError::Size)?;
        let root = hash(root).ok_or(CheckpointError::Root)?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Lines);
        }
        Ok(Self { origin, head: TreeHead { size, root }, extensions })
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its size and its root.
    pub fn head(&self) -> TreeHead {
        self.head
    }

    /// Lines that a log may add, and whose meaning nobody vouches for.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    /// The note's text, as [`Checkpoint::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, base64(&self.head.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A log as a verifier knows it, beforehand and not from the log: its origin, and the keys of which one signs.
#[derive(Clone, Debug)]
pub struct Log {
    origin: Origin,
    keys: Vec<VerifierKey>,
}

impl Log {
    /// The log whose key has the log's own name, as it should.
    pub fn of_key(key: VerifierKey) -> Self {
        Self { origin: Origin::from(key.name()), keys: vec![key] }
    }

    /// A log with any keys, such as one that changes its key.
    pub fn new(origin: Origin, keys: Vec<VerifierKey>) -> Self {
        Self { origin, keys }
    }

    /// The first line of its checkpoints.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// A checkpoint that its log signed: it was signed here, or the signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Signs a tree as the log whose origin is the key's name, after the proof that it grew out of the last tree which that log
    /// signed: "a log MUST not sign any checkpoint which is inconsistent with any checkpoint it previously signed". For the first
    /// one, that is [`TreeHead::EMPTY`] and an empty proof.
    pub fn sign(
        head: TreeHead,
        last: &TreeHead,
        proof: &ConsistencyProof,
        key: &SignerKey,
    ) -> Result<Self, ProofError> {
        proof.verify(last, &head)?;
        let checkpoint = Checkpoint::new(Origin::from(key.name()), head);
        let note = Note::sign(&checkpoint.to_string(), key).expect("three lines, and a key's name is short");
        Ok(Self { note, checkpoint })
    }

    /// Takes a note for what it says, if the log signed it.
    pub fn open(note: Note, log: &Log) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::parse(note.unverified_text())?;
        if checkpoint.origin != log.origin {
            let (expected, found) = (log.origin.clone(), checkpoint.origin);
            return Err(CheckpointError::AnotherOrigin { expected, found });
        }
        note.open(&log.keys)?;
        Ok(Self { note, checkpoint })
    }

    /// Reads a note and opens it.
    pub fn parse(bytes: &[u8], log: &Log) -> Result<Self, CheckpointError> {
        Self::open(Note::parse(bytes)?, log)
    }

    /// Reads a note of the log that had this key when it began, and opens it: after a declared loss the log goes on as `name/2`,
    /// then `name/3`, with the same key under that name.
    pub fn parse_in_any_epoch(bytes: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        let origin = note.unverified_text().lines().next().unwrap_or_default();
        let first = key.name().as_str();
        let is_later = origin.strip_prefix(first).is_some_and(|rest| rest.starts_with('/'));
        let name = KeyName::parse(origin).ok().filter(|_| is_later);
        let later = name.and_then(|name| VerifierKey::new(name, key.public_key()).ok());
        let key = later.unwrap_or_else(|| key.clone());
        Self::open(note, &Log::of_key(key))
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The tree it vouches for.
    pub fn head(&self) -> TreeHead {
        self.checkpoint.head
    }

    /// The note, with all its signatures.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// The text with the lines of the log's own keys alone. Anybody can add a line in any other name, which need not be valid, and which
    /// whoever knows that name later would stumble over.
    #[must_use]
    pub fn without_strangers(&self, log: &Log) -> Self {
        let own = self.note.only_signed_by(&log.keys);
        Self { note: own, checkpoint: self.checkpoint.clone() }
    }

    pub fn text(&self) -> &str {
        self.note.unverified_text()
    }

    pub(crate) fn add(&mut self, cosignature: Signature) -> Result<(), NoteError> {
        self.note.add(cosignature)
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
