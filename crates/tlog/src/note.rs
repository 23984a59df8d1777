//! Signed notes, c2sp.org/signed-note v1: a text, an empty line, and signature lines.
//!
//! A [`Note`] is only parsed. Its text is to be trusted only after [`Note::open`] has found a known key's signature.

use crate::key::{self, KeyId, KeyName, Verifier};
use crate::text::{base64, from_base64};
use std::fmt;

/// The longest note in bytes: as in Go's sumdb/note.
pub const NOTE_BYTES_MAX: usize = 1_000_000;
/// The most signatures of a note: as in Go's sumdb/note. The specification demands at least 16.
pub const SIGNATURES_MAX: usize = 100;
/// "Signature types": Ed25519 over the note's text.
pub const ED25519: u8 = 0x01;

/// A key that signs notes, such as a log's.
pub type SignerKey = key::TypedSignerKey<ED25519>;
/// The public half of a [`SignerKey`].
pub type VerifierKey = key::TypedVerifierKey<ED25519>;

impl Verifier for VerifierKey {
    fn name(&self) -> &KeyName {
        self.name()
    }

    fn id(&self) -> KeyId {
        self.id()
    }

    /// "Ed25519 signatures": RFC 8032 over the note's text.
    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        self.verifies_message(text.as_bytes(), signature)
    }
}

/// A note is not one, or is not signed as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is longer than [`NOTE_BYTES_MAX`].
    #[error("expected a note of at most {NOTE_BYTES_MAX} bytes", NOTE_BYTES_MAX = NOTE_BYTES_MAX)]
    TooLong,
    /// It is not UTF-8.
    #[error("expected a note in UTF-8")]
    NotUtf8,
    /// A control character other than a newline is in it.
    #[error("expected a note without control characters other than newlines")]
    ControlCharacter,
    /// The text does not end with a newline.
    #[error("expected the note's text to end with a newline")]
    TextWithoutEnd,
    /// There is no empty line between a text and signature lines.
    #[error("expected a text, an empty line, and signature lines")]
    NoSignatures,
    /// A signature line is not `— <name> <base64>` with a newline.
    #[error("expected signature line {number} to be a dash (U+2014), a key name and base64, and a newline")]
    SignatureLine {
        /// Its number among the signature lines, from 1.
        number: usize,
    },
    /// It has more than [`SIGNATURES_MAX`] signatures.
    #[error("expected at most {SIGNATURES_MAX} signatures", SIGNATURES_MAX = SIGNATURES_MAX)]
    TooManySignatures,
    /// A known key did not make the signature that bears its name and id.
    #[error("expected a valid signature of {name}, and it is not")]
    InvalidSignature { name: KeyName },
    /// Of the known keys, none signed it.
    #[error("expected the signature of a known key, and there is none")]
    NoKnownSignature,
    /// Two of the known keys have the same name and id.
    #[error("expected known keys to differ, and two of {name} have one id")]
    AmbiguousKeys { name: KeyName },
}

/// One signature line, verified or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl Signature {
    pub(crate) fn new(name: KeyName, id: KeyId, bytes: Vec<u8>) -> Self {
        Self { name, id, bytes }
    }

    /// The name of the key that is said to have made it.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The id of that key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What the key made; its form is up to the key's type.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether its name and id are those of the key.
    pub(crate) fn is_by(&self, key: &(impl Verifier + ?Sized)) -> bool {
        self.id == key.id() && self.name == *key.name()
    }

    /// Reads signature lines, such as a witness answers with.
    pub fn parse_lines(lines: &str) -> Result<Vec<Self>, NoteError> {
        let mut signatures = Vec::new();
        for (index, line) in lines.split_inclusive('\n').enumerate() {
            if index == SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(Self::parse(line).ok_or(NoteError::SignatureLine { number: index + 1 })?);
        }
        Ok(signatures)
    }

    /// Reads one line with its newline.
    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_suffix('\n')?.strip_prefix("— ")?.split_once(' ')?;
        let name = KeyName::parse(name).ok()?;
        let decoded = from_base64(signature)?;
        let (id, bytes) = decoded.split_first_chunk::<4>()?;
        if bytes.is_empty() { None } else { Some(Self { name, id: KeyId(*id), bytes: bytes.to_vec() }) }
    }
}

impl fmt::Display for Signature {
    /// Its line with the newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "— {} {}", self.name, base64(&[&self.id.0, self.bytes.as_slice()].concat()))
    }
}

/// A text with signatures that nobody has verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// Reads a note. The text ends at the last empty line.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotUtf8)?;
        let empty_line = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, lines) = (&note[..=empty_line], &note[empty_line + 2..]);
        check_text(text)?;
        let signatures = Signature::parse_lines(lines)?;
        if signatures.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Signs a text, which ends with a newline.
    pub fn sign(text: &str, key: &SignerKey) -> Result<Self, NoteError> {
        check_text(text)?;
        let signature = key.sign_message(text.as_bytes()).to_vec();
        let mut note = Self { text: text.to_owned(), signatures: Vec::new() };
        note.add(Signature::new(key.name().clone(), key.verifier().id(), signature))?;
        Ok(note)
    }

    /// Adds a signature behind the others, in the place of an older one of the same key. The note is as it was if it cannot.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        let mut signed = self.clone();
        signed.signatures.retain(|other| (&other.name, other.id) != (&signature.name, signature.id));
        signed.signatures.push(signature);
        if signed.signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        if signed.to_string().len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        *self = signed;
        Ok(())
    }

    /// The text, with its last newline, before anyone has verified it.
    pub fn unverified_text(&self) -> &str {
        &self.text
    }

    /// The signatures, known or not, in their order.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The text, if at least one of the known keys signed it, and no signature in the name of a known key is invalid. Signatures
    /// of other keys are ignored ("Signatures").
    pub fn open<V: Verifier>(&self, known: &[V]) -> Result<&str, NoteError> {
        let verified = self.verified_by(known)?;
        if verified.is_empty() { Err(NoteError::NoKnownSignature) } else { Ok(&self.text) }
    }

    /// The same text with the valid signatures of known keys alone, one of each.
    pub(crate) fn only_signed_by<V: Verifier>(&self, known: &[V]) -> Self {
        let mut signatures: Vec<Signature> = Vec::new();
        for signature in &self.signatures {
            let is_valid = known.iter().any(|key| signature.is_by(key) && key.verifies(&self.text, &signature.bytes));
            if is_valid && !signatures.contains(signature) {
                signatures.push(signature.clone());
            }
        }
        Self { text: self.text.clone(), signatures }
    }

    /// Each signature of a known key, with its key, in the note's order; or the first that is invalid.
    pub(crate) fn verified_by<'a, V: Verifier>(
        &'a self,
        known: &'a [V],
    ) -> Result<Vec<(&'a Signature, &'a V)>, NoteError> {
        let mut verified = Vec::new();
        for signature in &self.signatures {
            let mut keys = known.iter().filter(|key| signature.is_by(*key));
            let Some(key) = keys.next() else { continue };
            if keys.next().is_some() {
                return Err(NoteError::AmbiguousKeys { name: signature.name.clone() });
            }
            if !key.verifies(&self.text, &signature.bytes) {
                return Err(NoteError::InvalidSignature { name: signature.name.clone() });
            }
            verified.push((signature, key));
        }
        Ok(verified)
    }
}

impl fmt::Display for Note {
    /// As [`Note::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// "Format": what a note's text must be.
fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::TextWithoutEnd);
    }
    if text.contains(|c: char| c < ' ' && c != '\n') {
        return Err(NoteError::ControlCharacter);
    }
    Ok(())
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
