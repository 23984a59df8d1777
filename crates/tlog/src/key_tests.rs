use super::*;
use crate::{cosignature, note};
use proptest::prelude::*;

const EXAMPLE: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
/// The key pair of the tests of golang.org/x/mod/sumdb/note.
const GO_SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/// A witness's key, from the tests of transparency-dev/formats.
const WITNESS: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

#[test]
fn published_keys_are_read_and_written() {
    for text in [EXAMPLE, GO_PUBLIC, "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6"] {
        assert_eq!(note::VerifierKey::parse(text).expect("a key").to_string(), text);
    }
    let witness = cosignature::WitnessVerifierKey::parse(WITNESS).expect("a key");
    assert_eq!((witness.to_string().as_str(), witness.name().as_str()), (WITNESS, "remora.n621.de"));
    let key = note::SignerKey::parse(GO_SECRET).expect("a key");
    assert_eq!(key.secret_text(), GO_SECRET);
    assert_eq!(key.verifier().to_string(), GO_PUBLIC);
    assert_eq!(key.verifier().id(), KeyId([0xc7, 0x4f, 0x20, 0xa3]));
}

#[test]
fn a_key_is_of_one_type() {
    let expected = |expected, found| KeyError::AnotherType { expected, found };
    assert_eq!(note::VerifierKey::parse(WITNESS).expect_err("a witness's"), expected(1, 4));
    assert_eq!(cosignature::WitnessVerifierKey::parse(GO_PUBLIC).expect_err("a log's"), expected(4, 1));
    assert_eq!(cosignature::WitnessSignerKey::parse(GO_SECRET).expect_err("a log's"), expected(4, 1));
}

#[test]
fn a_secret_is_not_shown_by_accident() {
    let key = note::SignerKey::parse(GO_SECRET).expect("a key");
    assert_eq!(format!("{key:?}"), format!("SignerKey({GO_PUBLIC})"));
}

#[test]
fn other_texts_are_refused() {
    let weak = |point: [u8; 32]| note::VerifierKey::new(KeyName::parse("x").expect("a name"), &point);
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(weak(identity), Err(KeyError::Point));
    assert_eq!(weak([0; 32]), Err(KeyError::Point));
    assert_eq!(weak([2; 32]), Err(KeyError::Point));
    for (text, fault) in [
        ("", KeyError::NotAVerifierKey),
        ("name", KeyError::NotAVerifierKey),
        ("name+530d903a", KeyError::NotAVerifierKey),
        ("name+530d903a+", KeyError::NotAVerifierKey),
        ("name+530d903a+AQ==", KeyError::NotAVerifierKey),
        ("name+530d903a+!", KeyError::NotAVerifierKey),
        (&format!("{EXAMPLE}\n"), KeyError::NotAVerifierKey),
        (&EXAMPLE.replace("example.com", ""), KeyError::Id),
        (&EXAMPLE.replace("example.com/foo", ""), KeyError::Name),
        (&EXAMPLE.replace("example.com", "example com"), KeyError::Name),
        (&EXAMPLE.replace("530d903a", "530D903A"), KeyError::Id),
        (&EXAMPLE.replace("530d903a", "530d903"), KeyError::Id),
        (&EXAMPLE.replace("530d903a", "00000000"), KeyError::Id),
        (&EXAMPLE.replace("example", &"x".repeat(256)), KeyError::NameTooLong),
    ] {
        assert_eq!(note::VerifierKey::parse(text).expect_err(text), fault, "{text}");
    }
    for text in ["", GO_PUBLIC, "PRIVATE+KEY+", "PRIVATE+KEY+PeterNeumann+c74f20a3"] {
        assert_eq!(note::SignerKey::parse(text).expect_err(text), KeyError::NotASignerKey, "{text}");
    }
    let wrong_id = GO_SECRET.replace("c74f20a3", "c74f20a4");
    assert_eq!(note::SignerKey::parse(&wrong_id).expect_err("another id"), KeyError::Id);
}

#[test]
fn names_are_those_of_the_specification() {
    for name in ["x", "example.com/ledger", "é", "a/b-c_d~"] {
        assert!(KeyName::parse(name).is_ok(), "{name}");
    }
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\u{2003}b", "a\u{3000}", "a\n", "\u{1}"] {
        assert_eq!(KeyName::parse(name), Err(KeyError::Name), "{name:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn keys_are_read_as_they_are_written(name in "[a-z./é]{1,20}", seed: [u8; 32]) {
        let name = KeyName::parse(&name).expect("a name");
        let key = cosignature::WitnessSignerKey::from_seed(name.clone(), &seed).expect("a key");
        let again = cosignature::WitnessSignerKey::parse(&key.secret_text()).expect("a key");
        prop_assert_eq!(again.verifier(), key.verifier());
        prop_assert_eq!(&cosignature::WitnessVerifierKey::parse(&key.verifier().to_string()).expect("a key"), key.verifier());
        let log = note::SignerKey::from_seed(name, &seed).expect("a key");
        prop_assert_eq!(log.verifier().public_key(), key.verifier().public_key());
        prop_assert_ne!(log.verifier().id(), key.verifier().id());
    }

    #[test]
    fn any_text_is_judged(text in "(PRIVATE\\+KEY\\+)?\\PC{0,20}(\\+[0-9a-f]{8}\\+[A-Za-z0-9+/=]{0,44})?") {
        let _ = (note::VerifierKey::parse(&text), note::SignerKey::parse(&text));
    }
}
