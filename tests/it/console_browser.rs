//! The console in a real browser: the scripts of `tests/browser` open it in headless Chromium.

use crate::support::console::{Console, TOKENS, token_entry};
use crate::support::events::{Event, bad_events, good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::process::{Process, scratch_folder};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A script opens each screen several times.
const SCRIPT_MAX: Duration = Duration::from_mins(3);

/// A script that runs in Node.js and moves a Chromium.
struct Script {
    name: &'static str,
    process: Process,
    _folder: TempDir,
}

impl Script {
    /// Starts it against a console. `facts` are what it needs to know of what was published.
    fn start(name: &'static str, console: &Console, facts: &Value) -> Self {
        for (variable, what) in [("LEDGERD_TEST_CHROMIUM", "Chromium"), ("LEDGERD_TEST_BROWSER", "playwright-core")] {
            assert!(
                env::var_os(variable).is_some(),
                "{what} is missing, so the console cannot be tested in a browser: run `make test`, which finds or installs it, \
                 or name it in {variable}"
            );
        }
        let folder = scratch_folder("browser");
        let mut command = Command::new("node");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(name))
            .arg(format!("http://127.0.0.1:{}", console.port()))
            .arg(facts.to_string())
            // Chromium writes to its home, which may be closed to it.
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path());
        let process = Process::spawn(name, command, &folder.path().join("script.log"));
        Self { name, process, _folder: folder }
    }

    /// Waits until it has printed this.
    async fn says(&mut self, line: &str) {
        eventually(&format!("{} says {line}", self.name), SCRIPT_MAX, || {
            let log = self.process.log();
            let ended = self.process.exit_status();
            assert!(ended.is_none() || log.contains(line), "{}: {ended:?}\n{log}", self.name);
            async move { when(log.contains(line), || log) }
        })
        .await;
    }

    /// Waits until it has ended well.
    async fn ends(mut self) {
        let status = eventually(&format!("{} ends", self.name), SCRIPT_MAX, || {
            let (status, log) = (self.process.exit_status(), self.process.log());
            async move { status.ok_or(log) }
        })
        .await;
        assert!(status.success(), "{}:\n{}", self.name, self.process.log());
    }
}

/// A ledger with records of every lane and rejects of every kind.
async fn filled(world: &World) -> Published {
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(150)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    check_ledger(world, &published).await;
    published
}

/// Each screen with what its heading matches: with something to show, and with nothing.
fn screens(task: &str, reject: i64) -> Value {
    json!([
        ["/", "."],
        ["/money", "Money"],
        ["/money/RXY-CEO", "RXY-CEO"],
        ["/rejects", "Rejects"],
        [format!("/rejects/{reject}"), "Reject"],
        ["/trust", "Trust"],
        ["/timeline", "Timeline"],
        ["/timeline?actor=NOBODY-01", "Timeline"],
        [format!("/task/{task}"), task],
        ["/proposal/SRN-TEL-1", "SRN-TEL-1"],
        ["/search", "Search"],
        ["/record/60", "."],
        ["/notifications", "Notifications"],
        ["/login", "Sign in"],
        ["/nowhere", "Not Found"],
    ])
}

/// The log's name.
const LOG: &str = "example.com/ledger";

/// An event of a task of its own.
fn event_of_task(n: u32) -> (Event, String) {
    let task = format!("TASK-BROWSER-{n}");
    (next_event("EXEC").with("task_id", task.as_str()), task)
}

#[tokio::test]
async fn every_screen_is_fit_for_everybody() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = filled(&world).await;
    let (event, task) = event_of_task(1);
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    let reject = world.database.count("select max(leaf_index) from ledger.dead_letter").await;
    Script::start("screens.mjs", &console, &json!({ "screens": screens(&task, reject) })).ends().await;
}

#[tokio::test]
async fn screens_with_nothing_to_show_say_so() {
    let world = World::start().await;
    let console = Console::start(&world.environment).await;
    let screens = json!([
        ["/", "."],
        ["/timeline", "Timeline"],
        ["/money", "Money"],
        ["/rejects", "Rejects"],
        ["/trust", "Trust"],
        ["/notifications", "Notifications"],
    ]);
    Script::start("screens.mjs", &console, &json!({ "screens": screens })).ends().await;
}

#[tokio::test]
async fn an_operator_decides_in_the_browser() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = filled(&world).await;
    let rejected = async |published: &mut Published| {
        let bad = next_event("EXEC").with("action", "WORLD_DOMINATED").bad("unknown_action");
        published.publish(&world.publisher, bad).await;
        check_ledger(&world, published).await;
        world.database.count("select max(leaf_index) from ledger.dead_letter where reason = 'unknown_action'").await
    };
    let (leaf, second) = (rejected(&mut published).await, rejected(&mut published).await);
    let mut environment = world.environment.clone();
    let tokens = [token_entry("reader", "read", "ada"), token_entry("operator", "operate", "grace")];
    environment.insert(TOKENS.to_owned(), tokens.join(","));
    let url = environment["LEDGERD__DATABASE__URL"].clone();
    environment.insert("LEDGERD__CONSOLE__OPERATOR_DATABASE_URL".to_owned(), url);
    let console = Console::start(&environment).await;
    let facts = json!({ "leaf": leaf, "second": second, "reader": "reader", "operator": "operator" });
    Script::start("rejects.mjs", &console, &facts).ends().await;
    assert_eq!(world.database.count("select count(*) from ledger.resolution where decided_by = 'grace'").await, 1);
}

#[tokio::test]
async fn the_timeline_is_read_filtered_and_followed() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = filled(&world).await;
    let (event, task) = event_of_task(2);
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    let awaited_task = "TASK-AWAITED";
    let awaited = next_event("SYS").with("task_id", awaited_task);
    let facts = json!({ "task": task, "awaited": awaited_task });
    let mut script = Script::start("timeline.mjs", &console, &facts);
    script.says("ready: publish").await;
    published.publish(&world.publisher, awaited.good()).await;
    script.ends().await;
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn a_proof_is_checked_in_the_browser() {
    let folder = scratch_folder("signed");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let builder = World::builder().env("LEDGERD__CHECKPOINT__KEY_FILE", &path("key"));
    let builder = builder.env("LEDGERD__CHECKPOINT__ANCHOR_FILE", &path("anchor"));
    let world = builder.env("LEDGERD__CHECKPOINT__INTERVAL", "50ms").start().await;
    let keygen = async |name: &str| world.ledgerd_ok(&["keygen", "--name", LOG, "--out", &path(name)]).await;
    let (key, other_key) = (keygen("key").await, keygen("other-key").await);
    let _daemon = world.daemon().await;
    let mut published = filled(&world).await;
    let (event, _) = event_of_task(4);
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    eventually("the whole tree is signed", SOON, async || {
        let size = world.database.count("select size from ledger.tree_head").await;
        let signed = world.database.count("select coalesce(max(tree_size), 0) from ledger.checkpoint").await;
        when(signed == size, || format!("{signed} of {size} leaves"))
    })
    .await;
    let leaf = world.database.count("select size - 1 from ledger.tree_head").await;
    let console = Console::start(&world.environment).await;
    let proof = console.get(&format!("/api/v1/records/{leaf}/proof")).await.text();
    let empty_lines = proof.split('\n').enumerate().filter(|(_, line)| line.is_empty()).map(|(number, _)| number);
    let facts = json!({
        "leaf": leaf,
        "event": event.event_id(),
        "key": key.trim(),
        "otherKey": other_key.trim(),
        "proofLines": proof.split('\n').count(),
        "emptyLines": empty_lines.collect::<Vec<_>>(),
        "folder": folder.path(),
    });
    Script::start("record.mjs", &console, &facts).ends().await;
}

#[tokio::test]
async fn people_sign_in() {
    let mut world = World::start().await;
    world.environment.insert(TOKENS.to_owned(), token_entry("secret", "operate", "grace"));
    let console = Console::start(&world.environment).await;
    Script::start("signing_in.mjs", &console, &json!({ "token": "secret" })).ends().await;
}
