//! Known tree roots: parses the text of a checkpoint (c2sp.org/tlog-checkpoint) with origin, size and root.

use tlog::checkpoint::SignedCheckpoint;
use tlog::note::VerifierKey;

/// A tree that somebody vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRoot {
    /// How many leaves it has.
    pub size: u64,
    pub root: Vec<u8>,
    /// Where this is known from.
    pub source: String,
    /// Its signature by the log's key was verified.
    pub is_signed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCheckpoint {
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    pub root: Vec<u8>,
}

/// Whose signature counts. Without a key none does, and a checkpoint is taken at its word.
#[derive(Clone, Debug, Default)]
pub struct Signer(Option<VerifierKey>);

impl Signer {
    /// Nobody's signature is known.
    pub const UNKNOWN: Signer = Signer(None);

    /// This key's, also under the names that the log took after declared losses: `name/2`, `name/3`, …
    pub fn of(key: VerifierKey) -> Self {
        Self(Some(key))
    }

    pub fn key(&self) -> Option<&VerifierKey> {
        self.0.as_ref()
    }

    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Reads a checkpoint note, and checks its signature if the log's key is known.
    ///
    /// # Errors
    /// A sentence that says what is not as it must be.
    pub fn open(&self, note: &str) -> Result<KnownCheckpoint, String> {
        let Some(key) = &self.0 else {
            // Only the first lines matter here; a text without signatures will do.
            let text = note.split_once("\n\n").map_or(note, |(text, _)| text);
            let said = tlog::checkpoint::Checkpoint::parse(&format!("{}\n", text.trim_end_matches('\n')));
            return said.map(|said| KnownCheckpoint::of(&said)).map_err(|error| error.to_string());
        };
        let signed = SignedCheckpoint::parse_in_any_epoch(note.as_bytes(), key).map_err(|error| error.to_string())?;
        Ok(KnownCheckpoint::of(signed.checkpoint()))
    }
}

impl KnownCheckpoint {
    fn of(said: &tlog::checkpoint::Checkpoint) -> Self {
        let head = said.head();
        Self { origin: said.origin().to_string(), size: head.size, root: head.root.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog::key::KeyName;
    use tlog::note::{Note, SignerKey};

    const ROOT: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    fn key(name: &str, seed: u8) -> SignerKey {
        SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[seed; 32]).expect("a key")
    }

    #[test]
    fn without_a_key_a_checkpoint_is_taken_at_its_word() {
        let text = format!("example.com/log\n17\n{ROOT}\n");
        let expected = KnownCheckpoint { origin: "example.com/log".to_owned(), size: 17, root: vec![7; 32] };
        assert_eq!(Signer::UNKNOWN.open(&text), Ok(expected.clone()));
        let signed = Note::sign(&text, &key("example.com/log", 1)).expect("a note");
        assert_eq!(Signer::UNKNOWN.open(&signed.to_string()), Ok(expected));
        for bad in ["", "x\n-1\n", "x\n1\nAAAA\n", "\n1\n", "x\n\n"] {
            assert!(Signer::UNKNOWN.open(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn with_a_key_only_its_own_signature_counts_also_after_a_declared_loss() {
        let signer = Signer::of(key("example.com/log", 1).verifier().clone());
        let note_of = |name: &str, seed| {
            let text = format!("{name}\n17\n{ROOT}\n");
            Note::sign(&text, &key(name, seed)).expect("a note").to_string()
        };
        assert!(signer.open(&note_of("example.com/log", 1)).is_ok());
        assert!(signer.open(&note_of("example.com/log/2", 1)).is_ok());
        for forged in [note_of("example.com/log", 2), note_of("example.com/log/2", 2), note_of("example.com/other", 1)]
        {
            assert!(signer.open(&forged).is_err(), "{forged}");
        }
    }
}
