use super::*;
use crate::checkpoint::Origin;
use crate::cosignature::{self, Timestamp, collect, cosign};
use crate::key::KeyName;
use crate::naive::{leaves, naive_inclusion, naive_root};
use crate::note::SignerKey;
use crate::proof::ConsistencyProof;
use crate::tree::TreeHead;
use proptest::prelude::*;

const SIGNATURE: &str = "— example.com/fancylog Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

/// tlog-proof's own example. In the specification the signatures are cut short, and so no base64.
fn example() -> String {
    format!(
        "c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

{SIGNATURE}"
    )
}

fn log_key() -> SignerKey {
    SignerKey::from_seed(KeyName::parse("example.com/ledger").expect("a name"), &[1; 32]).expect("a key")
}

fn log() -> Log {
    Log::of_key(log_key().verifier().clone())
}

fn checkpoint(size: usize) -> SignedCheckpoint {
    let head = TreeHead { size: size as u64, root: naive_root(&leaves(size)) };
    let first = ConsistencyProof { path: Vec::new() };
    SignedCheckpoint::sign(head, &TreeHead::EMPTY, &first, &log_key()).expect("any tree grew out of nothing")
}

fn proof(index: usize, size: usize) -> InclusionProof {
    InclusionProof { index: index as u64, path: naive_inclusion(index, &leaves(size)) }
}

fn reread(receipt: &ProofFile) -> ProofFile {
    ProofFile::parse(receipt.to_string().as_bytes()).expect("as it was written")
}

#[test]
fn the_published_proof_is_read_and_written() {
    let receipt = ProofFile::parse(example().as_bytes()).expect("a proof");
    let extra = receipt.unauthenticated_extra().expect("extra data");
    assert!(extra.starts_with(b"age-v1.2.1-darwin-arm64.tar.gz"));
    assert_eq!((receipt.index(), receipt.proof.path.len()), (73_894, 5));
    assert_eq!(receipt.to_string(), example());
}

#[test]
fn other_files_are_refused() {
    let example = example();
    let line = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n";
    let extra = "extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ\n";
    for (file, fault) in [
        (String::new(), BadReceipt::Header),
        ("c2sp.org/tlog-proof@v1".to_owned(), BadReceipt::Header),
        (example.replace("@v1", "@v2"), BadReceipt::Header),
        (example.replace('\n', "\r\n"), BadReceipt::Header),
        ("c2sp.org/tlog-proof@v1\n".to_owned(), BadReceipt::NoCheckpoint),
        ("c2sp.org/tlog-proof@v1\nindex 0\n".to_owned(), BadReceipt::NoCheckpoint),
        ("c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n".to_owned(), BadReceipt::Index),
        (example.replace("index 73894\n", ""), BadReceipt::Index),
        (example.replace("index 73894", "index 073894"), BadReceipt::Index),
        (example.replace("index 73894", "index -5"), BadReceipt::Index),
        (example.replace("index 73894", "index notanumber"), BadReceipt::Index),
        (example.replace("index ", "index"), BadReceipt::Index),
        (example.replace(extra, &extra.repeat(2)), BadReceipt::Index),
        (example.replace("extra ", "extra"), BadReceipt::Index),
        (example.replace("extra ", "extra !!"), BadReceipt::Extra),
        (example.replace("Lmd6", "Lmd6k"), BadReceipt::Extra),
        (example.replace("extra ", &format!("extra {}", "AAAA".repeat(EXTRA_BYTES_MAX / 3 + 1))), BadReceipt::Extra),
        (example.replace(line, "AAAA\n"), BadReceipt::ProofLine { number: 1 }),
        (example.replace(line, &format!("{line} {line}")), BadReceipt::ProofLine { number: 2 }),
        (example.replace(line, &line.repeat(61)), BadReceipt::TooManyProofLines),
        (example.replace(SIGNATURE, ""), BadReceipt::Note(NoteError::NoSignatures)),
        ("x".repeat(RECEIPT_BYTES_MAX + 1), BadReceipt::TooLong),
    ] {
        assert_eq!(ProofFile::parse(file.as_bytes()), Err(fault), "{file:.300}");
    }
    assert_eq!(ProofFile::parse(b"\xff"), Err(BadReceipt::NotUtf8));
    let long = InclusionProof { index: 0, path: vec![[0; 32]; PATH_MAX + 1] };
    assert_eq!(ProofFile::new(long, &checkpoint(1)), Err(BadReceipt::TooManyProofLines));
}

#[test]
fn extra_data_is_optional_and_short() {
    let receipt = ProofFile::new(proof(2, 5), &checkpoint(5)).expect("short");
    assert_eq!(reread(&receipt).unauthenticated_extra(), None);
    for length in [0, 1, EXTRA_BYTES_MAX] {
        let receipt = receipt.clone().with_extra(vec![7; length]).expect("short");
        assert_eq!(reread(&receipt).unauthenticated_extra().map(<[u8]>::len), Some(length));
    }
    assert_eq!(receipt.with_extra(vec![7; EXTRA_BYTES_MAX + 1]), Err(BadReceipt::Extra));
}

#[test]
fn a_receipt_proves_one_leaf_at_one_index_of_one_log() {
    let (leaves, signed) = (leaves(11), checkpoint(11));
    let receipt = reread(&ProofFile::new(proof(6, 11), &signed).expect("short"));
    let verified = receipt.verify(&leaves[6], &log(), &Quorum::NONE).expect("proven");
    assert_eq!((verified.index, verified.checkpoint.head()), (6, signed.head()));

    let unproven =
        |receipt: &ProofFile, leaf: &Hash, log: &Log| receipt.verify(leaf, log, &Quorum::NONE).expect_err("unproven");
    assert_eq!(unproven(&receipt, &leaves[5], &log()), Unproven::Inclusion(ProofError::AnotherRoot));
    let moved = ProofFile { proof: InclusionProof { index: 5, ..proof(6, 11) }, ..receipt.clone() };
    assert_eq!(unproven(&moved, &leaves[6], &log()), Unproven::Inclusion(ProofError::AnotherRoot));
    let beyond = ProofFile { proof: InclusionProof { index: 11, ..proof(6, 11) }, ..receipt.clone() };
    assert_eq!(unproven(&beyond, &leaves[6], &log()), Unproven::Inclusion(ProofError::IndexBeyondTree));
    let other_tree = ProofFile::new(proof(6, 11), &checkpoint(12)).expect("short");
    assert!(matches!(unproven(&other_tree, &leaves[6], &log()), Unproven::Inclusion(_)));

    let another = SignerKey::from_seed(log_key().name().clone(), &[2; 32]).expect("a key");
    let unknown = Unproven::Checkpoint(CheckpointError::Note(NoteError::NoKnownSignature));
    assert_eq!(unproven(&receipt, &leaves[6], &Log::of_key(another.verifier().clone())), unknown);
    let other_log = Log::new(Origin::parse("x").expect("an origin"), vec![log_key().verifier().clone()]);
    let refusal = unproven(&receipt, &leaves[6], &other_log);
    assert!(matches!(refusal, Unproven::Checkpoint(CheckpointError::AnotherOrigin { .. })));
}

#[test]
fn a_receipt_carries_its_witnesses() {
    let witness = |seed| {
        let name = KeyName::parse(&format!("witness{seed}.example")).expect("a name");
        cosignature::WitnessSignerKey::from_seed(name, &[seed; 32]).expect("a key")
    };
    let known: Vec<_> = [3, 4].map(|seed| witness(seed).verifier().clone()).to_vec();
    let mut signed = checkpoint(4);
    let at = Timestamp::from_posix_seconds(1_700_000_000).expect("a time");
    let answer = cosign(&signed, &witness(3), at).to_string();
    collect(&mut signed, &answer, &known).expect("valid");
    let receipt = reread(&ProofFile::new(proof(3, 4), &signed).expect("short"));

    let verify =
        |threshold| receipt.verify(&leaves(4)[3], &log(), &Quorum::new(known.clone(), threshold).expect("reachable"));
    assert_eq!(verify(1).expect("one witness").checkpoint, signed);
    assert_eq!(verify(2), Err(Unproven::Quorum(QuorumError::TooFew { threshold: 2, found: 1 })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_receipt_of_every_tree_holds_and_a_changed_byte_is_noticed(
        size in 1_usize..200, index in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let index = index.index(size);
        let leaf = leaves(size)[index];
        let receipt = ProofFile::new(proof(index, size), &checkpoint(size)).expect("short");
        prop_assert!(reread(&receipt).verify(&leaf, &log(), &Quorum::NONE).is_ok());
        let mut file = receipt.to_string().into_bytes();
        let place = place.index(file.len());
        file[place] ^= 1 << bit;
        let verified = ProofFile::parse(&file).map(|receipt| receipt.verify(&leaf, &log(), &Quorum::NONE));
        prop_assert!(!matches!(verified, Ok(Ok(_))), "byte {}", place);
    }
}
