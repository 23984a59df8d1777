use super::*;
use proptest::prelude::*;

/// tlog-checkpoint's own example, whose key is not published.
const EXAMPLE: &str = "example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
";
const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

fn key(name: &str) -> SignerKey {
    SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[7; 32]).expect("a key")
}

fn first(head: TreeHead, key: &SignerKey) -> SignedCheckpoint {
    let proof = ConsistencyProof { path: Vec::new() };
    SignedCheckpoint::sign(head, &TreeHead::EMPTY, &proof, key).expect("any tree grew out of nothing")
}

#[test]
fn the_published_checkpoint_is_read_and_written() {
    let note = Note::parse(EXAMPLE.as_bytes()).expect("a note");
    let checkpoint = Checkpoint::parse(note.unverified_text()).expect("a checkpoint");
    assert_eq!(checkpoint.origin().as_str(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.head(), TreeHead { size: 20_852_163, root: hash(ROOT).expect("a root") });
    assert_eq!(checkpoint.extensions().len(), 0);
    assert_eq!(checkpoint.to_string(), note.unverified_text());
    let unknown = SignedCheckpoint::open(note, &Log::of_key(key("example.com/behind-the-sofa").verifier().clone()));
    assert_eq!(unknown, Err(CheckpointError::Note(NoteError::NoKnownSignature)));
}

#[test]
fn other_texts_are_refused() {
    for (text, fault) in [
        (String::new(), CheckpointError::Lines),
        ("a\n".to_owned(), CheckpointError::Lines),
        (format!("a\n1\n{ROOT}"), CheckpointError::Lines),
        ("a\n1\n".to_owned(), CheckpointError::Lines),
        (format!("a\n1\n{ROOT}\n\n"), CheckpointError::Lines),
        (format!("a\n1\n{ROOT}\n\nx\n"), CheckpointError::Lines),
        (format!("\n1\n{ROOT}\n"), CheckpointError::Origin),
        (format!("a\tb\n1\n{ROOT}\n"), CheckpointError::Origin),
        (format!("a\n\n{ROOT}\n"), CheckpointError::Size),
        (format!("a\n01\n{ROOT}\n"), CheckpointError::Size),
        (format!("a\n+1\n{ROOT}\n"), CheckpointError::Size),
        (format!("a\n-1\n{ROOT}\n"), CheckpointError::Size),
        (format!("a\n1 \n{ROOT}\n"), CheckpointError::Size),
        (format!("a\n18446744073709551616\n{ROOT}\n"), CheckpointError::Size),
        ("a\n1\n\n".to_owned(), CheckpointError::Root),
        ("a\n1\nAAAA\n".to_owned(), CheckpointError::Root),
        (format!("a\n1\n{ROOT}=\n"), CheckpointError::Root),
        (format!("a\n1\n {ROOT}\n"), CheckpointError::Root),
        (format!("a\n1\n{}\n", ROOT.replace("q2I=", "q2J=")), CheckpointError::Root),
    ] {
        assert_eq!(Checkpoint::parse(&text), Err(fault), "{text:?}");
    }
    let extended = format!("an origin + spaces\n0\n{ROOT}\none\ntwo\n");
    let checkpoint = Checkpoint::parse(&extended).expect("extension lines are allowed");
    assert_eq!(checkpoint.extensions(), ["one", "two"]);
    assert_eq!(checkpoint.to_string(), extended);
}

#[test]
fn a_log_signs_only_what_grew_out_of_its_last_tree() {
    let key = key("example.com/ledger");
    let proof = ConsistencyProof { path: Vec::new() };
    let head = |size, byte| TreeHead { size, root: [byte; 32] };
    let sign =
        |new: TreeHead, last: TreeHead| SignedCheckpoint::sign(new, &last, &proof, &key).map(|signed| signed.head());
    assert_eq!(sign(head(3, 1), TreeHead::EMPTY), Ok(head(3, 1)));
    assert_eq!(sign(head(3, 1), head(3, 1)), Ok(head(3, 1)));
    assert_eq!(sign(head(3, 2), head(3, 1)), Err(ProofError::AnotherRoot));
    assert_eq!(sign(head(2, 1), head(3, 1)), Err(ProofError::OldLargerThanNew));
    assert_eq!(sign(head(4, 2), head(3, 1)), Err(ProofError::TooShort));
}

#[test]
fn a_checkpoint_is_opened_by_its_log_alone() {
    let (ours, others) = (key("example.com/ledger"), key("example.com/other"));
    let signed = first(TreeHead { size: 5, root: [1; 32] }, &ours);
    let bytes = signed.to_string().into_bytes();
    let log = Log::of_key(ours.verifier().clone());
    assert_eq!(SignedCheckpoint::parse(&bytes, &log), Ok(signed.clone()));

    let origin = |name: &str| Origin::parse(name).expect("an origin");
    let another =
        CheckpointError::AnotherOrigin { expected: origin("example.com/other"), found: origin("example.com/ledger") };
    assert_eq!(SignedCheckpoint::parse(&bytes, &Log::of_key(others.verifier().clone())), Err(another.clone()));
    // A log may not speak for another, though its own key signed.
    let usurper = Log::new(origin("example.com/other"), vec![ours.verifier().clone()]);
    assert_eq!(SignedCheckpoint::parse(&bytes, &usurper), Err(another));
    let changed_key = Log::new(origin("example.com/ledger"), vec![others.verifier().clone(), ours.verifier().clone()]);
    assert_eq!(SignedCheckpoint::parse(&bytes, &changed_key), Ok(signed));
    let unknown = Log::new(origin("example.com/ledger"), vec![others.verifier().clone()]);
    assert_eq!(SignedCheckpoint::parse(&bytes, &unknown), Err(CheckpointError::Note(NoteError::NoKnownSignature)));
}

proptest! {
    #[test]
    fn checkpoints_are_read_as_they_are_written(origin in "\\PC{1,30}", size: u64, root: [u8; 32]) {
        let checkpoint = Checkpoint::new(Origin::parse(&origin).expect("an origin"), TreeHead { size, root });
        prop_assert_eq!(Checkpoint::parse(&checkpoint.to_string()), Ok(checkpoint));
    }

    #[test]
    fn any_text_is_judged(text in "(\\PC{0,3}\n){0,2}[0-9]{0,21}\n?[A-Za-z0-9+/]{43}=\n(\\PC{0,3}\n){0,2}") {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }
}
