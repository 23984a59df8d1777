//! The code that README.md shows to the authors of agents does what it says.

use crate::support::events::LANES;
use crate::support::process::scratch_folder;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const README: &str = include_str!("../../README.md");

/// The one block of code in this language.
fn code(language: &str) -> &'static str {
    let begin = format!("```{language}\n");
    let mut blocks = README.split(&begin).skip(1);
    let block = blocks.next().unwrap_or_else(|| panic!("README.md has code in {language}"));
    assert!(blocks.next().is_none(), "README.md has several blocks in {language}");
    block.split("```").next().expect("a block ends")
}

/// Where the packages are that the code imports: `scripts/servers.py env` says so.
fn packages(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: see scripts/servers.py")).into()
}

async fn run(mut command: Command) -> Output {
    let output =
        tokio::task::spawn_blocking(move || command.output().expect("it can be started")).await.expect("it ends");
    let printed = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed:?}");
    assert!(printed.0.contains("is in the stream as"), "{printed:?}");
    output
}

fn write(folder: &Path, name: &str, language: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, code(language)).expect("the code can be written");
    file
}

#[tokio::test]
async fn what_it_shows_to_authors_in_python_and_node_is_recorded() {
    assert!(LANES.contains(&"EXEC") && LANES.contains(&"TOKENS"));
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let folder = scratch_folder("readme");
    let url = world.nats().url();

    let mut python = Command::new("python3");
    python.arg(write(folder.path(), "publish.py", "python")).args([&url, "BRM-CTO"]);
    run({
        python.env("PYTHONPATH", packages("LEDGERD_TEST_PYTHON_CLIENTS"));
        python
    })
    .await;

    std::os::unix::fs::symlink(packages("LEDGERD_TEST_NODE_CLIENTS"), folder.path().join("node_modules"))
        .expect("the packages can be linked");
    let mut node = Command::new("node");
    node.arg(write(folder.path(), "publish.mjs", "js")).args([&url, "BRM-CTO"]);
    run(node).await;

    eventually("both are recorded", SOON, async || {
        let events = "select count(*) from audit_events where actor = 'BRM-CTO' and action = 'EXECUTION_STARTED'";
        let days = "select count(*) from token_ledger where agent_name = 'BRM-CTO' and total_tokens_input = 1200";
        let found = (world.database.count(events).await, world.database.count(days).await);
        when(found == (1, 1), || format!("{found:?}"))
    })
    .await;
}
