use super::*;
use crate::cosignature::{collect, cosignatures};
use crate::key::KeyName;
use crate::naive::{leaves, naive_consistency, naive_root};
use crate::note::SignerKey;
use crate::tree::Hash;
use proptest::prelude::*;

const EXAMPLE: &str = "old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
";

fn key(name: &str, seed: u8) -> SignerKey {
    SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[seed; 32]).expect("a key")
}

fn witness() -> cosignature::WitnessSignerKey {
    let name = KeyName::parse("witness.example/w1").expect("a name");
    cosignature::WitnessSignerKey::from_seed(name, &[9; 32]).expect("a key")
}

fn head(size: usize) -> TreeHead {
    TreeHead { size: size as u64, root: naive_root(&leaves(size)) }
}

fn signed(head: TreeHead) -> SignedCheckpoint {
    let first = ConsistencyProof { path: Vec::new() };
    SignedCheckpoint::sign(head, &TreeHead::EMPTY, &first, &key("log", 1)).expect("any tree grew out of nothing")
}

/// The body that an honest log sends.
fn request(old: usize, new: usize) -> AddCheckpoint {
    let proof = ConsistencyProof { path: naive_consistency(old, &leaves(new)) };
    AddCheckpoint::new(old as u64, proof, &signed(head(new))).expect("a short proof")
}

fn logs() -> [Log; 2] {
    [Log::of_key(key("other", 2).verifier().clone()), Log::of_key(key("log", 1).verifier().clone())]
}

fn answer(request: &AddCheckpoint, latest: Option<TreeHead>) -> Result<TreeHead, CosignRefusal> {
    let request = AddCheckpoint::parse(request.to_string().as_bytes()).expect("as it was written");
    let accepted = request.authenticate(&logs())?.judge(latest)?;
    Ok(accepted.checkpoint().head())
}

#[test]
fn the_published_request_is_read_and_written() {
    let request = AddCheckpoint::parse(EXAMPLE.as_bytes()).expect("a request");
    assert_eq!((request.old_size, request.proof.path.len()), (20_852_014, 4));
    assert_eq!(request.note.signatures().len(), 2);
    assert_eq!(request.to_string(), EXAMPLE);
    let refusal = request.authenticate(&logs()).expect_err("the log is unknown");
    assert_eq!((refusal.status(), refusal.to_string().contains("behind-the-sofa")), (404, true));
}

#[test]
fn other_bodies_are_refused() {
    let checkpoint = EXAMPLE.split_once("\n\n").expect("an empty line").1;
    let line = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
    for (body, fault) in [
        (String::new(), BadRequest::NoCheckpoint),
        ("old 1\n".to_owned(), BadRequest::NoCheckpoint),
        (format!("\n\n{checkpoint}"), BadRequest::OldSize),
        (format!("{line}\n{checkpoint}"), BadRequest::OldSize),
        (format!("old\n\n{checkpoint}"), BadRequest::OldSize),
        (format!("old 01\n\n{checkpoint}"), BadRequest::OldSize),
        (format!("old -1\n\n{checkpoint}"), BadRequest::OldSize),
        (format!("old  1\n\n{checkpoint}"), BadRequest::OldSize),
        (format!("old 1 \n\n{checkpoint}"), BadRequest::OldSize),
        (format!("old 18446744073709551616\n\n{checkpoint}"), BadRequest::OldSize),
        (format!("old 1\r\n{line}\n{checkpoint}"), BadRequest::OldSize),
        (format!("old 1\nAAAA\n\n{checkpoint}"), BadRequest::ProofLine { number: 1 }),
        (format!("old 1\n{line} {line}\n{checkpoint}"), BadRequest::ProofLine { number: 2 }),
        (format!("old 1\n{}\n{checkpoint}", line.repeat(64)), BadRequest::TooManyProofLines),
        ("old 1\n\n".to_owned(), BadRequest::Note(NoteError::NoSignatures)),
        (
            format!("old 1\n\n{}", checkpoint.split_once("\n\n").expect("two").0),
            BadRequest::Note(NoteError::NoSignatures),
        ),
        ("x".repeat(REQUEST_BYTES_MAX + 1), BadRequest::TooLong),
    ] {
        assert_eq!(AddCheckpoint::parse(body.as_bytes()), Err(fault), "{body:.200}");
    }
    assert_eq!(AddCheckpoint::parse(b"old \xff"), Err(BadRequest::NotUtf8));
    assert!(AddCheckpoint::parse(format!("old 1\n{}\n{checkpoint}", line.repeat(63)).as_bytes()).is_ok());
    let too_long = ConsistencyProof { path: vec![[0; 32]; 64] };
    assert_eq!(AddCheckpoint::new(1, too_long, &signed(head(2))), Err(BadRequest::TooManyProofLines));
}

#[test]
fn an_honest_log_is_cosigned() {
    assert_eq!(answer(&request(0, 7), None), Ok(head(7)));
    assert_eq!(answer(&request(7, 20), Some(head(7))), Ok(head(20)));
    assert_eq!(answer(&request(20, 20), Some(head(20))), Ok(head(20)));
    assert_eq!(answer(&request(0, 0), None), Ok(TreeHead::EMPTY));
    assert_eq!(answer(&request(0, 0), Some(TreeHead::EMPTY)), Ok(TreeHead::EMPTY));
    assert_eq!(answer(&request(0, 3), Some(TreeHead::EMPTY)), Ok(head(3)));

    let accepted = request(7, 20).authenticate(&logs()).and_then(|request| request.judge(Some(head(7))));
    let at = Timestamp::from_posix_seconds(1_679_315_147).expect("a time");
    let line = accepted.expect("honest").cosign(&witness(), at).to_string();
    let mut checkpoint = signed(head(20));
    let known = [witness().verifier().clone()];
    assert_eq!(collect(&mut checkpoint, &line, &known), Ok(1));
    assert_eq!(cosignatures(&checkpoint, &known).expect("valid")[0].at, at);
}

/// Each request is wrong in everything that is checked from some check on; the first of these checks answers.
#[test]
fn the_checks_come_in_the_specifications_order() {
    let bad_proof = ConsistencyProof { path: vec![[7; 32]; 3] };
    let with =
        |old, checkpoint: &SignedCheckpoint| AddCheckpoint::new(old, bad_proof.clone(), checkpoint).expect("short");
    let first = ConsistencyProof { path: Vec::new() };
    let sign = |name, seed| SignedCheckpoint::sign(head(8), &TreeHead::EMPTY, &first, &key(name, seed)).expect("grown");
    let latest = Some(head(6));

    let malformed = Note::sign("log\n8\nnonsense\n", &key("log", 1)).expect("a text");
    let malformed = AddCheckpoint { old_size: 9, proof: bad_proof.clone(), note: malformed };
    assert_eq!(answer(&malformed, latest).expect_err("no root"), CosignRefusal::Malformed(CheckpointError::Root));

    let unknown = answer(&with(9, &sign("unknown", 1)), latest).expect_err("unknown log");
    assert_eq!((unknown.status(), matches!(unknown, CosignRefusal::UnknownLog { .. })), (404, true));

    for checkpoint in [sign("log", 3), sign("other", 3)] {
        let unsigned = answer(&with(9, &checkpoint), latest).expect_err("another key");
        let expected = CosignRefusal::Signature(CheckpointError::Note(NoteError::NoKnownSignature));
        assert_eq!((unsigned.status(), unsigned), (403, expected));
    }

    let reversed = answer(&with(9, &sign("log", 1)), latest).expect_err("reversed");
    assert_eq!((reversed.status(), reversed), (400, CosignRefusal::OldLargerThanNew { old: 9, new: 8 }));

    let stale = answer(&with(5, &sign("log", 1)), latest).expect_err("stale");
    assert_eq!((stale.status(), stale), (409, CosignRefusal::Stale { size: 6 }));
    let new_here = answer(&with(5, &sign("log", 1)), None).expect_err("never seen");
    assert_eq!((new_here.status(), new_here), (409, CosignRefusal::Stale { size: 0 }));

    let unproven = answer(&with(6, &sign("log", 1)), latest).expect_err("a bad proof");
    assert_eq!(unproven.status(), 422);
    let from_nothing = answer(&with(0, &sign("log", 1)), None).expect_err("a proof from nothing");
    assert_eq!((from_nothing.status(), from_nothing), (422, CosignRefusal::Proof(ProofError::TooLong)));
    let same_size = answer(&with(8, &sign("log", 1)), Some(head(8))).expect_err("a proof of the same");
    assert_eq!((same_size.status(), same_size), (422, CosignRefusal::Proof(ProofError::TooLong)));

    let split = TreeHead { size: 8, root: [7; 32] };
    let another = answer(&request(8, 8), Some(split)).expect_err("a split view");
    assert_eq!((another.status(), another), (422, CosignRefusal::AnotherRoot { size: 8 }));
    let forged = AddCheckpoint {
        note: Note::sign(&format!("log\n0\n{}\n", base64(&[7; 32])), &key("log", 1)).expect("a text"),
        ..request(0, 0)
    };
    let forged = answer(&forged, None).expect_err("an empty tree has one root");
    assert_eq!((forged.status(), forged), (422, CosignRefusal::Proof(ProofError::EmptyTreeWithRoot)));
}

/// A signature in the name of a known key that is invalid spoils the note, also beside a valid one.
#[test]
fn an_invalid_signature_of_a_known_key_is_forbidden() {
    let mut note = signed(head(8)).note().clone();
    let second = key("log", 5);
    let forged = Signature::new(second.name().clone(), second.verifier().id(), vec![0; 64]);
    note.add(forged).expect("room");
    let keys = vec![key("log", 1).verifier().clone(), second.verifier().clone()];
    let log = Log::new(Origin::parse("log").expect("an origin"), keys);
    let request = AddCheckpoint { old_size: 0, proof: ConsistencyProof { path: Vec::new() }, note };
    assert!(request.clone().authenticate(&logs()).is_ok());
    assert_eq!(request.authenticate(&[log]).expect_err("invalid").status(), 403);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A witness that follows a log accepts each honest step, and no step into another history.
    #[test]
    fn a_witness_follows_one_history(steps in prop::collection::vec(0_usize..40, 1..6), fork in any::<prop::sample::Index>()) {
        let mut size = 0;
        let mut latest = None;
        for step in steps {
            let accepted = answer(&request(size, size + step), latest);
            prop_assert_eq!(&accepted, &Ok(head(size + step)));
            (latest, size) = (accepted.ok(), size + step);
        }
        if size > 0 {
            let mut forked: Vec<Hash> = leaves(size + 3);
            forked[fork.index(size)][0] ^= 1;
            let root = naive_root(&forked);
            let proof = ConsistencyProof { path: naive_consistency(size, &forked) };
            let new = TreeHead { size: forked.len() as u64, root };
            let lie = AddCheckpoint::new(size as u64, proof, &signed(new)).expect("short");
            prop_assert_eq!(answer(&lie, latest).expect_err("another history").status(), 422);
        }
    }
}
