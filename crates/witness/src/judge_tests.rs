use super::*;
use std::os::unix::fs::MetadataExt as _;
use tlog::cosignature::{self, collect};
use tlog::key::KeyName;
use tlog::plan::{ConsistencyPlan, Hashes, RootPlan};
use tlog::proof::ConsistencyProof;
use tlog::tree::{Hash, TreeHead, leaf_hash};

const NOW: Duration = Duration::from_secs(1_771_609_634);

fn log_key(name: &str) -> note::SignerKey {
    note::SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[1; 32]).expect("a key")
}

fn witness_key() -> WitnessSignerKey {
    WitnessSignerKey::from_seed(KeyName::parse("witness.example").expect("a name"), &[2; 32]).expect("a key")
}

fn open(folder: &Path) -> Result<Witness, BadState> {
    let known = ["example.com/ledger", "example.com/other"].map(|name| {
        let key = log_key(name).verifier().clone();
        (Origin::from(key.name()), key)
    });
    Witness::open(witness_key(), known.to_vec(), folder)
}

/// The leaves of a small log; from `forked` on another's.
fn hashes(size: u64, forked: u64) -> Hashes {
    let leaf = |index: u64| -> Hash { leaf_hash(&(index + (u64::from(index >= forked) << 40)).to_be_bytes()) };
    (0..size).map(|index| (0, index, leaf(index))).collect()
}

fn request(log: &str, old: u64, new: u64, forked: u64) -> (SignedCheckpoint, String) {
    let hashes = hashes(new.max(old), forked);
    let head = RootPlan::new(new).build(&hashes).expect("all is there");
    let first = ConsistencyProof { path: Vec::new() };
    let checkpoint = SignedCheckpoint::sign(head, &TreeHead::EMPTY, &first, &log_key(log)).expect("the first one");
    let plan = ConsistencyPlan::new(old, new);
    let proof = plan.map_or(ConsistencyProof { path: Vec::new() }, |plan| plan.build(&hashes).expect("all is there"));
    let body = AddCheckpoint::new(old, proof, &checkpoint).expect("short").to_string();
    (checkpoint, body)
}

fn ask(witness: &Witness, log: &str, old: u64, new: u64, forked: u64) -> Answer {
    witness.add_checkpoint(request(log, old, new, forked).1.as_bytes(), NOW)
}

const LEDGER: &str = "example.com/ledger";
const HONEST: u64 = u64::MAX;

#[test]
fn it_cosigns_growth_and_remembers_it_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let witness = open(folder.path()).expect("an empty state");
    let answer = ask(&witness, LEDGER, 0, 3, HONEST);
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut checkpoint = request(LEDGER, 0, 3, HONEST).0;
    let key: cosignature::WitnessVerifierKey = witness_key().verifier().clone();
    assert_eq!(collect(&mut checkpoint, &answer.body, &[key]), Ok(1));
    assert_eq!(ask(&witness, LEDGER, 3, 9, HONEST).status, 200);
    assert_eq!(ask(&witness, LEDGER, 9, 9, HONEST).status, 200, "the same tree again");
    assert_eq!(ask(&witness, "example.com/other", 0, 2, HONEST).status, 200, "each log has its own state");
    drop(witness);
    let witness = open(folder.path()).expect("its own state");
    let stale = Answer { status: 409, content_type: STALE_CONTENT_TYPE, body: "9\n".to_owned() };
    assert_eq!(ask(&witness, LEDGER, 0, 20, HONEST), stale);
    assert_eq!(ask(&witness, LEDGER, 3, 8, HONEST), stale, "it has seen a larger one");
    assert_eq!(ask(&witness, LEDGER, 9, 20, HONEST).status, 200);
}

#[test]
fn whoever_watches_reads_the_last_checkpoint_that_was_cosigned() {
    let folder = tempfile::tempdir().expect("a folder");
    let witness = open(folder.path()).expect("an empty state");
    let place = log_key(LEDGER).verifier().name().clone();
    let place = Origin::from(&place).sha256_hex();
    assert_eq!(witness.newest(&place, NOW).status, 404, "nothing was cosigned");
    assert_eq!(ask(&witness, LEDGER, 0, 3, HONEST).status, 200);
    let newest = witness.newest(&place, NOW);
    assert_eq!(newest.status, 200, "{newest:?}");
    let log = Log::of_key(log_key(LEDGER).verifier().clone());
    let checkpoint = SignedCheckpoint::parse(newest.body.as_bytes(), &log).expect("the log's own");
    let keys = [witness_key().verifier().clone()];
    assert_eq!(cosignature::cosignatures(&checkpoint, &keys).expect("valid").len(), 1);
    assert_eq!(checkpoint.head().size, 3);
    assert_eq!(witness.newest("00", NOW).status, 404);
}

#[test]
fn what_does_not_continue_the_last_tree_is_refused_and_a_fork_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let witness = open(folder.path()).expect("an empty state");
    assert_eq!(ask(&witness, LEDGER, 0, 9, HONEST).status, 200);
    let forked = request(LEDGER, 9, 9, 4).1 + &forged_line(&log_key("example.com/stranger"));
    let forked = witness.add_checkpoint(forked.as_bytes(), NOW);
    assert_eq!((forked.status, forked.content_type), (422, "text/plain; charset=utf-8"));
    assert_eq!(ask(&witness, LEDGER, 9, 12, 4).status, 422);
    assert_eq!(ask(&witness, LEDGER, 9, 8, HONEST).status, 400, "an old size above the new one");
    assert_eq!(ask(&witness, "example.com/unknown", 0, 3, HONEST).status, 404);
    assert_eq!(witness.add_checkpoint(b"good morning", NOW).status, 400);
    let (_, body) = request(LEDGER, 9, 12, HONEST);
    let text = body.replace("\n12\n", "\n13\n");
    assert_eq!(witness.add_checkpoint(text.as_bytes(), NOW).status, 403, "another text under the signature");
    assert_eq!(ask(&witness, LEDGER, 9, 12, HONEST).status, 200, "nothing of it has changed the state");
    let evidence = std::fs::read_to_string(folder.path().join("example.com%2Fledger.checkpoint.fork-9"));
    let evidence = evidence.expect("the fork is kept");
    for checkpoint in [request(LEDGER, 9, 9, HONEST).0, request(LEDGER, 9, 9, 4).0] {
        assert!(evidence.contains(&checkpoint.to_string()), "{evidence}");
    }
    assert!(!evidence.contains("example.com/stranger"), "what anybody wrote below it is no evidence: {evidence}");
}

#[test]
fn what_cannot_be_stored_is_not_cosigned() {
    let folder = tempfile::tempdir().expect("a folder");
    let witness = open(folder.path()).expect("an empty state");
    assert_eq!(ask(&witness, LEDGER, 0, 3, HONEST).status, 200);
    // A folder in the way of the new file: no account may write over that.
    let new = folder.path().join("example.com%2Fledger.checkpoint.new");
    std::fs::create_dir(&new).expect("ours");
    let answer = ask(&witness, LEDGER, 3, 4, HONEST);
    assert_eq!((answer.status, answer.body.contains('—')), (500, false));
    std::fs::remove_dir(&new).expect("ours");
    assert_eq!(ask(&witness, LEDGER, 3, 4, HONEST).status, 200);
    assert_eq!(witness.add_checkpoint(request(LEDGER, 4, 5, HONEST).1.as_bytes(), Duration::ZERO).status, 500);
}

#[test]
fn it_does_not_start_over_a_state_that_it_cannot_read() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(open(&folder.path().join("missing")), Err(BadState::Io { .. })));
    let witness = open(folder.path()).expect("an empty state");
    assert!(matches!(open(folder.path()), Err(BadState::InUse { .. })));
    assert_eq!(ask(&witness, LEDGER, 0, 3, HONEST).status, 200);
    drop(witness);
    let file = folder.path().join("example.com%2Fledger.checkpoint");
    let good = std::fs::read_to_string(&file).expect("there");
    for bad in ["", &good[..good.len() / 2], &good.replace("\n3\n", "\n2\n")] {
        std::fs::write(&file, bad).expect("ours");
        assert!(matches!(open(folder.path()), Err(BadState::Unreadable { .. })), "{bad}");
    }
    std::fs::write(&file, &good).expect("ours");
    let witness = open(folder.path()).expect("the state as it was");
    std::fs::write(&file, "gone").expect("ours");
    assert_eq!(ask(&witness, LEDGER, 3, 4, HONEST).status, 500, "it is not believed while it runs either");
}

#[test]
fn a_state_that_goes_away_while_it_runs_is_not_begun_anew() {
    let parent = tempfile::tempdir().expect("a folder");
    let [folder, elsewhere] = ["state", "elsewhere"].map(|name| parent.path().join(name));
    std::fs::create_dir(&folder).expect("ours");
    drop(open(&folder).map(|witness| ask(&witness, LEDGER, 0, 3, HONEST)).expect("an empty state"));
    let witness = open(&folder).expect("its own state");
    let file = folder.join("example.com%2Fledger.checkpoint");
    let smaller = std::fs::read(&file).expect("there");
    let refuses = |case: &str| {
        for old in [0, 3, 9] {
            let answer = ask(&witness, LEDGER, old, 20, HONEST);
            assert_eq!((answer.status, answer.body.contains('—')), (500, false), "{case}: {answer:?}");
        }
    };
    std::fs::remove_file(&file).expect("ours");
    refuses("what it has only read is gone");
    std::fs::write(&file, &smaller).expect("ours");
    assert_eq!(ask(&witness, LEDGER, 3, 9, HONEST).status, 200);

    // As when a disk is not mounted any more, and there is the empty folder below it.
    std::fs::rename(&folder, &elsewhere).expect("ours");
    refuses("its folder is gone");
    std::fs::create_dir(&folder).expect("ours");
    refuses("its folder is empty");
    std::fs::write(&file, &smaller).expect("ours");
    refuses("an old copy was restored");
    std::fs::write(&file, request(LEDGER, 0, 9, 4).0.to_string()).expect("ours");
    refuses("it is of another tree");

    std::fs::remove_dir_all(&folder).expect("ours");
    std::fs::rename(&elsewhere, &folder).expect("ours");
    assert_eq!(ask(&witness, LEDGER, 9, 20, HONEST).status, 200, "it is back");
}

#[test]
fn what_is_on_the_disk_already_is_not_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("example.com%2Fledger.checkpoint");
    // Each time that it is written, it is another file.
    let written = || std::fs::metadata(&file).expect("there").ino();
    let witness = open(folder.path()).expect("an empty state");
    assert_eq!(ask(&witness, LEDGER, 0, 3, HONEST).status, 200);
    let first = written();
    let again = request(LEDGER, 3, 3, HONEST).1 + &forged_line(&log_key("example.com/stranger"));
    for body in [again.as_str(), &request(LEDGER, 3, 3, HONEST).1] {
        assert_eq!(witness.add_checkpoint(body.as_bytes(), NOW).status, 200);
        assert_eq!(written(), first);
    }
    drop(witness);
    let witness = open(folder.path()).expect("its own state");
    assert_eq!(ask(&witness, LEDGER, 3, 3, HONEST).status, 200);
    let second = written();
    assert_ne!(second, first, "what was only read may not be on the disk yet");
    assert_eq!((ask(&witness, LEDGER, 3, 3, HONEST).status, written()), (200, second));
    assert_eq!(ask(&witness, LEDGER, 3, 4, HONEST).status, 200);
    assert_ne!(written(), second);
}

#[test]
fn the_same_tree_signed_by_the_logs_next_key_is_remembered_with_that_signature() {
    let folder = tempfile::tempdir().expect("a folder");
    let next = note::SignerKey::from_seed(KeyName::parse(LEDGER).expect("a name"), &[9; 32]).expect("a key");
    let ledger = Origin::from(next.verifier().name());
    let open = |keys: &[&note::SignerKey]| {
        let known = keys.iter().map(|key| (ledger.clone(), key.verifier().clone())).collect();
        Witness::open(witness_key(), known, folder.path())
    };
    let witness = open(&[&log_key(LEDGER), &next]).expect("an empty state");
    assert_eq!(ask(&witness, LEDGER, 0, 3, HONEST).status, 200);
    let head = request(LEDGER, 0, 3, HONEST).0.head();
    let none = || ConsistencyProof { path: Vec::new() };
    let signed = SignedCheckpoint::sign(head, &TreeHead::EMPTY, &none(), &next).expect("the first one");
    let body = AddCheckpoint::new(3, none(), &signed).expect("short").to_string();
    assert_eq!(witness.add_checkpoint(body.as_bytes(), NOW).status, 200);
    drop(witness);
    let witness = open(&[&next]).expect("the old key is not needed any more");
    assert_eq!(ask(&witness, LEDGER, 3, 4, HONEST).status, 403);
}

/// A line that anybody can write: the name and id of a key, and no signature of it.
fn forged_line(key: &note::SignerKey) -> String {
    let empty = RootPlan::new(0).build(&hashes(0, HONEST)).expect("nothing is needed");
    let first = ConsistencyProof { path: Vec::new() };
    let elsewhere = SignedCheckpoint::sign(empty, &TreeHead::EMPTY, &first, key).expect("the first one");
    elsewhere.note().signatures()[0].to_string()
}

#[test]
fn a_strangers_line_in_the_name_of_the_logs_next_key_is_not_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let next =
        note::SignerKey::from_seed(KeyName::parse("example.com/next").expect("a name"), &[9; 32]).expect("a key");
    let witness = open(folder.path()).expect("an empty state");
    let (checkpoint, body) = request(LEDGER, 0, 3, HONEST);
    let signed_by_log = checkpoint.note().signatures()[0].to_string();
    let answer = witness.add_checkpoint(format!("{body}{}{signed_by_log}", forged_line(&next)).as_bytes(), NOW);
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(witness);
    let file = folder.path().join("example.com%2Fledger.checkpoint");
    assert_eq!(std::fs::read_to_string(file).expect("there"), checkpoint.to_string());
    let ledger = Origin::from(log_key(LEDGER).verifier().name());
    let keys = [log_key(LEDGER).verifier().clone(), next.verifier().clone()];
    let known = keys.map(|key| (ledger.clone(), key)).to_vec();
    let witness = Witness::open(witness_key(), known, folder.path()).expect("what it stored itself");
    assert_eq!(ask(&witness, LEDGER, 3, 4, HONEST).status, 200);
}

#[test]
fn a_log_is_its_key_and_perhaps_an_origin() {
    let key = log_key("example.com/a=b").verifier().to_string();
    let origin = |text: &str| parse_log(text).map(|(origin, _)| origin.to_string());
    assert_eq!(origin(&key).as_deref(), Ok("example.com/a=b"));
    assert_eq!(origin(&format!("{key}=example.com/c+d=e")).as_deref(), Ok("example.com/c+d=e"));
    assert!(origin(&format!("{key}=")).is_err());
    for text in ["", "=", "a+b", "a+b+c", "a+b+c=d"] {
        assert!(origin(text).is_err(), "{text}");
    }
}
