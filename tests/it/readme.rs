//! The code that README.md and the pages of docs/ show does what it says.

use crate::support::console::{Console, TOKENS, token_entry};
use crate::support::daemon::Daemon;
use crate::support::http::ask;
use crate::support::postgres::PASSWORD;
use crate::support::process::scratch_folder;
use crate::support::records::{AGENT_ID, metric};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::process::Command;

const README: &str = include_str!("../../README.md");
const PUBLISH: &str = include_str!("../../docs/publish.md");
const OPERATE: &str = include_str!("../../docs/operate.md");
const REJECTS: &str = include_str!("../../docs/rejects.md");
const CONSOLE: &str = include_str!("../../docs/console.md");
const VERIFY: &str = include_str!("../../docs/verify.md");

/// The one block of code in this language.
fn code(document: &'static str, language: &str) -> &'static str {
    let begin = format!("```{language}\n");
    let mut blocks = document.split(&begin).skip(1);
    let block = blocks.next().unwrap_or_else(|| panic!("there is code in {language}"));
    assert!(blocks.next().is_none(), "there are several blocks in {language}");
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

/// A program in a folder of its own, beside the packages that it imports.
async fn run_python(block: &str, packages_in: &str, arguments: &[&str]) -> String {
    let folder = scratch_folder("readme");
    let file = folder.path().join("publish.py");
    std::fs::write(&file, block).expect("the code can be written");
    let mut python = Command::new("python3");
    python.arg(file).args(arguments).env("PYTHONPATH", packages(packages_in));
    run(python).await
}

async fn run_node(block: &str, packages_in: &str, arguments: &[&str]) -> String {
    let folder = scratch_folder("readme");
    let file = folder.path().join("publish.mjs");
    std::fs::write(&file, block).expect("the code can be written");
    std::os::unix::fs::symlink(packages(packages_in), folder.path().join("node_modules")).expect("they can be linked");
    let mut node = Command::new("node");
    node.arg(file).args(arguments);
    run(node).await
}

/// A server that lets in whoever has the login, which stands in the URL.
async fn start_with_login() -> (World, String) {
    let world = World::builder().nats_login("agent", "a-password").start().await;
    let url = world.nats().url_of(world.nats().login().expect("it has one"));
    (world, url)
}

async fn is_counted(world: &World, select: &str, expected: i64) {
    eventually(select, SOON, async || {
        let found = world.database.count(select).await;
        when(found == expected, || found.to_string())
    })
    .await;
}

const STARTED: &str = "select count(*) from audit_events where actor = 'BRM-CTO' and action = 'EXECUTION_STARTED'";

#[tokio::test]
async fn the_programs_in_python_and_node_publish_with_a_login() {
    let (world, url) = start_with_login().await;
    let _daemon = world.daemon().await;
    for (document, times) in [(README, 1), (PUBLISH, 2)] {
        let printed = run_python(code(document, "python"), "LEDGERD_TEST_PYTHON_CLIENTS", &[&url, "BRM-CTO"]).await;
        assert!(printed.contains("is in the stream as"), "{printed}");
        is_counted(&world, STARTED, times).await;
        let printed = run_node(code(document, "js"), "LEDGERD_TEST_NODE_CLIENTS", &[&url, "BRM-CTO"]).await;
        assert!(printed.contains("is in the stream as"), "{printed}");
        let tokens =
            "select coalesce(sum(total_tokens_input), 0)::bigint from token_ledger where agent_name = 'BRM-CTO'";
        is_counted(&world, tokens, 1200 * times).await;
    }
}

/// The words of a command line; the comment behind it is left out.
fn words(line: &str) -> Vec<&str> {
    let command = line.split(" #").next().expect("a line has a beginning");
    let parts = command.split('"').enumerate();
    parts
        .flat_map(|(number, part)| if number % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
        .collect()
}

/// The arguments of each command in a block, without the name of the program.
fn commands(document: &'static str, language: &str) -> Vec<Vec<&'static str>> {
    let lines = code(document, language).lines().map(words);
    lines.map(|words| words.strip_prefix(&["ledgerd"]).expect("a command of ours").to_vec()).collect()
}

#[tokio::test]
async fn the_event_of_the_command_line_is_logged() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    for arguments in commands(PUBLISH, "sh emit") {
        world.ledgerd_ok(&arguments).await;
    }
    is_counted(&world, STARTED, 1).await;
}

#[tokio::test]
async fn the_operators_queries_and_commands_are_understood() {
    const USAGE: i32 = 64;
    let world = World::start().await;
    world.database.execute(code(OPERATE, "sql")).await;
    world.database.execute(code(VERIFY, "sql")).await;
    for arguments in [commands(OPERATE, "sh replay"), commands(VERIFY, "sh range")].concat() {
        world.ledgerd_ok(&arguments).await;
    }
    for arguments in commands(OPERATE, "sh dead-letters") {
        let output = world.ledgerd(&arguments).await;
        assert_ne!(output.status.code(), Some(USAGE), "ledgerd {arguments:?}: {output:?}");
    }
}

/// Subject and record of each line `nats req SUBJECT 'RECORD'`.
fn requests(document: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = document.lines().filter_map(|line| line.strip_prefix("nats req "));
    lines.map(|line| {
        line.split_once(' ').map(|(subject, record)| (subject, record.trim_matches('\''))).expect("two words")
    })
}

/// The good record of each kind, in the order in which docs/rejects.md shows them.
fn good_records() -> impl Iterator<Item = (String, &'static str)> {
    let mine = format!("USAGE.{AGENT_ID}");
    let subjects =
        ["EXEC.BRM-CTO", "TOKENS.RXY-CEO", "TRAIL.RXY-CEO", "METRIC.VRA-CFO", mine.as_str()].map(str::to_owned);
    let blocks: Vec<_> = REJECTS.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), subjects.len(), "{blocks:#?}");
    subjects.into_iter().map(|subject| format!("ledger.{subject}")).zip(blocks)
}

#[tokio::test]
async fn the_good_records_of_the_pages_are_no_rejects() {
    const ENTRIES: &str = "select count(*) from ledger.entry";
    let world = World::start().await;
    world.database.execute("insert into ventures (id) values ('3d6f4f0a-5f3b-4c55-9f0e-0a3f5d1b7c21')").await;
    let before = world.database.count(ENTRIES).await;
    let _daemon = world.daemon().await;
    let rates = ["token_rate_STANDARD_input", "token_rate_STANDARD_output"].map(|key| metric("VRA-CFO", key, 0.003));
    for rate in &rates {
        world.publisher.publish(&rate.subject(), rate.payload()).await;
    }
    let shown = requests(PUBLISH).map(|(subject, record)| (subject.to_owned(), record));
    let shown: Vec<_> = shown.chain(good_records()).collect();
    for (subject, record) in &shown {
        world.publisher.publish(subject, *record).await;
    }
    is_counted(&world, ENTRIES, before + i64::try_from(rates.len() + shown.len()).expect("few")).await;
    assert_eq!(world.database.count("select count(*) from ledger.dead_letter").await, 0);
}

#[tokio::test]
async fn the_programs_with_faststream_and_nestjs_publish_with_a_login() {
    let (world, url) = start_with_login().await;
    let _daemon = world.daemon().await;
    let block = code(PUBLISH, "python faststream");
    let printed = run_python(block, "LEDGERD_TEST_FASTSTREAM", &[&url, "BRM-CTO"]).await;
    assert!(printed.contains("is in the stream as"), "{printed}");
    is_counted(&world, STARTED, 1).await;
    let printed = run_node(code(PUBLISH, "js nestjs"), "LEDGERD_TEST_NESTJS", &[&url, "BRM-CTO"]).await;
    assert!(printed.contains("is in the stream as"), "{printed}");
    is_counted(&world, STARTED, 2).await;
}

const TOKEN: &str = "a-secret";
const AUDIT: &str = "/webhook/hegemon-audit-log";

async fn start_with_token() -> (World, Daemon) {
    let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
    let world =
        World::builder().env("LEDGERD__WEBHOOKS__TOKENS", &format!("{hash} N8N_SANITIZER BRM-CTO")).start().await;
    let daemon = world.daemon().await;
    (world, daemon)
}

#[tokio::test]
async fn the_request_with_curl_is_committed() {
    let (world, daemon) = start_with_token().await;
    let mut shell = Command::new("sh");
    shell.args(["-ec", code(PUBLISH, "sh curl")]).env("TOKEN", TOKEN);
    shell.env("LEDGER", format!("http://127.0.0.1:{}", daemon.http_port()));
    let answer = run(shell).await;
    assert!(answer.contains("LOGGED"), "{answer}");
    is_counted(&world, STARTED, 1).await;
}

/// The request that the node Ledger of a workflow makes, after a node that yields `$json`. What n8n itself does with the workflows,
/// `make test-n8n` shows.
const N8N: &str = r#"
const [workflow, given, $execution] = process.argv.slice(1).map((text) => JSON.parse(text));
const node = (name) => workflow.nodes.find((node) => node.name === name).parameters;
const json = given ?? new Function(node("Event").jsCode)()[0].json;
const $json = json;
const $ = () => ({ item: { json } });
const value = (text) => (text.startsWith("=") ? text.slice(1).replace(/\{\{(.*?)\}\}/g, (_, code) => eval(code)) : text);
const { url, headerParameters, jsonBody } = node("Ledger");
const headers = (headerParameters?.parameters ?? []).map(({ name, value: text }) => [name, value(text)]);
console.log(JSON.stringify({ url: value(url), headers, body: value(jsonBody) }));
"#;

#[tokio::test]
async fn what_the_workflows_for_n8n_post_is_committed() {
    let (_world, daemon) = start_with_token().await;
    let event = json!({
        "event_id": "EXEC-BRM-CTO-1708451234567", "actor": "BRM-CTO", "action": "EXECUTION_STARTED", "outcome": "SUCCESS",
        "timestamp": "2026-02-20T17:47:14.567Z",
    });
    let forwarded = json!({ "body": event }).to_string();
    let workflows = [
        (code(README, "json n8n"), "null"),
        (code(PUBLISH, "json n8n"), "null"),
        (code(PUBLISH, "json n8n-forward"), forwarded.as_str()),
    ];
    for (workflow, given) in workflows {
        let mut node = Command::new("node");
        node.args(["-e", N8N, workflow, given, r#"{"id":"7"}"#]);
        let request: Value = serde_json::from_str(&run(node).await).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        assert_eq!(text(&request["url"]), format!("http://127.0.0.1:9465{AUDIT}"));
        let headers = request["headers"].as_array().expect("a list").iter();
        let headers: Vec<_> = headers.map(|header| (text(&header[0]), text(&header[1]))).collect();
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.push(("X-Hegemon-Token", TOKEN));
        let answer = ask(daemon.http_port(), "POST", AUDIT, &headers, text(&request["body"]).as_bytes()).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.text().contains("LOGGED")), (200, true), "{}", answer.text());
    }
}

#[tokio::test]
async fn the_login_and_the_requests_of_the_consoles_page_work() {
    let world = World::builder().group_roles().start().await;
    let daemon = world.daemon().await;
    world.ledgerd_ok(&commands(PUBLISH, "sh emit")[0]).await;
    drop(daemon);
    // Roles are the server's, which other tests use too.
    let login = format!("{}_console", world.database.name());
    world.database.execute(&code(CONSOLE, "sql").replace("ledgerd_console", &login).replace('…', PASSWORD)).await;
    let mut environment = world.environment.clone();
    let url = world.database.cluster().url_as(world.database.name(), &login);
    environment.insert("LEDGERD__CONSOLE__DATABASE_URL".to_owned(), url);
    environment.insert(TOKENS.to_owned(), token_entry(TOKEN, "read", "ada"));
    let console = Console::start(&environment).await;
    let mut shell = Command::new("sh");
    shell.args(["-ec", code(CONSOLE, "sh curl")]).env("TOKEN", TOKEN);
    shell.env("CONSOLE", format!("http://127.0.0.1:{}", console.port()));
    let answers = run(shell).await;
    for part in ["EXECUTION_STARTED", "\"tried\"", "\"NO_LIMIT\""] {
        assert!(answers.contains(part), "{part}: {answers}");
    }
    world.database.execute(&format!("drop role {login}")).await;
}

#[tokio::test]
async fn the_commands_that_print_schemas_print_json() {
    let world = World::builder().without_migrations().without_streams().start().await;
    for arguments in commands(PUBLISH, "sh schema") {
        let printed = world.ledgerd_ok(&arguments).await;
        assert!(serde_json::from_str::<Value>(&printed).is_ok_and(|value| value.is_object()), "{arguments:?}");
    }
}
