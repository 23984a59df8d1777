//! The API under schemathesis: every answer is as its OpenAPI document says, whatever is asked.

use crate::support::console::{Console, TOKENS, token_entry};
use crate::support::events::{bad_events, good_events};
use crate::support::eventually;
use crate::support::ledger::check_ledger;
use crate::support::process::{Process, scratch_folder};
use crate::support::published::Published;
use crate::support::world::World;
use std::env;
use std::process::Command;
use std::time::Duration;

const TOKEN: &str = "a-token-of-a-reader";

/// Questions for each address, and the seconds for all of them.
const EXAMPLES: &str = "30";
const QUESTIONS_SECONDS: &str = "60";
/// A busy machine takes longer to begin and to end.
const SCHEMATHESIS_MAX: Duration = Duration::from_mins(8);

#[tokio::test]
async fn the_api_answers_as_its_document_says() {
    let packages = env::var_os("LEDGERD_TEST_SCHEMATHESIS").expect(
        "schemathesis is missing: run `make test`, which installs it, or name its folder in LEDGERD_TEST_SCHEMATHESIS",
    );
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(60)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    check_ledger(&world, &published).await;
    let mut environment = world.environment.clone();
    environment.insert(TOKENS.to_owned(), token_entry(TOKEN, "read", "ada"));
    let console = Console::start(&environment).await;

    let folder = scratch_folder("schemathesis");
    let mut command = Command::new("python3");
    command
        .args(["-m", "schemathesis.cli", "run", "--checks", "all", "--max-examples", EXAMPLES])
        .args(["--max-time", QUESTIONS_SECONDS])
        // Streams have no end. A cursor is a text to the schema, and only what a page gave is one.
        .args(["--exclude-path-regex", "/live", "--exclude-checks", "positive_data_acceptance,ignored_auth"])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--request-timeout", "10", "--generation-deterministic", "--no-color", "--workers", "2"])
        .arg(format!("http://127.0.0.1:{}/api/v1/openapi.json", console.port()))
        .env("PYTHONPATH", packages)
        .env("HOME", folder.path())
        .current_dir(folder.path());
    let mut process = Process::spawn("schemathesis", command, &folder.path().join("schemathesis.log"));
    let status = eventually("schemathesis ends", SCHEMATHESIS_MAX, || {
        let (status, log) = (process.exit_status(), process.log_tail());
        async move { status.ok_or(log) }
    })
    .await;
    assert!(status.success(), "{}", process.log());
}
