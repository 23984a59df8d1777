//! A lane has one owner. Another instance takes it over within seconds when its owner is gone, and at once when it stops.

use crate::support::busy::while_publishing;
use crate::support::daemon::Daemon;
use crate::support::events::{good_events, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::proxy::TcpProxy;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Another instance has the lanes within this time.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(15);

/// The process ids of the owners of all lanes.
async fn owners(world: &World) -> BTreeSet<u32> {
    let owners: Vec<Option<String>> = sqlx::query_scalar("select owner from ledger.position")
        .fetch_all(&mut world.database.connect().await)
        .await
        .expect("the table is there");
    owners.iter().flatten().filter_map(|owner| owner.split('/').nth(1)?.parse().ok()).collect()
}

async fn all_are_owned_by(world: &World, pids: &[u32], within: Duration) {
    eventually(&format!("{pids:?} own all lanes"), within, async || {
        let owned = world.database.count("select count(*) from ledger.position where owner is not null").await;
        let owners = owners(world).await;
        when(owned == 15 && owners.iter().all(|pid| pids.contains(pid)), || format!("{owned} owned by {owners:?}"))
    })
    .await;
}

/// A daemon that owns every lane, and one that stands by.
async fn owner_and_standby(world: &World) -> [Daemon; 2] {
    let owner = world.daemon().await;
    all_are_owned_by(world, &[owner.pid()], SOON).await;
    let standby = world.daemon().await;
    [owner, standby]
}

#[tokio::test]
async fn an_owner_is_killed_and_the_standby_takes_its_lanes() {
    let world = World::start().await;
    let [mut owner, standby] = owner_and_standby(&world).await;
    let work = async {
        owner.sigkill();
        all_are_owned_by(&world, &[standby.pid()], TAKEN_OVER_WITHIN).await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates), (published.all().len(), 0));
}

#[tokio::test]
async fn an_owner_is_frozen_and_woken_and_writes_nothing_more() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let [mut owner, standby] = owner_and_standby(&world).await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(500)).await;
    owner.sigstop();
    all_are_owned_by(&world, &[standby.pid()], TAKEN_OVER_WITHIN).await;
    published.publish_all(&world.publisher, good_events(500)).await;
    settled(&world, &published).await;
    let before = owner_committed(&world).await;
    owner.sigcont();
    owner.ready().await;
    published.publish_all(&world.publisher, good_events(110)).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (1110, 0, 0));
    assert!(before <= owner_committed(&world).await);
    assert!(owners(&world).await.iter().all(|pid| *pid == standby.pid()), "the standby keeps the lanes");
}

async fn owner_committed(world: &World) -> i64 {
    world.database.count("select count(*) from ledger.entry").await
}

/// One of its two servers is out of reach for the owner alone.
async fn cut_off_from(variable: &str, server_port: impl Fn(&World) -> u16) {
    let world = World::start().await;
    let port = server_port(&world);
    let proxy = TcpProxy::forward(port).await;
    let through = world.environment[variable].replace(&format!(":{port}"), &format!(":{}", proxy.port()));
    let mut owner = world.spawn_daemon_with(&[(variable, through.as_str())]);
    owner.ready().await;
    all_are_owned_by(&world, &[owner.pid()], SOON).await;
    let standby = world.daemon().await;
    let work = async {
        proxy.cut().await;
        all_are_owned_by(&world, &[standby.pid()], TAKEN_OVER_WITHIN).await;
        proxy.heal().await;
        owner.ready().await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates), (published.all().len(), 0));
}

#[tokio::test]
async fn an_owner_that_is_cut_off_from_nats_alone_gives_its_lanes_up() {
    cut_off_from("LEDGERD__NATS__URL", |world| world.nats().port()).await;
}

#[tokio::test]
async fn an_owner_that_is_cut_off_from_postgres_alone_loses_its_lanes() {
    cut_off_from("LEDGERD__DATABASE__URL", |world| world.cluster().port()).await;
}

#[tokio::test]
async fn a_stop_hands_the_lanes_over_within_a_second() {
    let world = World::start().await;
    let [mut owner, standby] = owner_and_standby(&world).await;
    owner.sigterm();
    assert_eq!(owner.wait_exit().await, 0);
    let ended = Instant::now();
    all_are_owned_by(&world, &[standby.pid()], SOON).await;
    let took = ended.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?} after the end of the owner");
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 1);
}

#[tokio::test]
async fn three_that_start_at_the_same_moment_share_the_lanes_and_double_nothing() {
    const ROUNDS: usize = 20;
    let world = World::start().await;
    let mut published = Published::default();
    for _ in 0..ROUNDS {
        published.publish_all(&world.publisher, good_events(33)).await;
        let mut daemons = [world.spawn_daemon(), world.spawn_daemon(), world.spawn_daemon()];
        let pids = daemons.each_ref().map(Daemon::pid);
        all_are_owned_by(&world, &pids, SOON).await;
        settled(&world, &published).await;
        for daemon in &mut daemons {
            daemon.sigterm();
        }
        for daemon in &mut daemons {
            assert_eq!(daemon.wait_exit().await, 0);
        }
    }
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates), (33 * ROUNDS, 0));
}
