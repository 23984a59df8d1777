//! The witness as a process, and the log that asks it over HTTP.

use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::events::{good_events, next_event};
use crate::support::http::{HttpAnswer, ask};
use crate::support::ledger::check_ledger;
use crate::support::port::free_port;
use crate::support::process::{Process, scratch_folder};
use crate::support::published::Published;
use crate::support::signed::{fill, key, log_key, sign, sign_at, signed, verifier_key};
use crate::support::world::World;
use crate::support::{SOON, eventually};
use ledgerd::log::cosign::{WitnessEndpoint, Witnesses};
use ledgerd::log::http_client::Client;
use ledgerd::log::queries::LogStore;
use ledgerd::postgres::connections::{ConnectionLimits, Connections};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tlog::checkpoint::SignedCheckpoint;
use tlog::cosignature::{self, collect};
use tlog::key::KeyName;
use tlog::note::SignerKey;
use tlog::plan::{ConsistencyPlan, Hashes, RootPlan};
use tlog::proof::ConsistencyProof;
use tlog::tree::{Frontier, Hash, leaf_hash};
use tlog::witness::AddCheckpoint;
use tokio::net::TcpStream;

fn witness_key(seed: u8) -> cosignature::WitnessSignerKey {
    let name = KeyName::parse(&format!("witness{seed}.example")).expect("a name");
    cosignature::WitnessSignerKey::from_seed(name, &[seed; 32]).expect("a key")
}

/// A running `ledgerd-witness`, with a folder that outlives it.
struct Running {
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Running {
    async fn start(seed: u8) -> Self {
        let folder = scratch_folder("witness");
        std::fs::create_dir(folder.path().join("state")).expect("ours");
        std::fs::write(folder.path().join("key"), witness_key(seed).secret_text() + "\n").expect("ours");
        let port = free_port();
        let process = Self::spawn(folder.path(), port);
        let mut running = Self { process, port, folder };
        running.ready().await;
        running
    }

    fn spawn(folder: &Path, port: u16) -> Process {
        let (listen, logs) = (format!("127.0.0.1:{port}"), [verifier_key(), other_key().verifier().to_string()]);
        let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
        // The other program of this workspace, which `make test` has built beside this one.
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_ledgerd")).with_file_name("ledgerd-witness"));
        command.args(["serve", "--listen", &listen, "--key-file", &path("key"), "--state", &path("state")]);
        command.args(["--log", &logs[0], "--log", &logs[1]]).env_remove("NOTIFY_SOCKET");
        Process::spawn("ledgerd-witness", command, &folder.join("log"))
    }

    async fn ready(&mut self) {
        eventually("the witness listens", SOON, || {
            let status = self.process.exit_status();
            assert!(status.is_none(), "it has ended: {status:?}\n{}", self.process.log_tail());
            let port = self.port;
            async move { TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string()) }
        })
        .await;
    }

    async fn kill_and_start(&mut self) {
        self.process.kill();
        self.process = Self::spawn(self.folder.path(), self.port);
        self.ready().await;
    }

    async fn submit(&self, request: &Request) -> Result<HttpAnswer, String> {
        ask(self.port, "POST", "/add-checkpoint", &[], request.body.as_bytes()).await
    }

    async fn status(&self, request: &Request) -> u16 {
        self.submit(request).await.expect("it answers").status
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn other_key() -> SignerKey {
    log_key("example.com/other", 7)
}

/// A request about a log of the test's own; from the leaf `forked` on it is another's.
struct Request {
    checkpoint: SignedCheckpoint,
    body: String,
}

fn request(key: &SignerKey, old: u64, new: u64, forked: u64) -> Request {
    let leaf = |index: u64| -> Hash { leaf_hash(&(index + (u64::from(index >= forked) << 40)).to_be_bytes()) };
    let (mut frontier, mut completed) = (Frontier::EMPTY, Vec::new());
    let size = new.max(old);
    (0..size).for_each(|index| frontier.append(leaf(index), &mut completed));
    let subtrees = completed
        .iter()
        .map(|subtree| (u8::try_from(subtree.level).expect("small"), subtree.index.unsigned_abs(), subtree.hash));
    let hashes: Hashes = (0..size).map(|index| (0, index, leaf(index))).chain(subtrees).collect();
    let checkpoint = signed(RootPlan::new(new).build(&hashes).expect("all is there"), key);
    let proof = ConsistencyPlan::new(old, new).map(|plan| plan.build(&hashes).expect("all is there"));
    let proof = proof.unwrap_or(ConsistencyProof { path: Vec::new() });
    let body = AddCheckpoint::new(old, proof, &checkpoint).expect("short").to_string();
    Request { checkpoint, body }
}

const HONEST: u64 = u64::MAX;

#[tokio::test]
async fn it_cosigns_growth_alone_and_remembers_it() {
    let mut witness = Running::start(2).await;
    let key = key();
    let first = request(&key, 0, 300, HONEST);
    let answer = witness.submit(&first).await.expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut checkpoint = first.checkpoint.clone();
    let known = [witness_key(2).verifier().clone()];
    assert_eq!(collect(&mut checkpoint, &answer.text(), &known), Ok(1), "{}", answer.text());

    // A shrink, a fork of the same size, a fork behind it, and strangers.
    let stale = witness.submit(&request(&key, 200, 250, HONEST)).await.expect("it answers");
    assert_eq!((stale.status, stale.header("content-type"), &*stale.text()), (409, "text/x.tlog.size", "300\n"));
    // The proof is not the log's: nothing of the request is kept, and the log is not blamed.
    assert_eq!(witness.status(&request(&key, 300, 400, 299)).await, 422);
    let bad_proof =
        request(&key, 300, 400, HONEST).body.replacen("old 300\n", &format!("old 300\n{}=\n", "A".repeat(43)), 1);
    let answer = ask(witness.port, "POST", "/add-checkpoint", &[], bad_proof.as_bytes()).await.expect("it answers");
    assert_eq!(answer.status, 422, "{}", answer.text());
    let log = witness.process.log();
    assert!(log.contains(r#""status":422"#) && !log.contains("ERROR") && !log.contains("AAAAAAAA"), "{log}");
    let forked = witness.submit(&request(&key, 300, 300, 299)).await.expect("it answers");
    assert_eq!(forked.status, 422);
    assert_ne!(forked.header("content-type"), "text/x.tlog.size", "there is nothing to try again");
    assert_eq!(witness.status(&request(&key, 300, 299, HONEST)).await, 400);
    assert_eq!(witness.status(&request(&log_key("example.com/unknown", 1), 0, 3, HONEST)).await, 404);
    assert_eq!(witness.status(&request(&log_key("example.com/ledger", 9), 300, 400, HONEST)).await, 403);
    let log = witness.process.log();
    assert!(log.contains("FORK") && log.contains("the log signed two trees of one size"), "{log}");
    let evidence = witness.folder.path().join("state/example.com%2Fledger.checkpoint.fork-300");
    assert!(std::fs::read_to_string(evidence).expect("it is kept").contains(&first.checkpoint.to_string()));
    for (method, path, body, status) in [
        ("POST", "/add-checkpoint", &b"good morning"[..], 400),
        ("POST", "/add-checkpoint", &[0xff; 40][..], 400),
        ("GET", "/add-checkpoint", b"", 405),
        ("GET", "/00/checkpoint", b"", 404),
        ("GET", &format!("/{}/checkpoint", first.checkpoint.checkpoint().origin().sha256_hex()), b"", 200),
        ("POST", "/", b"", 404),
        ("POST", "/add-checkpoint", &vec![b'x'; 2_000_000], 413),
    ] {
        // It may hang up on a body that is too long before it was sent.
        let answer = ask(witness.port, method, path, &[], body).await;
        assert_eq!(answer.map_or(413, |answer| answer.status), status, "{method} {path}");
    }

    // The other log has a state of its own; a restart forgets neither.
    assert_eq!(witness.status(&request(&other_key(), 0, 5, HONEST)).await, 200);
    witness.kill_and_start().await;
    assert_eq!(witness.status(&request(&other_key(), 5, 6, HONEST)).await, 200);
    assert_eq!(witness.status(&request(&key, 300, 400, HONEST)).await, 200);
    witness.process.signal("TERM");
    assert_eq!(witness.process.wait_exit(SOON).await, 0);

    // Without its state it would be no witness.
    std::fs::write(witness.folder.path().join("state/example.com%2Fledger.checkpoint"), "").expect("ours");
    let mut process = Running::spawn(witness.folder.path(), witness.port);
    assert_eq!(process.wait_exit(SOON).await, 78);
    assert!(process.log().contains("is not the last checkpoint of its log"), "{}", process.log());
}

#[tokio::test]
async fn whenever_it_is_killed_it_remembers_what_it_said() {
    let mut witness = Running::start(2).await;
    let key = key();
    let (mut said, mut killed_unanswered) = (0, 0);
    for round in 0..25_u64 {
        let delay = Duration::from_micros(round * 173 % 2500);
        let mut requests = Vec::new();
        for step in 1..=3 {
            requests.push(request(&key, said, said + step, HONEST));
        }
        let submitting = async {
            let mut answered = None;
            for request in &requests {
                match witness.submit(request).await {
                    Ok(answer) if answer.status == 200 => answered = Some(request.checkpoint.head().size),
                    Ok(answer) => assert_eq!(answer.status, 409, "{}", answer.text()),
                    Err(_) => return (answered, true),
                }
            }
            (answered, false)
        };
        let pid = witness.process.pid();
        let killing = async {
            tokio::time::sleep(delay).await;
            crate::support::process::signal_all("KILL", &[pid]);
        };
        let ((answered, unanswered), ()) = tokio::join!(submitting, killing);
        killed_unanswered += u32::from(unanswered);
        witness.kill_and_start().await;
        // It tells its size to whoever asks with another.
        let probe = witness.submit(&request(&key, 1_000, 1_001, HONEST)).await.expect("it answers");
        assert_eq!(probe.status, 409, "{}", probe.text());
        let remembered: u64 = probe.text().trim().parse().expect("a size");
        assert!(remembered >= answered.unwrap_or(said), "it said {answered:?} and remembers {remembered}");
        said = remembered;
    }
    assert!(killed_unanswered > 0, "no kill came in time to mean anything");
}

#[tokio::test]
async fn of_two_at_once_the_second_is_judged_by_the_first() {
    let witness = Running::start(2).await;
    let key = key();
    let mut old = 0;
    for _ in 0..20 {
        let requests = [old + 10, old + 20, old + 10].map(|new| request(&key, old, new, HONEST));
        let [one, two, three] = requests.each_ref().map(|request| witness.status(request));
        let (one, two, three) = tokio::join!(one, two, three);
        let cosigned = [one, two, three].iter().filter(|status| **status == 200).count();
        assert_eq!(cosigned, 1, "{one} {two} {three}");
        old += if two == 200 { 20 } else { 10 };
    }
    // Both continue what it has seen; only one of them is ever cosigned.
    let (honest, forked) = (request(&key, old, old + 10, HONEST), request(&key, old, old + 10, old + 5));
    let (one, two) = tokio::join!(witness.status(&honest), witness.status(&forked));
    assert_eq!([one, two].iter().filter(|status| **status == 200).count(), 1, "{one} {two}");
}

fn log_of(world: &World) -> LogStore {
    let limits = ConnectionLimits { connect: Duration::from_secs(5), statement: Duration::from_secs(10) };
    LogStore(Connections::new(&world.database.url(), limits, 1).expect("a URL"))
}

#[tokio::test]
async fn a_log_collects_cosignatures_and_a_proof_carries_them() {
    let world = World::builder().without_streams().start().await;
    let (one, two) = (Running::start(2).await, Running::start(3).await);
    let gone = free_port();
    let texts = [
        format!("{} {}", one.url(), witness_key(2).verifier()),
        format!("http://127.0.0.1:{gone}/ {}", witness_key(4).verifier()),
        format!("{}/ {}", two.url(), witness_key(3).verifier()),
    ];
    let parse = |text: &String| WitnessEndpoint::parse(text).expect("a witness");
    let all = || texts.iter().map(parse).collect::<Vec<_>>();
    let client = || Client::new().expect("certificates");
    let witnesses = Witnesses::new(all(), client(), Duration::from_secs(10));
    let log = log_of(&world);
    for size in [40, 41, 600] {
        fill(&world.database, size).await;
        let mut checkpoint = sign(&world.database).await;
        let outcomes = witnesses.cosign(&mut checkpoint, &log).await;
        let good: Vec<bool> = outcomes.iter().map(|(_, outcome)| outcome.is_ok()).collect();
        assert_eq!(good, [true, false, true], "{outcomes:?}");
        log.keep_cosignatures(&checkpoint, &witnesses.keys()).await.expect("the table is there");
        log.keep_cosignatures(&checkpoint, &witnesses.keys()).await.expect("twice is once");
    }
    // A log that was started anew does not know how far the witnesses are.
    let anew = Witnesses::new(all(), client(), Duration::from_secs(10));
    fill(&world.database, 700).await;
    let mut checkpoint = sign(&world.database).await;
    assert_eq!(anew.cosign(&mut checkpoint, &log).await.iter().filter(|(_, outcome)| outcome.is_ok()).count(), 2);
    // It was not kept, so a proof takes the newest checkpoint that was cosigned.
    let file = one.folder.path().join("proof");
    let out = file.to_str().expect("UTF-8");
    let report: Value =
        serde_json::from_str(&world.ledgerd_ok(&["prove", "FILLED-50", "--out", out, "--json"]).await).expect("JSON");
    assert_eq!((report["tree_size"].as_u64(), report["cosignatures"].as_u64()), (Some(600), Some(2)));
    let keys = [2, 3, 4].map(|seed| witness_key(seed).verifier().to_string());
    let verify = async |arguments: &[&str]| {
        let log_key = verifier_key();
        let output =
            ledgerd(&[&["verify-proof", out, "--key", &log_key], arguments].concat(), &Environment::new()).await;
        (output.status.code(), text_of(&output))
    };
    let (code, text) = verify(&["--witness", &keys[0], "--witness", &keys[1]]).await;
    assert!(code == Some(0) && text.contains("cosigned by witness2.example, witness3.example"), "{text}");
    let (code, text) = verify(&["--witness", &keys[0], "--witness", &keys[2]]).await;
    assert!(code == Some(3) && text.contains("2 known witnesses, found 1"), "{text}");
    let (code, text) = verify(&["--witness", &keys[0], "--witness", &keys[2], "--witnesses-min", "1"]).await;
    assert_eq!(code, Some(0), "{text}");

    // The log was restored from an old backup, and grew again: the witnesses have seen another.
    let mut smaller = sign_at(&world.database, 500).await;
    let outcomes = anew.cosign(&mut smaller, &log).await;
    assert!(
        outcomes[0].1.as_ref().is_err_and(|why| why.to_string().contains("larger tree, of size 700")),
        "{outcomes:?}"
    );
    let mut head = checkpoint.head();
    head.root = [7; 32];
    let mut forked = signed(head, &key());
    let outcomes = anew.cosign(&mut forked, &log).await;
    assert!(outcomes[2].1.as_ref().is_err_and(|why| why.to_string().contains("another tree")), "{outcomes:?}");
}

/// From a published event to a file that a stranger checks: signed by the daemon, cosigned by a witness elsewhere, proven.
#[tokio::test]
async fn what_the_daemon_signs_is_cosigned_and_proven_to_a_stranger() {
    let witness = Running::start(21).await;
    let folder = scratch_folder("log");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(file("key"), key().secret_text() + "\n").expect("ours");
    let world = World::builder()
        .env("LEDGERD__CHECKPOINT__KEY_FILE", &file("key"))
        .env("LEDGERD__CHECKPOINT__ANCHOR_FILE", &file("anchor"))
        .env("LEDGERD__CHECKPOINT__INTERVAL", "50ms")
        .env("LEDGERD__CHECKPOINT__WITNESSES", &format!("{} {}", witness.url(), witness_key(21).verifier()))
        .start()
        .await;
    let _daemon = world.daemon().await;
    let event = next_event("EXEC");
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(300)).await;
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    eventually("the whole tree is cosigned", SOON, async || {
        let cosigned =
            "select coalesce(max(tree_size), 0) = (select size from ledger.tree_head) from ledger.cosignature";
        let done = world.database.count(&format!("select ({cosigned})::int::bigint")).await;
        if done == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    world.ledgerd_ok(&["prove", event.event_id(), "--out", &file("proof")]).await;
    let (log_key, witness_key) = (verifier_key(), witness_key(21).verifier().to_string());
    let arguments = ["verify-proof", &file("proof"), "--key", &log_key, "--witness", &witness_key];
    let output = ledgerd(&arguments, &Environment::new()).await;
    let text = text_of(&output);
    assert!(output.status.success() && text.contains(event.event_id()) && text.contains("witness21.example"), "{text}");
    // And the whole of it, against the anchor and the log's key.
    let said = world.ledgerd(&["verify", "--anchor", &file("anchor"), "--key", &log_key]).await;
    assert_eq!(said.status.code(), Some(0), "{}", text_of(&said));
    let other = other_key().verifier().to_string();
    let said = world.ledgerd(&["verify", "--anchor", &file("anchor"), "--key", &other]).await;
    assert_eq!(said.status.code(), Some(78), "another log's anchor: {}", text_of(&said));
}
