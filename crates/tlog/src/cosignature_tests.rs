use super::*;
use crate::checkpoint::{Log, SignedCheckpoint};
use crate::note;
use crate::proof::ConsistencyProof;
use crate::text::from_base64;
use crate::tree::TreeHead;
use ed25519_dalek::{Signer as _, SigningKey};

fn name(name: &str) -> KeyName {
    KeyName::parse(name).expect("a name")
}

fn log() -> note::SignerKey {
    note::SignerKey::from_seed(name("example.com/ledger"), &[1; 32]).expect("a key")
}

fn witness(number: u8) -> WitnessSignerKey {
    WitnessSignerKey::from_seed(name(&format!("witness.example/w{number}")), &[number; 32]).expect("a key")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_posix_seconds(seconds).expect("a time")
}

fn checkpoint() -> SignedCheckpoint {
    let proof = ConsistencyProof { path: Vec::new() };
    let head = TreeHead { size: 9, root: [3; 32] };
    SignedCheckpoint::sign(head, &TreeHead::EMPTY, &proof, &log()).expect("any tree grew out of nothing")
}

/// The formula of the specification, with nothing of this file's code.
#[test]
fn a_cosignature_is_the_specifications_formula() {
    let checkpoint = checkpoint();
    let line = cosign(&checkpoint, &witness(2), at(1_679_315_147));
    let message = format!("cosignature/v1\ntime 1679315147\n{}", checkpoint.checkpoint());
    let ed25519 = SigningKey::from_bytes(&[2; 32]).sign(message.as_bytes()).to_bytes();
    assert_eq!(line.bytes(), [&[0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb], ed25519.as_slice()].concat());
    assert_eq!(line.name().as_str(), "witness.example/w2");
    assert!(witness(2).verifier().verifies(checkpoint.text(), line.bytes()));
    assert!(!witness(3).verifier().verifies(checkpoint.text(), line.bytes()));
    assert!(!witness(2).verifier().verifies("another text\n", line.bytes()));
    for place in [0, 7, 8, 71] {
        let mut changed = line.bytes().to_vec();
        changed[place] ^= 1;
        assert!(!witness(2).verifier().verifies(checkpoint.text(), &changed), "{place}");
    }
    for length in [0, 7, 8, 64, 71] {
        assert!(!witness(2).verifier().verifies(checkpoint.text(), &line.bytes()[..length]), "{length}");
    }
}

/// A checkpoint of a public log, as it was served in May 2026, and the keys that this log and one of its witnesses publish. It has
/// a signature of a type that is unknown here, and cosignatures of three more witnesses.
const PUBLIC: &str = "arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
";
const PUBLIC_LOG: &str =
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";
const PUBLIC_WITNESS: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

#[test]
fn a_public_logs_checkpoint_is_opened_and_its_witness_counts() {
    let log = Log::of_key(note::VerifierKey::parse(PUBLIC_LOG).expect("a key"));
    let signed = SignedCheckpoint::parse(PUBLIC.as_bytes(), &log).expect("the log's");
    assert_eq!((signed.head().size, signed.to_string().as_str()), (1_432_088_532, PUBLIC));
    let quorum = Quorum::new(vec![WitnessVerifierKey::parse(PUBLIC_WITNESS).expect("a key")], 1).expect("reachable");
    assert_eq!(quorum.reached(&signed).expect("cosigned")[0].at, at(0x6a12_2120));

    let forged = PUBLIC.replace("1432088532", "1432088533");
    assert!(SignedCheckpoint::parse(forged.as_bytes(), &log).is_err());
    let forged = PUBLIC.replace("2net5wAAAABqEiEg", "2net5wAAAABqEiEh");
    let signed = SignedCheckpoint::parse(forged.as_bytes(), &log).expect("the log's");
    assert!(matches!(quorum.reached(&signed), Err(QuorumError::Note(NoteError::InvalidSignature { .. }))));
}

/// A line from the tests of transparency-dev/formats, and that of the specification: where the time stands.
#[test]
fn the_time_of_published_cosignatures() {
    for (base64, seconds) in [
        (
            "ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXORmnFBOBA==",
            1_727_964_367,
        ),
        (
            "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==",
            1_679_315_147,
        ),
    ] {
        let decoded = from_base64(base64).expect("base64");
        let (time, ed25519) = split_timestamp(&decoded[4..]).expect("a cosignature");
        assert_eq!((time, ed25519.len()), (at(seconds), 64));
    }
}

#[test]
fn a_time_is_neither_zero_nor_above_63_bits() {
    assert_eq!(Timestamp::from_posix_seconds(0), None);
    assert_eq!(Timestamp::from_posix_seconds(1 << 63), None);
    assert_eq!(at((1 << 63) - 1).posix_seconds(), (1 << 63) - 1);
    let checkpoint = checkpoint();
    for seconds in [0_u64, 1 << 63, u64::MAX] {
        let message = format!("cosignature/v1\ntime {seconds}\n{}", checkpoint.text());
        let ed25519 = SigningKey::from_bytes(&[2; 32]).sign(message.as_bytes()).to_bytes();
        let signature = [seconds.to_be_bytes().as_slice(), &ed25519].concat();
        assert!(!witness(2).verifier().verifies(checkpoint.text(), &signature));
    }
}

#[test]
fn an_answer_is_added_to_the_checkpoint() {
    let mut signed = checkpoint();
    let (two, three) = (cosign(&signed, &witness(2), at(5)), cosign(&signed, &witness(3), at(6)));
    let known = [witness(2).verifier().clone(), witness(4).verifier().clone()];
    assert_eq!(collect(&mut signed, &format!("{two}{three}"), &known), Ok(1));
    let cosigned = Cosignature { witness: &known[0], at: at(5) };
    assert_eq!(cosignatures(&signed, &known), Ok(vec![cosigned]));

    // What was collected is part of the note that others read; a newer one takes the older one's place.
    let newer = cosign(&signed, &witness(2), at(7));
    assert_eq!(collect(&mut signed, &newer.to_string(), &known), Ok(1));
    let bytes = signed.to_string().into_bytes();
    let read = SignedCheckpoint::parse(&bytes, &Log::of_key(log().verifier().clone())).expect("the log's");
    assert_eq!(read, signed);
    assert_eq!(cosignatures(&read, &known), Ok(vec![Cosignature { witness: &known[0], at: at(7) }]));

    let before = signed.clone();
    let forged = Signature::new(name("witness.example/w4"), known[1].id(), two.bytes().to_vec());
    let invalid = Err(NoteError::InvalidSignature { name: name("witness.example/w4") });
    assert_eq!(collect(&mut signed, &format!("{two}{forged}"), &known), invalid);
    assert_eq!(collect(&mut signed, "nonsense", &known), Err(NoteError::SignatureLine { number: 1 }));
    assert_eq!(collect(&mut signed, "", &known), Ok(0));
    assert_eq!(signed, before);
}

#[test]
fn a_quorum_counts_keys() {
    let known: Vec<_> = [2, 3, 4].map(|number| witness(number).verifier().clone()).to_vec();
    let quorum = |threshold| Quorum::new(known.clone(), threshold).expect("reachable");
    let mut signed = checkpoint();
    assert_eq!(Quorum::NONE.reached(&signed), Ok(Vec::new()));
    assert_eq!(quorum(1).reached(&signed), Err(QuorumError::TooFew { threshold: 1, found: 0 }));
    let answer = [2, 4, 5].map(|number| cosign(&signed, &witness(number), at(9)).to_string()).concat();
    collect(&mut signed, &answer, &known).expect("valid");
    assert_eq!(quorum(2).reached(&signed).expect("two").len(), 2);
    assert_eq!(quorum(3).reached(&signed), Err(QuorumError::TooFew { threshold: 3, found: 2 }));

    let unreachable = Quorum::new(known.clone(), 4).expect_err("only three");
    assert_eq!(unreachable, QuorumError::Unreachable { threshold: 4, witnesses: 3 });
    let alias = WitnessSignerKey::from_seed(name("alias"), &[3; 32]).expect("a key").verifier().clone();
    let doubled = Quorum::new([known, vec![alias]].concat(), 2).expect_err("one key, two names");
    assert_eq!(doubled, QuorumError::SameKeyTwice { name: name("alias") });
}

/// A note that bears a log's own key in a witness's place counts for nothing.
#[test]
fn a_logs_signature_is_no_cosignature() {
    let signed = checkpoint();
    let same_secret = WitnessSignerKey::from_seed(name("example.com/ledger"), &[1; 32]).expect("a key");
    assert_eq!(cosignatures(&signed, &[same_secret.verifier().clone()]), Ok(Vec::new()));
    // Nor may it be asked for as one: a log that cosigns itself adds no word to its own.
    let quorum = Quorum::new(vec![same_secret.verifier().clone()], 1).expect("reachable");
    let own = quorum.beside(log().verifier()).expect_err("it is the log's");
    assert_eq!(own, QuorumError::LogsOwnKey { name: name("example.com/ledger") });
}
