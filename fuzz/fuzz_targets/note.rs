//! Notes, checkpoints and keys have one spelling: whatever bytes are read as one are written as the same bytes; and nothing is
//! opened by a key that did not sign it.
//!
//! `make fuzz` runs it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tlog::checkpoint::{Checkpoint, Log, SignedCheckpoint};
use tlog::cosignature;
use tlog::key::KeyName;
use tlog::note::{self, Note, NoteError, Signature};

/// A key whose signature is in no seed.
static KEY: LazyLock<note::SignerKey> = LazyLock::new(|| {
    let name = KeyName::parse("example.com/behind-the-sofa").expect("a name");
    note::SignerKey::from_seed(name, &[7; 32]).expect("a key")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        assert!(note.open(&[KEY.verifier().clone()]).is_err());
        assert!(SignedCheckpoint::open(note.clone(), &Log::of_key(KEY.verifier().clone())).is_err());
        if let Ok(checkpoint) = Checkpoint::parse(note.unverified_text()) {
            assert_eq!(checkpoint.to_string(), note.unverified_text());
        }
        sign_again(&note);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(lines) = Signature::parse_lines(text) {
        assert_eq!(lines.iter().map(Signature::to_string).collect::<String>(), text);
    }
    if let Ok(key) = note::VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = cosignature::WitnessVerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = note::SignerKey::parse(text) {
        assert_eq!(key.secret_text(), text);
    }
});

/// Any text that was read can be signed, and is read and opened then, beside all the signatures that it had.
fn sign_again(note: &Note) {
    let mut signed = Note::sign(note.unverified_text(), &KEY).expect("the text of a note");
    for signature in note.signatures() {
        match signed.add(signature.clone()) {
            Ok(()) => {}
            Err(NoteError::TooManySignatures | NoteError::TooLong) => return,
            Err(error) => panic!("{error}"),
        }
    }
    let read = Note::parse(signed.to_string().as_bytes()).expect("as it was written");
    assert_eq!(read, signed);
    if signed.signatures().iter().filter(|line| line.id() == KEY.verifier().id()).count() == 1 && note_is_foreign(note)
    {
        assert_eq!(read.open(&[KEY.verifier().clone()]), Ok(note.unverified_text()));
    }
}

fn note_is_foreign(note: &Note) -> bool {
    note.signatures().iter().all(|line| line.id() != KEY.verifier().id() || line.name() != KEY.name())
}
