//! A file is a transparency log proof or it is not: whatever bytes are read as one are written as the same bytes, and prove nothing
//! of a log that did not sign.
//!
//! `make fuzz` runs it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tlog::checkpoint::Log;
use tlog::cosignature::Quorum;
use tlog::key::KeyName;
use tlog::note::SignerKey;
use tlog::receipt::ProofFile;

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let name = KeyName::parse("example.com/behind-the-sofa").expect("a name");
    Log::of_key(SignerKey::from_seed(name, &[7; 32]).expect("a key").verifier().clone())
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(receipt) = ProofFile::parse(bytes) else { return };
    assert_eq!(receipt.to_string().as_bytes(), bytes);
    assert!(receipt.verify(&[0; 32], &LOG, &Quorum::NONE).is_err());
});
