//! The console in a real browser: the scripts of `tests/browser` open it in headless Chromium.

use crate::support::console::{Console, TOKENS, token_entry};
use crate::support::events::{bad_events, good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::process::{Process, scratch_folder};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{eventually, when};
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

/// Each screen with what its heading matches.
fn screens() -> Value {
    json!([["/timeline", "Timeline"], ["/timeline?actor=NOBODY-01", "Timeline"], ["/login", "Sign in"], ["/nowhere", "Not Found"]])
}

#[tokio::test]
async fn every_screen_is_fit_for_everybody() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    filled(&world).await;
    let console = Console::start(&world.environment).await;
    Script::start("screens.mjs", &console, &json!({ "screens": screens() })).ends().await;
}

#[tokio::test]
async fn the_timeline_is_read_and_filtered() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = filled(&world).await;
    let event = next_event("EXEC");
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    Script::start("timeline.mjs", &console, &json!({ "actor": "BRM-CTO" })).ends().await;
}

#[tokio::test]
async fn people_sign_in() {
    let mut world = World::start().await;
    world.environment.insert(TOKENS.to_owned(), token_entry("secret", "operate", "grace"));
    let console = Console::start(&world.environment).await;
    Script::start("signing_in.mjs", &console, &json!({ "token": "secret" })).ends().await;
}
