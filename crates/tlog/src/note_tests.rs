use super::*;
use proptest::prelude::*;
use signed_note::{Note as OtherNote, StandardSigner, StandardVerifier, VerifierList};

const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

/// The keys and notes of the tests of golang.org/x/mod/sumdb/note.
const GO_SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_KEYS: [&str; 2] = [
    "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
];
const GO_TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const GO_SIGNATURES: [&str; 2] = [
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n",
];

fn key(text: &str) -> VerifierKey {
    VerifierKey::parse(text).expect("a key")
}

fn parse(text: &str) -> Note {
    Note::parse(text.as_bytes()).expect("a note")
}

fn signer(name: &str, seed: u8) -> SignerKey {
    SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[seed; 32]).expect("a key")
}

#[test]
fn the_published_notes_are_opened_and_written() {
    let note = parse(EXAMPLE);
    assert_eq!(note.open(&[key(EXAMPLE_KEY)]), Ok("This is an example message.\n"));
    assert_eq!(note.to_string(), EXAMPLE);

    let signed = format!("{GO_TEXT}\n{}{}", GO_SIGNATURES[0], GO_SIGNATURES[1]);
    let note = parse(&signed);
    assert_eq!(note.to_string(), signed);
    for known in [vec![key(GO_KEYS[0])], vec![key(GO_KEYS[1])], GO_KEYS.map(key).to_vec()] {
        assert_eq!(note.open(&known), Ok(GO_TEXT));
    }
    assert_eq!(note.open(&[key(EXAMPLE_KEY)]), Err(NoteError::NoKnownSignature));
    assert_eq!(note.open::<VerifierKey>(&[]), Err(NoteError::NoKnownSignature));
}

#[test]
fn a_signature_is_that_of_go() {
    let secret = SignerKey::parse(GO_SECRET).expect("a key");
    let note = Note::sign(GO_TEXT, &secret).expect("a text");
    assert_eq!(note.to_string(), format!("{GO_TEXT}\n{}", GO_SIGNATURES[0]));
}

/// The text of the specification's introduction: the last empty line ends it.
#[test]
fn a_text_may_have_empty_lines() {
    let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n";
    let signature = "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = parse(&format!("{text}\n{signature}"));
    assert_eq!(note.unverified_text(), text);
    assert_eq!(note.signatures()[0].id(), KeyId([0x36, 0x7b, 0xa0, 0x4b]));
    assert_eq!(note.signatures()[0].bytes().len(), 64);
    assert_eq!(parse(&format!("a\n\n\n{signature}")).unverified_text(), "a\n\n");
    assert_eq!(parse(&format!("\n\n{signature}")).unverified_text(), "\n");
}

#[test]
fn a_known_key_must_have_signed_and_its_signature_be_valid() {
    let forged = EXAMPLE.replace("example message", "forged message");
    let name = KeyName::parse("example.com/foo").expect("a name");
    let invalid = Err(NoteError::InvalidSignature { name: name.clone() });
    assert_eq!(parse(&forged).open(&[key(EXAMPLE_KEY)]), invalid);

    // A valid signature of one known key does not make up for an invalid one of another.
    let mut note = Note::sign("forged\n", &signer("other", 1)).expect("a text");
    note.add(parse(EXAMPLE).signatures()[0].clone()).expect("room");
    let other = signer("other", 1).verifier().clone();
    assert_eq!(note.open(std::slice::from_ref(&other)), Ok("forged\n"));
    assert_eq!(note.open(&[other, key(EXAMPLE_KEY)]), invalid);

    // The same name with another id, and the same id under another name, are other keys.
    let namesake = signer("example.com/foo", 2).verifier().clone();
    assert_eq!(parse(EXAMPLE).open(&[namesake]), Err(NoteError::NoKnownSignature));
    let twice = [key(EXAMPLE_KEY), key(EXAMPLE_KEY)];
    assert_eq!(parse(EXAMPLE).open(&twice), Err(NoteError::AmbiguousKeys { name }));
}

#[test]
fn a_note_has_up_to_a_hundred_signatures_and_one_of_each_key() {
    let mut note = Note::sign("text\n", &signer("key", 0)).expect("a text");
    for seed in 1..100 {
        let other = Note::sign("text\n", &signer("key", seed)).expect("a text");
        note.add(other.signatures()[0].clone()).expect("room");
    }
    assert_eq!(parse(&note.to_string()), note);
    let last = signer("key", 99).verifier().clone();
    assert_eq!(note.open(&[last]), Ok("text\n"));
    let more = Note::sign("text\n", &signer("key", 100)).expect("a text").signatures()[0].clone();
    let before = note.clone();
    assert_eq!(note.add(more.clone()), Err(NoteError::TooManySignatures));
    assert_eq!(note, before);
    assert_eq!(Note::parse(format!("{note}{more}").as_bytes()), Err(NoteError::TooManySignatures));
    note.add(before.signatures()[0].clone()).expect("in its own place");
    assert_eq!(note.signatures().len(), 100);
    assert_eq!(note.signatures().last(), before.signatures().first());
}

#[test]
fn other_bytes_are_refused() {
    let signature = GO_SIGNATURES[0];
    for (bytes, fault) in [
        (String::new(), NoteError::NoSignatures),
        ("text\n".to_owned(), NoteError::NoSignatures),
        ("text\n\n".to_owned(), NoteError::NoSignatures),
        (format!("text\n{signature}"), NoteError::NoSignatures),
        (format!("\n{signature}"), NoteError::NoSignatures),
        (format!("te\txt\n\n{signature}"), NoteError::ControlCharacter),
        (format!("te\rxt\n\n{signature}"), NoteError::ControlCharacter),
        (format!("te\0xt\n\n{signature}"), NoteError::ControlCharacter),
        (format!("text\n\n{}", signature.trim_end()), NoteError::SignatureLine { number: 1 }),
        (format!("text\n\n{signature}text\n"), NoteError::SignatureLine { number: 2 }),
        (format!("text\n\n{}", signature.replace('—', "-")), NoteError::SignatureLine { number: 1 }),
        (format!("text\n\n{}", signature.replace("— ", "—")), NoteError::SignatureLine { number: 1 }),
        (format!("text\n\n{}", signature.replace("PeterNeumann", "")), NoteError::SignatureLine { number: 1 }),
        (format!("text\n\n{}", signature.replace("PeterNeumann", "Peter+N")), NoteError::SignatureLine { number: 1 }),
        (format!("text\n\n{}", signature.replace("nAM=", "nAN=")), NoteError::SignatureLine { number: 1 }),
        (format!("text\n\n{}", signature.replace('=', "")), NoteError::SignatureLine { number: 1 }),
        ("text\n\n— name AAAAAA==\n".to_owned(), NoteError::SignatureLine { number: 1 }),
        ("text\n\n— name\n".to_owned(), NoteError::SignatureLine { number: 1 }),
        (format!("{}\n\n{signature}", "x".repeat(NOTE_BYTES_MAX)), NoteError::TooLong),
    ] {
        assert_eq!(Note::parse(bytes.as_bytes()), Err(fault), "{bytes:?}");
    }
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::NotUtf8));
    assert!(Note::parse("text\n\n— name AAAAAAA=\n".as_bytes()).is_ok());
    assert_eq!(Note::sign("text", &signer("key", 1)), Err(NoteError::TextWithoutEnd));
    assert_eq!(Note::sign("te\u{1}xt\n", &signer("key", 1)), Err(NoteError::ControlCharacter));
    assert_eq!(Note::sign(&format!("{}\n", "x".repeat(NOTE_BYTES_MAX)), &signer("key", 1)), Err(NoteError::TooLong));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_implementations_read_each_others_notes(text in "(\\PC{0,20}\n){1,4}", name in "[a-z./é]{1,12}", seed: [u8; 32]) {
        let ours = SignerKey::from_seed(KeyName::parse(&name).expect("a name"), &seed).expect("a key");
        let note = Note::sign(&text, &ours).expect("a text");

        let theirs = StandardSigner::new(&ours.secret_text()).expect("a key");
        let mut other = OtherNote::new(text.as_bytes(), &[]).expect("a text");
        other.add_sigs(&[&theirs]).expect("signed");
        prop_assert_eq!(other.to_bytes(), note.to_string().into_bytes());

        let verifier = StandardVerifier::new(&ours.verifier().to_string()).expect("a key");
        let read = OtherNote::from_bytes(note.to_string().as_bytes()).expect("a note");
        prop_assert_eq!(read.verify(&VerifierList::new(vec![Box::new(verifier)])).expect("signed").0.len(), 1);
    }

    /// Whatever this reader takes, the other takes too, and as the same.
    #[test]
    fn any_bytes_are_judged(text in "(\\PC{0,4}\n?){0,4}\n?(\n— [a-z+]{0,3} [A-Za-z0-9/+]{4,10}={0,2}\n?){0,3}") {
        let Ok(note) = Note::parse(text.as_bytes()) else { return Ok(()) };
        prop_assert_eq!(note.to_string(), text.as_str());
        let other = OtherNote::from_bytes(text.as_bytes()).expect("the other reader takes it");
        prop_assert_eq!(other.text(), note.unverified_text().as_bytes());
    }

    #[test]
    fn a_changed_bit_is_noticed(place in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        bytes[place.index(EXAMPLE.len())] ^= 1 << bit;
        let opened = Note::parse(&bytes).map(|note| note.open(&[key(EXAMPLE_KEY)]).map(str::to_owned));
        prop_assert!(!matches!(opened, Ok(Ok(_))));
    }
}
