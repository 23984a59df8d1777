use super::*;
use crate::record::digest::sha256;
use tlog::checkpoint::SignedCheckpoint;
use tlog::cosignature::{Timestamp, collect};
use tlog::key::KeyName;
use tlog::plan::{Hashes, InclusionPlan, RootPlan};
use tlog::proof::ConsistencyProof;
use tlog::tree::TreeHead;
use tlog::witness::AddCheckpoint;

const PAYLOAD: &[u8] = br#"{"event_id":"EXEC-BRM-CTO-1708451234568"}"#;
const ID: &str = "EXEC-BRM-CTO-1708451234568";

fn log_key(name: &str, seed: u8) -> note::SignerKey {
    note::SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[seed; 32]).expect("a key")
}

fn witness_key(seed: u8) -> cosignature::WitnessSignerKey {
    let name = KeyName::parse(&format!("witness{seed}.example")).expect("a name");
    cosignature::WitnessSignerKey::from_seed(name, &[seed; 32]).expect("a key")
}

fn fields() -> LeafFields {
    LeafFields {
        stream: "LEDGER".to_owned(),
        stream_created_ns: 1,
        regressions: 0,
        sequence: 7,
        subject: "ledger.EXEC.BRM-CTO".to_owned(),
        server_time_ns: 1_771_609_634_568_000_001,
        headers_sha256: Some(sha256(b"A: b\r\n")),
        payload_sha256: sha256(PAYLOAD),
        disposition: Disposition::Recorded,
        record_id: Some(ID.to_owned()),
        row_id: Some(1),
        committed_at_us: 1_771_609_634_570_000,
        rejection: None,
    }
}

/// A proof of the entry at index 5 of 11, cosigned by these witnesses.
fn proof(key: &note::SignerKey, cosigners: &[u8], evidence: &Evidence) -> String {
    let hashes: Hashes = (0..11)
        .map(|index: u64| {
            let hash = if index == 5 { leaf_hash(&fields().encode()) } else { leaf_hash(&index.to_be_bytes()) };
            (0, index, hash)
        })
        .collect();
    let head = RootPlan::new(11).build(&hashes).expect("all is there");
    let first = ConsistencyProof { path: Vec::new() };
    let mut checkpoint = SignedCheckpoint::sign(head, &TreeHead::EMPTY, &first, key).expect("the first one");
    let log = Log::of_key(key.verifier().clone());
    for seed in cosigners {
        let request = AddCheckpoint::new(0, first.clone(), &checkpoint).expect("short");
        let accepted =
            request.authenticate(std::slice::from_ref(&log)).expect("the log's").judge(None).expect("the first");
        let at = Timestamp::from_posix_seconds(1_771_609_635).expect("a time");
        let line = accepted.cosign(&witness_key(*seed), at).to_string();
        let keys = [witness_key(*seed).verifier().clone()];
        assert_eq!(collect(&mut checkpoint, &line, &keys), Ok(1));
    }
    let proof = InclusionPlan::new(5, 11).expect("possible").build(&hashes).expect("all is there");
    ProofFile::new(proof, &checkpoint).expect("short").with_extra(evidence.encode()).expect("short").to_string()
}

fn evidence() -> Evidence {
    Evidence { leaf: fields().encode(), headers: Some(b"A: b\r\n".to_vec()), payload: Some(PAYLOAD.to_vec()) }
}

fn arguments(event_id: Option<&str>) -> VerifyProofArguments {
    VerifyProofArguments {
        file: PathBuf::new(),
        key: log_key("example.com/ledger", 1).verifier().clone(),
        witnesses: Vec::new(),
        witnesses_min: None,
        event_id: event_id.map(str::to_owned),
        record_id: None,
        lane: None,
    }
}

#[test]
fn what_only_bears_the_name_is_another_record() {
    let event = || arguments(Some(ID));
    let record = |lane| VerifyProofArguments { record_id: Some(ID.to_owned()), lane, ..arguments(None) };
    let usage = LeafFields { subject: "ledger.TOKENS.WRK-001".to_owned(), ..fields() };
    let rejected = LeafFields { disposition: Disposition::Rejected, ..fields() };
    assert_eq!(is_about(&fields(), &event()), Ok(()));
    assert!(is_about(&usage, &event()).is_err_and(|why| why.contains("no audit event")));
    assert!(is_about(&rejected, &event()).is_err_and(|why| why.contains("was rejected")));
    assert!(is_about(&rejected, &record(None)).is_err_and(|why| why.contains("was rejected")));
    assert_eq!(is_about(&usage, &record(Some(Lane::Tokens))), Ok(()));
    assert!(is_about(&usage, &record(Some(Lane::Exec))).is_err_and(|why| why.contains("not on lane EXEC")));
    assert_eq!(is_about(&rejected, &arguments(None)), Ok(()), "who asks for no name reads what it is about");
}

fn quorum(seeds: &[u8], threshold: usize) -> Quorum {
    Quorum::new(seeds.iter().map(|seed| witness_key(*seed).verifier().clone()).collect(), threshold).expect("a quorum")
}

fn why(file: &str, arguments: &VerifyProofArguments, quorum: &Quorum) -> String {
    judge(file.as_bytes(), arguments, quorum).map(drop).expect_err("not proven")
}

#[test]
fn each_lie_is_named() {
    let key = log_key("example.com/ledger", 1);
    let good = proof(&key, &[2, 3], &evidence());
    assert!(judge(good.as_bytes(), &arguments(Some(ID)), &quorum(&[2, 3], 2)).is_ok());
    assert!(judge(good.as_bytes(), &arguments(None), &quorum(&[2, 4], 1)).is_ok());
    let payload = Evidence { payload: Some(b"{}".to_vec()), ..evidence() };
    let headers = Evidence { headers: Some(b"A: c\r\n".to_vec()), ..evidence() };
    let mut forged = fields();
    forged.payload_sha256 = sha256(b"{}");
    let leaf = Evidence { leaf: forged.encode(), payload: Some(b"{}".to_vec()), ..evidence() };
    let none = ProofFile::parse(good.as_bytes()).expect("a proof").to_string();
    let extra = none.lines().nth(1).expect("the extra data");
    for (file, arguments, quorum, expected) in [
        (good.clone(), arguments(Some("EXEC-BRM-CTO-1")), Quorum::NONE, "not about EXEC-BRM-CTO-1"),
        (good.clone(), arguments(None), quorum(&[2, 3, 4], 3), "3 known witnesses, found 2"),
        (proof(&key, &[], &payload), arguments(None), Quorum::NONE, "the payload is not what was logged"),
        (proof(&key, &[], &headers), arguments(None), Quorum::NONE, "the headers are not what was logged"),
        (proof(&key, &[], &leaf), arguments(None), Quorum::NONE, "leads to another"),
        (proof(&log_key("example.com/ledger", 9), &[], &evidence()), arguments(None), Quorum::NONE, "known key"),
        (proof(&log_key("example.com/other", 1), &[], &evidence()), arguments(None), Quorum::NONE, "example.com/other"),
        (none.replace(&format!("{extra}\n"), ""), arguments(None), Quorum::NONE, "shows no entry"),
        (none.replace("index 5", "index 6"), arguments(None), Quorum::NONE, "leads to another"),
        ("good morning".to_owned(), arguments(None), Quorum::NONE, "the file is no proof"),
    ] {
        let why = why(&file, &arguments, &quorum);
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

/// The line of a witness that nobody asked for is the one part that does not count.
#[test]
fn every_changed_byte_of_a_proof_is_noticed() {
    let key = log_key("example.com/ledger", 1);
    for (cosigners, quorum) in [(&[][..], Quorum::NONE), (&[2, 3][..], quorum(&[2, 3], 2))] {
        let good = proof(&key, cosigners, &evidence()).into_bytes();
        assert!(judge(&good, &arguments(None), &quorum).is_ok());
        for at in 0..good.len() {
            for flip in [0x01, 0x02, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let judged = judge(&bad, &arguments(None), &quorum);
                assert!(judged.is_err(), "byte {at} ^ {flip:#x}: {}", String::from_utf8_lossy(&bad));
            }
            let mut bad = good.clone();
            bad.remove(at);
            assert!(judge(&bad, &arguments(None), &quorum).is_err(), "without byte {at}");
        }
        let mut longer = good.clone();
        longer.push(b'\n');
        assert!(judge(&longer, &arguments(None), &quorum).is_err());
    }
}
