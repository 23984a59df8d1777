//! Starting: a server that is away is waited for; what only an operator can mend is an error at once.

use crate::support::daemon::{Daemon, spawn_ledgerd};
use crate::support::events::good_events;
use crate::support::ledger::{STREAM, check_ledger};
use crate::support::port::free_port;
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use async_nats::jetstream::stream;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// An error that is certain is told within this time.
const AT_ONCE: Duration = Duration::from_secs(10);
const CONFIGURATION: i32 = 78;

/// Changes one setting of a lane's consumer, as an operator might by hand.
pub(crate) async fn change_consumer(world: &World, lane: &str, setting: &str, value: impl Into<Value>) {
    let jetstream = world.jetstream().await;
    let name = format!("ledgerd-{lane}");
    let stream = jetstream.get_stream(STREAM).await.expect("setup made it");
    let info = stream.consumer_info(&name).await.expect("setup made it");
    let mut config = serde_json::to_value(&info.config).expect("JSON");
    config[setting] = value.into();
    let request = json!({"stream_name": STREAM, "config": config, "action": "update"});
    let answer: Value = jetstream
        .request(format!("CONSUMER.CREATE.{STREAM}.{name}.ledger.{lane}.*"), &request)
        .await
        .expect("the server answers");
    assert!(answer.get("error").is_none(), "{answer}");
}

/// Starts the daemon, which must end at once with exit code 78 and say this.
async fn refuses_to_run(world: &World, settings: &[(&str, &str)], says: &str) {
    let mut daemon = world.spawn_daemon_with(settings);
    assert_eq!(daemon.wait_exit_within(AT_ONCE).await, CONFIGURATION);
    assert!(daemon.log_contains(says), "{}", daemon.log());
}

#[tokio::test]
async fn started_while_postgres_is_down_it_runs_is_not_ready_and_connects_later() {
    let world = World::builder().postgres_proxy().start().await;
    world.postgres_proxy().cut().await;
    let mut daemon = world.spawn_daemon();
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(22)).await;
    let missing = daemon.unready().await;
    assert!(missing.contains("[-] PostgreSQL"), "{missing}");
    assert_eq!(daemon.get("/livez").await.expect("it answers").status, 200);
    world.postgres_proxy().heal().await;
    daemon.ready().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 22);
}

#[tokio::test]
async fn started_while_nats_is_down_it_runs_is_not_ready_and_connects_later() {
    let world = World::start().await;
    world.nats().kill();
    let mut daemon = world.spawn_daemon();
    let missing = daemon.unready().await;
    assert!(missing.contains("[-] NATS"), "{missing}");
    world.nats().restart().await;
    daemon.ready().await;
    let mut published = Published::default();
    published.publish_through_outages(&world.publisher, "one", good_events(1).remove(0)).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 1);
}

#[tokio::test]
async fn a_wrong_password_is_an_error_at_once() {
    let world = World::builder().limited_role().nats_login("ledgerd", "right").start().await;
    let database = world.environment["LEDGERD__DATABASE__URL"].clone();
    let (scheme, rest) = database.split_once("://").expect("a URL");
    let (_, host) = rest.split_once('@').expect("with a password");
    let wrong = format!("{scheme}://{}:wrong@{host}", world.role);
    refuses_to_run(&world, &[("LEDGERD__DATABASE__URL", &wrong)], "28P01").await;
    let nats = world.environment["LEDGERD__NATS__URL"].replace("right", "wrong");
    refuses_to_run(&world, &[("LEDGERD__NATS__URL", &nats)], "authorization violation").await;
    world.daemon().await;
}

#[tokio::test]
async fn a_database_that_is_behind_or_ahead_is_refused_with_what_to_do() {
    let world = World::builder().without_migrations().start().await;
    refuses_to_run(&world, &[], "run `ledgerd migrate`").await;
    world.ledgerd_ok(&["migrate"]).await;
    world.daemon().await;
    world
        .database
        .execute("insert into ledger.migration (version, description, success, checksum, execution_time) values (9999, 'later', true, '', 0)")
        .await;
    refuses_to_run(&world, &[], "install the newer ledgerd").await;
}

/// Such a database could not hold every record, and would blame the records for it.
#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused() {
    let world = World::start().await;
    let name = format!("{}_latin1", world.database.name());
    let create = format!("create database {name} template template0 encoding 'LATIN1' locale 'C'");
    world.cluster().execute("postgres", &create).await;
    let url = world.cluster().url(&name);
    refuses_to_run(&world, &[("LEDGERD__DATABASE__URL", &url)], "encoding LATIN1").await;
}

#[tokio::test]
async fn drift_that_can_lose_messages_is_refused() {
    let world = World::start().await;
    let jetstream = world.jetstream().await;
    let stream = jetstream.get_stream(STREAM).await.expect("setup made it");
    let discarding = stream::Config { discard: stream::DiscardPolicy::Old, ..stream.cached_info().config.clone() };
    jetstream.update_stream(&discarding).await.expect("changed");
    refuses_to_run(&world, &[], "stream LEDGER: discard is").await;
    let output = world.ledgerd(&["setup"]).await;
    assert_eq!(output.status.code(), Some(3), "without --apply it changes nothing");
    world.ledgerd_ok(&["setup", "--apply"]).await;
    // A consumer is made anew from its lane's position, whatever it is.
    change_consumer(&world, "EXEC", "max_deliver", 3).await;
    let _daemon = world.daemon().await;
    eventually("the consumer is as it must be", SOON, async || {
        let info = stream.consumer_info("ledgerd-EXEC").await.map_err(|error| error.to_string())?;
        when(info.config.max_deliver == -1, || info.config.max_deliver.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_would_capture_its_own_dead_letters_is_refused() {
    let world = World::builder().without_streams().start().await;
    let greedy = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["ledger.>".to_owned(), "dlq.>".to_owned()],
        ..Default::default()
    };
    world.jetstream().await.create_stream(greedy).await.expect("made");
    refuses_to_run(&world, &[], "messages can be lost").await;
}

#[tokio::test]
async fn without_streams_it_runs_and_says_what_an_operator_must_do() {
    let world = World::builder().without_streams().start().await;
    let mut daemon = world.spawn_daemon();
    daemon.says("run `ledgerd setup`").await;
    assert!(daemon.is_running());
    world.ledgerd_ok(&["setup"]).await;
    daemon.ready().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(11)).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 11);
}

#[tokio::test]
async fn a_broken_configuration_names_the_key_the_value_and_the_place() {
    let world = World::start().await;
    for (key, value, says) in [
        ("LEDGERD__SHUTDOWN__DEADLINE", "30", "shutdown.deadline = \"30\" in the environment"),
        ("LEDGERD__PIPELINE__LANES", "EXEC,FOO", "\"FOO\" is not a lane"),
        ("LEDGERD__NATS__STREM", "X", "unknown key nats.strem = X in the environment"),
        ("LEDGERD__NATS__ULR", "nats://a:hidden@b", "unknown key nats.ulr = … in the environment"),
        ("LEDGERD__DATABASE__PASSWORD", "hidden", "unknown key database.password = … in the environment"),
        ("LEDGERD__REGISTRY__AGENTS_FILE", "/nowhere.yaml", "cannot read /nowhere.yaml"),
    ] {
        let mut environment = world.environment.clone();
        environment.insert(key.to_owned(), value.to_owned());
        let mut daemon = Daemon::spawn(&environment);
        assert_eq!(daemon.wait_exit_within(AT_ONCE).await, CONFIGURATION);
        let log = daemon.log();
        assert!(log.contains(says), "{key}: {log}");
    }
}

#[tokio::test]
async fn a_log_that_goes_to_the_journal_has_a_priority_in_each_line() {
    let world = World::start().await;
    let folder = scratch_folder("journal");
    let log = folder.path().join("log");
    std::fs::write(&log, "").expect("the folder is ours");
    let file = std::fs::metadata(&log).expect("it was just made");
    let mut environment = world.environment.clone();
    environment.insert("JOURNAL_STREAM".to_owned(), format!("{}:{}", file.dev(), file.ino()));
    environment.insert("LEDGERD__NATS__URL".to_owned(), format!("nats://127.0.0.1:{}", free_port()));
    let mut daemon = spawn_ledgerd(&["run"], &environment, &log);
    let line = |start: &str| daemon.log().lines().any(|line| line.starts_with(start));
    eventually("both priorities are there", SOON, async || when(line("<6>{") && line("<4>{"), || daemon.log())).await;
    daemon.kill();
}
