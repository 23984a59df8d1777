//! The check in the visitor's browser, run by Node over proofs that the program made: it and `ledgerd verify-proof` always agree.

use crate::support::daemon::{Environment, ledgerd, ledgerd_with_input, text_of};
use crate::support::events::{LANES, event, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::signed::{ORIGIN, fill, log_key, sign, verifier_key};
use crate::support::world::World;
use ::ledgerd::log::evidence::Evidence;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use tlog::checkpoint::{Log, SignedCheckpoint};
use tlog::cosignature::{Quorum, Timestamp, WitnessSignerKey};
use tlog::key::KeyName;
use tlog::note::VerifierKey;
use tlog::proof::ConsistencyProof;
use tlog::receipt::ProofFile;
use tlog::tree::leaf_hash;
use tlog::witness::AddCheckpoint;

/// What the browser says of each of these proofs.
async fn browser(questions: &[Value]) -> Vec<Value> {
    let root = env!("CARGO_MANIFEST_DIR");
    let folder = scratch_folder("browser");
    let asked = folder.path().join("questions.jsonl");
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    std::fs::write(&asked, lines).expect("ours");
    let mut node = Command::new("node");
    node.arg(format!("{root}/tests/it/console_verifier/check.js"))
        .arg(format!("{root}/src/console/assets/verify.js"))
        .stdin(std::fs::File::open(&asked).expect("ours"))
        .stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || node.output()).await.expect("no panic");
    let output = output.expect("node 20 or newer is in PATH");
    let answers: Vec<Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), questions.len(), "one answer for each");
    answers
}

fn question(file: &[u8], key: &str) -> Value {
    json!({ "file": BASE64.encode(file), "key": key })
}

async fn proof_of(world: &World, arguments: &[&str]) -> String {
    world.ledgerd_ok(&[&["prove"], arguments, &["--out", "-"]].concat()).await
}

/// What `ledgerd verify-proof` says: `None` where it refuses.
async fn verify_proof(file: &[u8], key: &str) -> Option<Value> {
    let folder = scratch_folder("proof");
    let path = folder.path().join("one.tlog-proof");
    std::fs::write(&path, file).expect("ours");
    let path = path.to_str().expect("UTF-8");
    let output = ledgerd(&["verify-proof", path, "--key", key, "--json"], &Environment::new()).await;
    assert!(matches!(output.status.code(), Some(0 | 3 | 64)), "{}", text_of(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (said["proven"] == true).then_some(said)
}

/// The same, by the code behind that command, which is much faster than a process for each.
fn is_proven(file: &[u8], key: &VerifierKey) -> bool {
    let Ok(receipt) = ProofFile::parse(file) else { return false };
    let Some(evidence) = receipt.unauthenticated_extra().and_then(|extra| Evidence::decode(extra).ok()) else {
        return false;
    };
    evidence.examine().is_ok()
        && receipt.verify(&leaf_hash(&evidence.leaf), &Log::of_key(key.clone()), &Quorum::NONE).is_ok()
}

#[tokio::test]
async fn the_browser_says_of_every_kind_of_entry_what_verify_proof_says() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    for lane in LANES {
        published.publish(&world.publisher, next_event(lane).good()).await;
    }
    let twice = next_event("EXEC");
    published.publish_with_headers(&world.publisher, &[("Trace", "ä: b")], twice.good()).await;
    published.publish(&world.publisher, twice.again()).await;
    published.publish(&world.publisher, twice.clone().with("task_id", "other").bad("conflict")).await;
    published.publish_raw(&world.publisher, b"NATS/1.0\r\nno colon\r\n\r\n", next_event("VOTE").good()).await;
    let secret = next_event("SEC");
    published.publish(&world.publisher, secret.good()).await;
    check_ledger(&world, &published).await;
    let approval = event("SYS", "ARCHITECT", 1)
        .with("action", "DELETION_AUTHORIZED")
        .with("outcome", "APPROVED")
        .with("details", json!({ "table": "audit_events", "ids": [secret.event_id()], "reason": "a password" }));
    published.publish(&world.publisher, approval.good()).await;
    settled(&world, &published).await;
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    let size = sign(&world.database).await.head().size;

    let key = verifier_key();
    let mut files = Vec::new();
    for index in 0..size {
        files.push(proof_of(&world, &["--index", &index.to_string()]).await);
        files.push(proof_of(&world, &["--index", &index.to_string(), "--without-content"]).await);
    }
    let questions: Vec<Value> = files.iter().map(|file| question(file.as_bytes(), &key)).collect();
    let mut kinds = Vec::new();
    for (file, said) in files.iter().zip(browser(&questions).await) {
        let expected = verify_proof(file.as_bytes(), &key).await.expect("the program's own proof holds");
        assert_eq!(said["verdict"], "proven", "{said}");
        for field in ["record_id", "disposition", "subject", "sequence", "reason", "index", "payload_sha256"] {
            assert_eq!(said[field], expected[field], "{field}: {said}");
        }
        assert_eq!(said["with_payload"], !expected["payload"].is_null());
        kinds.push((said["disposition"].to_string(), said["with_payload"] == true));
    }
    for kind in ["\"recorded\"", "\"duplicate\"", "\"rejected\""] {
        assert!(kinds.contains(&(kind.to_owned(), true)) && kinds.contains(&(kind.to_owned(), false)), "{kind}");
    }

    // Without a key everything but the signature is checked, and the browser says so.
    let unsigned = browser(&[json!({ "file": BASE64.encode(&files[0]), "key": null })]).await;
    assert_eq!(unsigned[0]["verdict"], "unsigned");
}

/// A proof with a path, of an entry with bytes and headers.
async fn a_proof() -> (World, String) {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let event = next_event("EXEC").with("details", json!({ "steps": [1, { "b": 2, "a": null }] }));
    published.publish_with_headers(&world.publisher, &[("Trace", "a")], event.good()).await;
    check_ledger(&world, &published).await;
    drop(daemon);
    let index = world.database.count("select size - 1 from ledger.tree_head").await;
    fill(&world.database, 100).await;
    sign(&world.database).await;
    let file = proof_of(&world, &["--index", &index.to_string()]).await;
    (world, file)
}

#[tokio::test]
async fn no_changed_byte_passes_the_browser() {
    let (_world, file) = a_proof().await;
    let (good, key) = (file.as_bytes(), verifier_key());
    let vkey = VerifierKey::parse(&key).expect("a key");
    assert!(is_proven(good, &vkey));
    let mut forged: Vec<Vec<u8>> = Vec::new();
    for at in 0..good.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bad = good.to_vec();
            bad[at] ^= flip;
            forged.push(bad);
        }
        forged.push(good[..at].to_vec());
        forged.push([&good[..at], &good[at + 1..]].concat());
        forged.push([&good[..at], b"\n", &good[at..]].concat());
    }
    let questions: Vec<Value> = forged.iter().map(|file| question(file, &key)).collect();
    let answers = browser(&questions).await;
    let mut accepted = 0;
    for (file, said) in forged.iter().zip(&answers) {
        let expected = is_proven(file, &vkey);
        assert_eq!(said["verdict"] == "proven", expected, "{said}: {}", String::from_utf8_lossy(file));
        accepted += usize::from(expected);
        assert!(expected || !said["failed"].as_array().expect("steps").is_empty(), "it says which step failed");
    }
    assert_eq!(accepted, 0, "every byte counts");
    for file in forged.iter().step_by(forged.len() / 20) {
        assert_eq!(verify_proof(file, &key).await, None, "and the program itself agrees");
    }
}

/// The parts of a proof, so that each can be forged by itself.
struct Parts {
    evidence: Evidence,
    index: String,
    path: Vec<String>,
    note: String,
}

impl Parts {
    fn of(file: &str) -> Self {
        let (head, note) = file.split_once("\n\n").expect("a checkpoint");
        let mut lines = head.lines().skip(1).map(str::to_owned);
        let extra = lines.next().expect("extra data");
        let extra = BASE64.decode(extra.strip_prefix("extra ").expect("extra data")).expect("base64");
        Self {
            evidence: Evidence::decode(&extra).expect("evidence"),
            index: lines.next().expect("an index"),
            path: lines.collect(),
            note: note.to_owned(),
        }
    }

    fn file(&self) -> Vec<u8> {
        self.file_with(&self.evidence.encode())
    }

    fn file_with(&self, extra: &[u8]) -> Vec<u8> {
        let Self { index, path, note, .. } = self;
        let path: String = path.iter().map(|line| format!("{line}\n")).collect();
        format!("c2sp.org/tlog-proof@v1\nextra {}\n{index}\n{path}\n{note}", BASE64.encode(extra)).into_bytes()
    }
}

#[tokio::test]
async fn the_browser_names_the_step_that_fails() {
    let (_world, file) = a_proof().await;
    let forged = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&file);
        change(&mut parts);
        parts.file()
    };
    let parts = Parts::of(&file);
    assert_eq!(parts.file(), file.as_bytes(), "taken apart and put together");
    let extra = parts.evidence.encode();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("bytes", "other bytes", forged(&|it| it.evidence.payload = Some(b"{}".to_vec()))),
        ("bytes", "other headers", forged(&|it| it.evidence.headers = Some(b"Trace: b\r\n".to_vec()))),
        ("entry", "half a leaf", forged(&|it| it.evidence.leaf.truncate(40))),
        ("entry", "a field more", parts.file_with(&[&extra[..], &[4, 0, 0, 0, 0]].concat())),
        ("entry", "a leaf's field more", forged(&|it| it.evidence.leaf.extend([15, 0, 0, 0, 0]))),
        ("entry", "no leaf", parts.file_with(b"LEDGER-PROOF\0\x01")),
        ("entry", "another magic", parts.file_with(b"LEDGER-PROOG\0\x01")),
        ("path", "another index", forged(&|it| it.index = "index 0".to_owned())),
        ("path", "beyond the tree", forged(&|it| it.index = "index 100".to_owned())),
        ("path", "a hash less", forged(&|it| drop(it.path.pop()))),
        ("path", "a hash more", forged(&|it| it.path.push(it.path[0].clone()))),
        ("path", "two hashes swapped", forged(&|it| it.path.swap(0, 1))),
        ("path", "another leaf", forged(&|it| *it.evidence.leaf.last_mut().expect("bytes") ^= 1)),
        ("signature", "another size", forged(&|it| it.note = it.note.replacen("\n100\n", "\n101\n", 1))),
        ("signature", "an extension", forged(&|it| it.note = it.note.replacen("\n\n", "\nmore\n\n", 1))),
        ("file", "a leading zero", forged(&|it| it.index = it.index.replace("index ", "index 0"))),
        ("file", "no signature", forged(&|it| it.note.truncate(it.note.find('—').expect("a dash")))),
        ("file", "a carriage return", forged(&|it| it.note = it.note.replacen('\n', "\r\n", 1))),
        ("file", "no base64", forged(&|it| it.path[0] = it.path[0].replace('=', ""))),
        ("file", "empty", Vec::new()),
        ("file", "not UTF-8", [file.as_bytes(), b"\xff"].concat()),
        ("file", "a byte order mark", [b"\xef\xbb\xbf", file.as_bytes()].concat()),
    ];
    let key = verifier_key();
    let questions: Vec<Value> = cases.iter().map(|(_, _, file)| question(file, &key)).collect();
    for ((step, what, file), said) in cases.iter().zip(browser(&questions).await) {
        assert_eq!(said["verdict"], "failed", "{what}: {said}");
        assert!(said["failed"].as_array().expect("steps").contains(&json!(step)), "{what}: {step}: {said}");
        assert_eq!(verify_proof(file, &key).await, None, "{what}");
    }

    let other_key = log_key(ORIGIN, 9).verifier().to_string();
    let other_name = log_key("example.com/other", 1).verifier().to_string();
    for key in [&other_key, &other_name] {
        let said = browser(&[question(file.as_bytes(), key)]).await;
        assert_eq!((&said[0]["verdict"], &said[0]["failed"]), (&json!("failed"), &json!(["signature"])), "{}", said[0]);
        assert_eq!(verify_proof(file.as_bytes(), key).await, None);
    }
    // Neither takes a key that was changed, of another kind, or under which anything is signed.
    let weak = format!("example.com/ledger+00000000+{}", BASE64.encode([&[1][..], &[0; 32]].concat()));
    let witness = witness_key(3).verifier().to_string();
    for bad in [key.replace("example", "exbmple"), key[..key.len() - 4].to_owned(), weak, witness, "x".to_owned()] {
        assert_eq!(browser(&[question(file.as_bytes(), &bad)]).await[0]["verdict"], "bad key", "{bad}");
        let output = ledgerd_with_input(&["verify-proof", "-", "--key", &bad], &Environment::new(), &file).await;
        assert_eq!(output.status.code(), Some(64), "{bad}");
    }
}

fn witness_key(seed: u8) -> WitnessSignerKey {
    let name = KeyName::parse(&format!("witness.example/{seed}")).expect("a name");
    WitnessSignerKey::from_seed(name, &[seed; 32]).expect("a key")
}

#[tokio::test]
async fn the_browser_counts_the_witnesses_that_the_visitor_names() {
    let (_world, file) = a_proof().await;
    let note = file.split_once("\n\n").expect("a checkpoint").1;
    let log = Log::of_key(VerifierKey::parse(&verifier_key()).expect("a key"));
    let checkpoint = SignedCheckpoint::parse(note.as_bytes(), &log).expect("signed");
    let cosigned = |seed: u8| {
        let first = ConsistencyProof { path: Vec::new() };
        let request = AddCheckpoint::new(0, first, &checkpoint).expect("a request");
        let accepted = request.authenticate(std::slice::from_ref(&log)).expect("known").judge(None).expect("grown");
        accepted.cosign(&witness_key(seed), Timestamp::from_posix_seconds(1_771_609_634).expect("a time")).to_string()
    };
    let named = |seeds: &[u8]| seeds.iter().map(|seed| witness_key(*seed).verifier().to_string()).collect::<Vec<_>>();
    let with = |lines: &str, seeds: &[u8]| json!({ "file": BASE64.encode(format!("{file}{lines}")), "key": verifier_key(), "witnesses": named(seeds) });
    let key = verifier_key();
    let (one, two) = (cosigned(3), cosigned(4));
    // A line in the name of the witness over another text: its own signature with one bit less.
    let mut forged = BASE64.decode(one.trim_end().rsplit(' ').next().expect("base64")).expect("base64");
    *forged.last_mut().expect("bytes") ^= 1;
    let forged = format!("— witness.example/3 {}\n", BASE64.encode(&forged));
    let both = format!("{one}{two}");
    let cases = [
        (with(&both, &[3, 4]), true),
        (with(&both, &[]), true),
        (with(&one, &[3]), true),
        (with(&one, &[3, 4]), false),
        (with("", &[3]), false),
        (with(&forged, &[3]), false),
        (with(&forged, &[]), true),
        (with(&both, &[3, 3]), false),
    ];
    let questions: Vec<Value> = cases.iter().map(|(question, _)| question.clone()).collect();
    for ((question, expected), said) in cases.iter().zip(browser(&questions).await) {
        assert_eq!(said["verdict"] == "proven", *expected, "{said}");
        assert_eq!(said["failed"], if *expected { json!([]) } else { json!(["witnesses"]) });
        let bytes = BASE64.decode(question["file"].as_str().expect("text")).expect("base64");
        let witnesses = question["witnesses"].as_array().expect("a list");
        let options = witnesses.iter().flat_map(|key| ["--witness", key.as_str().expect("text")]);
        let arguments: Vec<&str> = ["verify-proof", "-", "--key", &key].into_iter().chain(options).collect();
        let file = String::from_utf8(bytes).expect("UTF-8");
        let output = ledgerd_with_input(&arguments, &Environment::new(), &file).await;
        assert_eq!(output.status.success(), *expected, "{}", text_of(&output));
    }
}

#[tokio::test]
async fn a_page_that_shows_something_else_than_the_proof_is_told() {
    let (_world, file) = a_proof().await;
    let parts = Parts::of(&file);
    let fields = parts.evidence.examine().expect("ours");
    let payload = String::from_utf8(parts.evidence.payload.clone().expect("shown")).expect("UTF-8");
    let said: Value = serde_json::from_str(&payload).expect("JSON");
    let index: u64 = parts.index["index ".len()..].parse().expect("a number");
    let good = json!({
        "index": index.to_string(), "bytes": payload,
        "leaf": { "subject": fields.subject, "sequence": fields.sequence.to_string(), "recordId": fields.record_id },
        "fields": { "actor": said["actor"], "outcome": said["outcome"], "details": said["details"].to_string(), "timestamp": "x" },
    });
    let changed = |path: &str| {
        let mut page = good.clone();
        *page.pointer_mut(path).expect("it is there") = json!("something else");
        page
    };
    let pages = [
        good.clone(),
        changed("/index"),
        changed("/bytes"),
        changed("/leaf/subject"),
        changed("/leaf/recordId"),
        changed("/fields/actor"),
        changed("/fields/outcome"),
        changed("/fields/details"),
    ];
    let ask = |page: &Value| {
        let mut question = question(file.as_bytes(), &verifier_key());
        question["shown"] = page.clone();
        question
    };
    let answers = browser(&pages.iter().map(ask).collect::<Vec<_>>()).await;
    assert_eq!(answers[0]["verdict"], "proven", "{}", answers[0]);
    for said in &answers[1..] {
        assert_eq!(said["failed"], json!(["shown"]), "{said}");
    }
}

#[tokio::test]
async fn the_exported_page_is_one_file_that_its_own_policy_admits() {
    let folder = scratch_folder("verifier");
    let path = folder.path().join("verifier.html");
    // No configuration and no server.
    let arguments = ["console", "--export-verifier", path.to_str().expect("UTF-8")];
    let output = ledgerd(&arguments, &Environment::new()).await;
    assert!(output.status.success(), "{}", text_of(&output));
    let page = std::fs::read_to_string(&path).expect("it was written");
    let policy = page.split("Content-Security-Policy\" content=\"").nth(1).and_then(|rest| rest.split('"').next());
    let policy = policy.expect("a policy").replace("&#39;", "'");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    let inner = |name: &str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let pieces = page.split(&open).skip(1).map(|rest| rest.split(&close).next().expect("it ends").to_owned());
        pieces.collect::<Vec<_>>()
    };
    let (scripts, styles) = (inner("script"), inner("style"));
    assert_eq!((scripts.len(), styles.len()), (2, 1));
    for text in scripts.iter().chain(&styles) {
        let hash = BASE64.encode(::ledgerd::record::digest::sha256(text.as_bytes()));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "{policy}");
    }
    for outside in ["src=", "href=", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The same check as on the page of a record.
    assert_eq!(scripts[0], include_str!("../../src/console/assets/verify.js"));
}
