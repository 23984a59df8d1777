//! Webhooks out: each event reaches the targets that ask for it, signed, in order, and with an id that does not change.

use crate::stalls::ask;
use crate::support::console::Console;
use crate::support::daemon::{Daemon, Environment, ledgerd, text_of};
use crate::support::events::{Outgoing, next_event};
use crate::support::ledger::check_ledger;
use crate::support::port::free_port;
use crate::support::process::{Process, scratch_folder};
use crate::support::published::Published;
use crate::support::receiver::{Received, Receiver, SECRET, notify_setting};
use crate::support::records::{metric, spend};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

pub(crate) const SETTING: &str = "LEDGERD__NOTIFY";
pub(crate) const SOURCES: &[&str] = &["budget", "reject", "blocked", "stall", "integrity"];

/// A world whose daemons, and whose operator, know these targets.
pub(crate) async fn world_with(targets: &[(&str, &str, &[&str], &str)]) -> World {
    World::builder().env(SETTING, &notify_setting(targets)).start().await
}

/// The target is known to the database: what is committed from now on is for it.
pub(crate) async fn registered(world: &World, name: &str) {
    eventually("the target is registered", SOON, async || {
        let there = format!("select count(*) from ledger.notify_target where name = '{name}' and removed_at is null");
        when(world.database.count(&there).await == 1, || "it is not".to_owned())
    })
    .await;
}

pub(crate) fn reject() -> Outgoing {
    next_event("EXEC")
        .with("action", "WORLD_DOMINATED")
        .with("details", json!({"token": "sk-hunter2"}))
        .bad("unknown_action")
}

pub(crate) fn blocked() -> Outgoing {
    next_event("SEC").with("outcome", "BLOCKED").good()
}

fn leaves(sent: &[Received]) -> Vec<i64> {
    sent.iter().map(|it| it.body()["data"]["leaf_index"].as_i64().expect("a leaf")).collect()
}

pub(crate) fn is_ascending(sent: &[Received]) -> bool {
    leaves(sent).is_sorted()
}

/// Runs a program beside the packages that it imports.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

fn packages(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: see scripts/servers.py")).into()
}

/// The reference library accepts each of these, and none of them with another body.
async fn is_accepted_by_the_reference_library(sent: &[Received]) {
    const PROGRAM: &str = "
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
webhook = Webhook(sys.argv[1])
count = 0
for line in open(sys.argv[2]):
    headers, body = json.loads(line)
    webhook.verify(body, dict(headers))
    try:
        webhook.verify(body + ' ', dict(headers))
        sys.exit('a forged body passes')
    except WebhookVerificationError:
        count += 1
print(count)
";
    let folder = scratch_folder("standardwebhooks");
    let (program, lines) = (folder.path().join("verify.py"), folder.path().join("received.jsonl"));
    let line = |it: &Received| json!([it.headers, it.text]).to_string();
    std::fs::write(&program, PROGRAM).expect("ours");
    std::fs::write(&lines, sent.iter().map(line).collect::<Vec<_>>().join("\n")).expect("ours");
    let mut python = Command::new("python3");
    python.arg(program).arg(SECRET).arg(lines);
    python.env("PYTHONPATH", packages("LEDGERD_TEST_STANDARDWEBHOOKS_PYTHON"));
    assert_eq!(run(python).await.trim(), sent.len().to_string());
}

#[tokio::test]
async fn what_commits_cause_arrives_in_order_and_the_reference_library_accepts_it() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), SOURCES, "")]).await;
    let daemon = world.daemon().await;
    registered(&world, "n8n").await;
    let mut published = Published::default();
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    published.publish(&world.publisher, metric("ARCHITECT", "daily_limit_RXY-CEO", 1.0).good()).await;
    check_ledger(&world, &published).await;
    published.publish(&world.publisher, spend("RXY-CEO", 0.95, &today).good()).await;
    published.publish_all(&world.publisher, vec![reject(), next_event("EXEC").good(), blocked(), reject()]).await;
    check_ledger(&world, &published).await;

    let sent = receiver.accepts(4).await;
    let mut kinds: Vec<String> = sent.iter().map(Received::kind).collect();
    kinds.sort();
    assert_eq!(kinds, ["budget.status_changed", "event.blocked", "record.rejected", "record.rejected"]);
    let of = |kind: &str| sent.iter().find(|it| it.kind() == kind).expect("it arrived").body();
    let budget = of("budget.status_changed");
    let expected = json!({
        "agent_name": "RXY-CEO", "date": today, "old_status": "GREEN", "new_status": "RED", "spent_usd": "0.95",
        "limit_usd": "1", "limit_key": "daily_limit_RXY-CEO",
    });
    assert_eq!(budget["data"], expected);
    assert!(budget["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')), "{budget}");
    let data = &of("record.rejected")["data"];
    assert_eq!(
        (&data["reason"], &data["actor"], &data["lane"]),
        (&json!("unknown_action"), &json!("BRM-CTO"), &json!("EXEC"))
    );
    let shown = world.ledgerd_ok(&["dlq", "show", data["reference"].as_str().expect("a reference")]).await;
    assert!(shown.contains("unknown_action"), "{shown}");
    let data = &of("event.blocked")["data"];
    assert_eq!((&data["outcome"], &data["actor"]), (&json!("BLOCKED"), &json!("RXY-TDC-01")));
    assert!(data["details"].is_object(), "{data}");
    let texts: String = sent.iter().map(|it| it.text.clone()).collect();
    assert!(!texts.contains("hunter2"), "the bytes of a reject were sent");

    is_accepted_by_the_reference_library(&sent).await;
    let metric = daemon.metric("ledgerd_notifications_delivered_total", "n8n").await;
    assert!((metric - 4.0).abs() < 0.1, "{metric}");
    assert_eq!(receiver.received().len(), 4, "something came twice");
}

/// The programs of docs/webhooks.md, each beside its reference library.
#[tokio::test]
async fn the_receivers_of_the_documents_accept_what_is_signed_with_their_secret() {
    const DOCUMENT: &str = include_str!("../../docs/webhooks.md");
    let code = |language: &str| {
        let block = DOCUMENT.split(&format!("```{language} receive\n")).nth(1).expect("there is such code");
        block.split("```").next().expect("a block ends")
    };
    for (language, file, interpreter) in [("python", "receive.py", "python3"), ("js", "receive.mjs", "node")] {
        let (folder, port) = (scratch_folder("receive"), free_port());
        std::fs::write(folder.path().join(file), code(language)).expect("ours");
        let mut command = Command::new(interpreter);
        if language == "js" {
            let modules = packages("LEDGERD_TEST_STANDARDWEBHOOKS_NODE");
            std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).expect("ours");
        } else {
            command.env("PYTHONPATH", packages("LEDGERD_TEST_STANDARDWEBHOOKS_PYTHON"));
        }
        command.arg(folder.path().join(file)).arg(port.to_string()).arg(SECRET);
        let receiver = Process::spawn(interpreter, command, &folder.path().join("receive.log"));
        let url = format!("http://127.0.0.1:{port}/");
        let environment = |secret: &str| {
            let setting = notify_setting(&[("it", &url, &["reject"], "")]).replace(SECRET, secret);
            Environment::from([(SETTING.to_owned(), setting)])
        };
        let good = environment(SECRET);
        eventually(&format!("the receiver in {language} accepts"), SOON, async || {
            let tested = ledgerd(&["notify", "test", "it"], &good).await;
            when(tested.status.success(), || format!("{}{}", text_of(&tested), receiver.log()))
        })
        .await;
        let printed = receiver.log();
        assert!(printed.contains("test") && printed.contains("nothing has happened"), "{printed}");
        let other = environment("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let refused = text_of(&ledgerd(&["notify", "test", "it"], &other).await);
        assert!(refused.contains("401"), "{refused}");
    }
}

#[tokio::test]
async fn a_flood_arrives_whole_and_in_the_order_of_the_commits() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), &["reject", "blocked"], "")]).await;
    let _daemon = world.daemon().await;
    registered(&world, "n8n").await;
    let mut published = Published::default();
    for _ in 0..40 {
        published
            .publish_all(
                &world.publisher,
                vec![blocked(), reject(), next_event("EXEC").good(), next_event("VOTE").good()],
            )
            .await;
    }
    check_ledger(&world, &published).await;
    let sent = receiver.accepts(80).await;
    for kind in ["record.rejected", "event.blocked"] {
        let of_kind: Vec<Received> = sent.iter().filter(|it| it.kind() == kind).cloned().collect();
        assert!(of_kind.len() == 40 && is_ascending(&of_kind), "{kind}: {:?}", leaves(&of_kind));
    }
    assert_eq!(receiver.received().len(), 80, "something came twice");
}

#[tokio::test]
async fn a_lane_that_stands_still_and_moves_again_is_told_once_though_two_instances_run() {
    let receiver = Receiver::start().await;
    let setting = notify_setting(&[("n8n", &receiver.url(), &["stall"], "")]);
    let world = World::builder().env(SETTING, &setting).env("LEDGERD__STALL__TELL_AFTER", "1s").start().await;
    if !world.jetstream().await.client().is_server_compatible(2, 11, 0) {
        return;
    }
    let daemons = [world.daemon().await, world.daemon().await];
    registered(&world, "n8n").await;
    pause_exec(&world, "2999-01-01T00:00:00Z").await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    let stalled = receiver.accepts(1).await[0].body();
    assert_eq!((&stalled["type"], &stalled["data"]["lane"]), (&json!("lane.stalled"), &json!("EXEC")));
    assert!(stalled["data"]["detail"].as_str().is_some_and(|text| text.contains("paused")), "{stalled}");
    pause_exec(&world, "2000-01-01T00:00:00Z").await;
    let recovered = receiver.accepts(2).await[1].body();
    assert_eq!((&recovered["type"], &recovered["data"]["lane"]), (&json!("lane.recovered"), &json!("EXEC")));
    check_ledger(&world, &published).await;
    assert_eq!(receiver.received().len(), 2);
    assert_eq!(world.database.count("select count(*) from ledger.notice").await, 2);
    drop(daemons);
}

async fn pause_exec(world: &World, until: &str) {
    ask(world, "CONSUMER.PAUSE.LEDGER.ledgerd-EXEC", &json!({"pause_until": until})).await;
}

#[tokio::test]
async fn gaps_and_what_verify_finds_are_told() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), &["integrity"], "")]).await;
    let _daemon = world.daemon().await;
    registered(&world, "n8n").await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    check_ledger(&world, &published).await;
    world
        .database
        .execute(
            "insert into ledger.gap (epoch, lane, first_sequence, last_sequence, why) values (1, 'VOTE', 7, 9, 'lost')",
        )
        .await;
    let gap = receiver.accepts(1).await[0].body();
    assert_eq!(gap["type"], "integrity.gap");
    let data = &gap["data"];
    assert_eq!(
        (&data["lane"], &data["first_sequence"], &data["last_sequence"]),
        (&json!("VOTE"), &json!(7), &json!(9))
    );

    world
        .database
        .execute(
            "alter table public.audit_events disable trigger all; update public.audit_events set actor = 'FORGED'
                where event_id like 'EXEC-%'",
        )
        .await;
    for _ in 0..2 {
        let verified = world.ledgerd(&["verify"]).await;
        assert_eq!(verified.status.code(), Some(3), "{}", text_of(&verified));
    }
    let difference = receiver.accepts(2).await[1].body();
    assert_eq!((&difference["type"], &difference["data"]["check"]), (&json!("integrity.difference"), &json!("verify")));
    // The second run found the same.
    assert_eq!(world.database.count("select count(*) from ledger.notice").await, 2);
}

#[tokio::test]
async fn a_new_target_begins_at_the_present_and_sighup_adds_one() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let folder = scratch_folder("notify");
    let file = folder.path().join("ledgerd.toml");
    let table = |receiver: &Receiver, name: &str| {
        format!("[[notify]]\nname = '{name}'\nurl = '{}'\nevents = ['reject']\nsecret = '{SECRET}'\n", receiver.url())
    };
    std::fs::write(&file, "").expect("ours");
    let world = World::start().await;
    let mut daemon = Daemon::spawn_with(&["--config", file.to_str().expect("UTF-8")], &world.environment);
    daemon.ready().await;
    let mut published = Published::default();
    published.publish(&world.publisher, reject()).await;
    check_ledger(&world, &published).await;

    let mut text = String::new();
    for (number, receiver) in [&first, &second].into_iter().enumerate() {
        let name = format!("target-{number}");
        text.push_str(&table(receiver, &name));
        std::fs::write(&file, &text).expect("ours");
        daemon.sighup();
        registered(&world, &name).await;
        published.publish(&world.publisher, reject()).await;
        check_ledger(&world, &published).await;
        receiver.accepts(1).await;
    }
    first.accepts(2).await;
    let all: Vec<i64> = sqlx::query_scalar("select leaf_index from ledger.dead_letter order by leaf_index")
        .fetch_all(&mut world.database.connect().await)
        .await
        .expect("the rejects");
    assert_eq!((leaves(&first.accepted()), leaves(&second.accepted())), (all[1..].to_vec(), all[2..].to_vec()));

    std::fs::write(&file, table(&second, "target-1")).expect("ours");
    daemon.sighup();
    eventually("the first target is removed", SOON, async || {
        let listed = world.ledgerd_ok(&["notify", "list"]).await;
        when(listed.contains("removed"), || listed)
    })
    .await;
    published.publish(&world.publisher, reject()).await;
    second.accepts(2).await;
    assert_eq!(first.received().len(), 2);
}

#[tokio::test]
async fn of_two_instances_one_delivers_and_the_other_takes_over_when_it_is_killed() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), &["reject"], "timeout = '1s'")]).await;
    let mut daemons = [world.daemon().await, world.daemon().await];
    registered(&world, "n8n").await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, (0..20).map(|_| reject()).collect()).await;
    check_ledger(&world, &published).await;
    receiver.accepts(20).await;
    assert_eq!(receiver.received().len(), 20, "both deliver");

    let delivered = |daemon: &Daemon| {
        let port = daemon.http_port();
        async move {
            let answer = crate::support::http::get(port, "/metrics").await.text();
            answer
                .lines()
                .any(|line| line.starts_with("ledgerd_notifications_delivered_total") && !line.ends_with(" 0"))
        }
    };
    let first = delivered(&daemons[0]).await;
    assert_ne!(first, delivered(&daemons[1]).await, "one of them delivers");
    daemons[usize::from(!first)].sigkill();
    published.publish_all(&world.publisher, (0..5).map(|_| reject()).collect()).await;
    let sent = receiver.accepts(25).await;
    assert!(is_ascending(&sent));
    assert_eq!(receiver.received().len(), 25, "something came twice");
}

#[tokio::test]
async fn commands_page_and_api_show_what_went_where_and_no_secret() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), &["reject", "blocked"], "")]).await;
    let listed = world.ledgerd_ok(&["notify", "list"]).await;
    assert!(listed.contains("n8n") && listed.contains("not registered"), "{listed}");
    let daemon = world.daemon().await;
    registered(&world, "n8n").await;

    let tested = world.ledgerd_ok(&["notify", "test", "n8n"]).await;
    assert!(tested.contains("204 No Content"), "{tested}");
    assert_eq!(receiver.accepts(1).await[0].kind(), "test");
    is_accepted_by_the_reference_library(&receiver.received()).await;
    let unknown = world.ledgerd(&["notify", "test", "nobody"]).await;
    assert!(unknown.status.code() == Some(64) && text_of(&unknown).contains("they have n8n"), "{}", text_of(&unknown));

    let mut published = Published::default();
    published.publish_all(&world.publisher, vec![reject(), blocked()]).await;
    check_ledger(&world, &published).await;
    receiver.accepts(3).await;
    let listed: Value = eventually("both are written down", SOON, async || {
        let listed: Value = serde_json::from_str(&world.ledgerd_ok(&["notify", "list", "--json"]).await).expect("JSON");
        when(listed["targets"][0]["delivered"] == 2, || listed.to_string()).map(|()| listed)
    })
    .await;
    let target = &listed["targets"][0];
    assert_eq!(
        (&target["host"], &target["state"], &target["waiting"]),
        (&json!("127.0.0.1"), &json!("delivering"), &json!(0))
    );

    let console = Console::start(&world.environment).await;
    let page = console.page("/notifications").await;
    for shown in ["n8n", "record.rejected", "event.blocked", "204 No Content", "/rejects/"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let answer = console.api("/notifications?target=n8n&state=delivered").await;
    let sent = answer["notifications"].as_array().expect("a list");
    let ids: BTreeSet<&str> = sent.iter().filter_map(|it| it["webhook_id"].as_str()).collect();
    let accepted = receiver.accepted();
    assert_eq!(ids, accepted.iter().skip(1).map(|it| it.id.as_str()).collect());
    assert!(console.api("/notifications?state=failed").await["notifications"].as_array().is_some_and(Vec::is_empty));

    let database = "select coalesce(string_agg(t::text, ''), '') from (
            select to_jsonb(t) from ledger.notify_target as t union all select to_jsonb(t) from ledger.notification as t
        ) as t (t)";
    let stored: String =
        sqlx::query_scalar(database).fetch_one(&mut world.database.connect().await).await.expect("the rows");
    for text in [daemon.log(), listed.to_string(), page, answer.to_string(), stored] {
        assert!(
            !text.contains("path-that-is-secret") && !text.contains("whsec_") && !text.contains("MfKQ9r8G"),
            "{text}"
        );
    }
}
