//! The code that README.md shows to the authors of agents does what it says.

use crate::support::http::ask;
use crate::support::process::scratch_folder;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Runs it beside the runtime, and returns what it prints.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

fn write(folder: &Path, name: &str, language: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, code(language)).expect("the code can be written");
    file
}

#[tokio::test]
async fn what_it_shows_to_authors_in_python_and_node_is_recorded() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let folder = scratch_folder("readme");
    let url = world.nats().url();

    let mut python = Command::new("python3");
    python.arg(write(folder.path(), "publish.py", "python")).args([&url, "BRM-CTO"]);
    python.env("PYTHONPATH", packages("LEDGERD_TEST_PYTHON_CLIENTS"));
    assert!(run(python).await.contains("is in the stream as"));

    std::os::unix::fs::symlink(packages("LEDGERD_TEST_NODE_CLIENTS"), folder.path().join("node_modules"))
        .expect("the packages can be linked");
    let mut node = Command::new("node");
    node.arg(write(folder.path(), "publish.mjs", "js")).args([&url, "BRM-CTO"]);
    assert!(run(node).await.contains("is in the stream as"));

    eventually("both are recorded", SOON, async || {
        let events = "select count(*) from audit_events where actor = 'BRM-CTO' and action = 'EXECUTION_STARTED'";
        let days = "select count(*) from token_ledger where agent_name = 'BRM-CTO' and total_tokens_input = 1200";
        let found = (world.database.count(events).await, world.database.count(days).await);
        when(found == (1, 1), || format!("{found:?}"))
    })
    .await;
}

/// What n8n does with the two nodes: the code of the first, then the second's expressions over its result and the environment.
const N8N: &str = r#"
const [nodes, $env] = process.argv.slice(2).map(JSON.parse);
const [{ json: $json }] = new Function(nodes.nodes[0].parameters.jsCode)();
const value = (text) => (text.startsWith("=") ? text.slice(1).replace(/\{\{(.*?)\}\}/g, (_, code) => eval(code)) : text);
const { url, headerParameters, jsonBody } = nodes.nodes[1].parameters;
const headers = headerParameters.parameters.map(({ name, value: text }) => [name, value(text)]);
console.log(JSON.stringify({ url: value(url), headers, body: value(jsonBody) }));
"#;

#[tokio::test]
async fn the_nodes_that_it_shows_to_n8n_are_answered_with_logged() {
    let token = "a-secret";
    let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    let world = World::builder().env("LEDGERD__WEBHOOKS__TOKENS", &format!("{hash} N8N_SANITIZER")).start().await;
    let daemon = world.daemon().await;
    let folder = scratch_folder("n8n");
    let script = folder.path().join("n8n.js");
    std::fs::write(&script, N8N).expect("the script can be written");
    let environment = serde_json::json!({
        "HEGEMON_AUDIT_WEBHOOK": format!("http://127.0.0.1:{}/webhook/hegemon-audit-log", daemon.http_port()), "HEGEMON_TOKEN": token,
    });
    let mut node = Command::new("node");
    node.arg(script).args([code("json n8n"), &environment.to_string()]);
    let request: Value = serde_json::from_str(&run(node).await).expect("JSON");

    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let header = (text(&request["headers"][0][0]), text(&request["headers"][0][1]));
    let url = text(&request["url"]);
    let path = &url[url.find("/webhook").expect("a path")..];
    let body = text(&request["body"]);
    let answer =
        ask(daemon.http_port(), "POST", path, &[(&header.0, &header.1)], body.as_bytes()).await.expect("an answer");
    let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((answer.status, said["status"].as_str()), (200, Some("LOGGED")), "{said}");
}
