//! SIGTERM, a second SIGTERM, SIGHUP.

use crate::faults_postgres::COMMIT;
use crate::support::daemon::Daemon;
use crate::support::events::{event, good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::notify::NotifySocket;
use crate::support::process::scratch_folder;
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use std::time::Duration;

#[tokio::test]
async fn sigterm_under_load_settles_what_is_held_and_exits_0() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(6000)).await;
    eventually("it is at work", SOON, async || {
        let count = world.database.count("select count(*) from ledger.entry").await;
        when(count > 100, || count.to_string())
    })
    .await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    // What it took it committed: nobody owns a lane, and the positions are as far as the lanes are stored.
    let owned = "select count(*) from ledger.position where owner is not null";
    assert_eq!(world.database.count(owned).await, 0);
    let behind = "select count(*) from ledger.position as p
        where p.sequence < (
            select max(e.sequence) from ledger.entry as e
            where e.epoch = p.epoch and split_part(e.subject, '.', 2) = p.lane
        )";
    assert_eq!(world.database.count(behind).await, 0);
    let _again = world.daemon().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates), (6000, 0));
}

#[tokio::test]
async fn what_is_on_its_way_at_a_sigterm_is_stored_once() {
    let world = World::builder().nats_proxy().start().await;
    let mut daemon = world.daemon().await;
    let mut delivered = world.nats_proxy().hold_when(Direction::ToClient, b"MSG ledger.EXEC.");
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    delivered.happened().await;
    daemon.sigterm();
    daemon.says("settling what is in flight").await;
    world.nats_proxy().release();
    assert_eq!(daemon.wait_exit().await, 0);
    // It may be left to the next owner; it is stored once.
    let _again = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 1);
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let world = World::builder().postgres_proxy().start().await;
    let mut daemon = world.daemon().await;
    let mut held = world.postgres_proxy().hold_when(Direction::ToServer, COMMIT);
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(50)).await;
    held.happened().await;
    daemon.sigterm();
    daemon.says("settling what is in flight").await;
    assert!(daemon.is_running());
    daemon.sigterm();
    assert_eq!(daemon.wait_exit_within(Duration::from_secs(5)).await, 1);
    world.postgres_proxy().drop_held().await;
    let _again = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 50);
}

#[tokio::test]
async fn the_shutdown_deadline_is_kept() {
    let world = World::builder().postgres_proxy().env("LEDGERD__SHUTDOWN__DEADLINE", "1s").start().await;
    let mut daemon = world.daemon().await;
    let mut held = world.postgres_proxy().hold_when(Direction::ToServer, COMMIT);
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(50)).await;
    held.happened().await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit_within(Duration::from_secs(10)).await, 1);
    assert!(daemon.log_contains("shutdown.deadline has passed"));
    world.postgres_proxy().drop_held().await;
    let _again = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 50);
}

/// Longer than the unit allows, where its settings say so.
#[tokio::test]
async fn a_stop_tells_systemd_how_long_it_may_take() {
    let socket = NotifySocket::bind();
    let settings = World::builder().env("NOTIFY_SOCKET", socket.path()).env("LEDGERD__SHUTDOWN__DEADLINE", "2m");
    let world = settings.start().await;
    let mut daemon = world.daemon().await;
    daemon.sigterm();
    let told = socket.says("STOPPING=1").await;
    let usec = told.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")?.parse::<u64>().ok());
    assert!(usec.is_some_and(|usec| usec > 120_000_000), "{told}");
    assert_eq!(daemon.wait_exit().await, 0);
}

#[tokio::test]
async fn sigterm_while_postgres_is_away_exits_0_and_loses_nothing() {
    let world = World::builder().postgres_proxy().start().await;
    let mut daemon = world.daemon().await;
    world.postgres_proxy().cut().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(200)).await;
    daemon.unready().await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    world.postgres_proxy().heal().await;
    let _again = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 200);
}

const ONE_AGENT: &str = "registered_agents: {council: [{sim_id: BRM-CTO, status: active}]}";
const TWO_AGENTS: &str =
    "registered_agents: {council: [{sim_id: BRM-CTO, status: active}], workers: [{sim_id: WRK-777, status: active}]}";

#[tokio::test]
async fn sighup_reads_agents_and_registry_again_and_a_broken_file_keeps_the_old_ones() {
    let folder = scratch_folder("agents");
    let (agents, actions) = (folder.path().join("agents.yaml"), folder.path().join("actions.yaml"));
    std::fs::write(&agents, ONE_AGENT).expect("written");
    std::fs::write(&actions, "groups: []").expect("written");
    let world = World::builder()
        .env("LEDGERD__REGISTRY__AGENTS_FILE", agents.to_str().expect("UTF-8"))
        .env("LEDGERD__REGISTRY__ACTIONS_EXTRA_FILES", actions.to_str().expect("UTF-8"))
        .start()
        .await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    let newcomer = |n| event("SYS", "WRK-777", n).with("action", "COFFEE_MADE");
    published.publish(&world.publisher, newcomer(1).bad("unknown_actor")).await;
    check_ledger(&world, &published).await;

    std::fs::write(&agents, TWO_AGENTS).expect("written");
    std::fs::write(&actions, "groups: [{name: Kitchen, actors: any, actions: {COFFEE_MADE: {outcomes: [SUCCESS]}}}]")
        .expect("written");
    daemon.sighup();
    daemon.says("reloaded registry, agents and credentials").await;
    published.publish(&world.publisher, newcomer(2).good()).await;
    check_ledger(&world, &published).await;

    for (file, broken) in [(&agents, "registered_agents: ["), (&actions, "groups: {")] {
        let good = std::fs::read_to_string(file).expect("read");
        std::fs::write(file, broken).expect("written");
        let told = daemon.log_lines_matching("reload failed").len();
        daemon.sighup();
        eventually("it says that the reload failed", SOON, async || {
            let lines = daemon.log_lines_matching("reload failed");
            when(lines.len() > told, || format!("{lines:?}"))
        })
        .await;
        std::fs::write(file, good).expect("written");
    }
    assert!(daemon.log_lines_matching("reload failed")[0].contains("agents.yaml"));
    published.publish(&world.publisher, newcomer(3).good()).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (2, 1));
    assert!((daemon.metric("ledgerd_config_last_reload_successful", "").await).abs() < 0.5);
}

#[tokio::test]
async fn sighup_takes_up_new_credentials() {
    let folder = scratch_folder("credentials");
    let url = folder.path().join("database-url");
    let world = World::builder().limited_role().start().await;
    let direct = world.environment["LEDGERD__DATABASE__URL"].clone();
    std::fs::write(&url, &direct).expect("written");
    let mut environment = world.environment.clone();
    environment.remove("LEDGERD__DATABASE__URL");
    environment.insert("LEDGERD__DATABASE__URL_FILE".to_owned(), url.to_str().expect("UTF-8").to_owned());
    let mut daemon = Daemon::spawn(&environment);
    daemon.ready().await;

    let (role, name) = (&world.role, world.database.name());
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and usename = '{role}'"
    );
    world.database.execute(&format!("alter role {role} password 'rotated'; {cut}")).await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    eventually("the old password is refused", SOON, async || {
        let text = daemon.readyz_text().await;
        when(text.contains("28P01"), || text.clone())
    })
    .await;
    let (before, after) =
        direct.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))).expect("a URL");
    std::fs::write(&url, format!("{before}://{role}:rotated@{after}")).expect("written");
    daemon.sighup();
    assert_eq!(check_ledger(&world, &published).await.rows, 1);
    assert!(daemon.is_running());
}

#[tokio::test]
async fn sighup_moves_to_another_database_also_under_load() {
    let folder = scratch_folder("moved");
    let url = folder.path().join("database-url");
    let (old, new) = (World::start().await, World::start().await);
    std::fs::write(&url, old.database.url()).expect("written");
    let mut environment = old.environment.clone();
    environment.remove("LEDGERD__DATABASE__URL");
    environment.insert("LEDGERD__DATABASE__URL_FILE".to_owned(), url.to_str().expect("UTF-8").to_owned());
    let mut daemon = Daemon::spawn(&environment);
    daemon.ready().await;
    let mut published = Published::default();
    published.publish_all(&old.publisher, good_events(3000)).await;
    std::fs::write(&url, new.database.url()).expect("written");
    daemon.sighup();
    daemon.says("reloaded registry, agents and credentials").await;
    let entries = "select count(*) from ledger.entry where subject <> 'ledger.SYS.ARCHITECT'";
    let stored = async |number: i64| {
        eventually("the new one has all of the stream", SOON, async || {
            let count = new.database.count(entries).await;
            when(count == number, || count.to_string())
        })
        .await;
        old.database.count(entries).await
    };
    let before = stored(3000).await;
    published.publish_all(&old.publisher, good_events(330)).await;
    assert_eq!(stored(3330).await, before, "and the old one gets nothing more");
}
