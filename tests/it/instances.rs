//! Several instances work on the same stream and the same database: what becomes of one of them costs nothing.

use crate::support::busy::while_publishing;
use crate::support::events::good_events;
use crate::support::ledger::{STREAM, check_ledger};
use crate::support::postgres::{PASSWORD, SUPERUSER};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};

#[tokio::test]
async fn three_go_on_when_one_is_killed_and_one_is_frozen_and_woken() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let mut daemons = [world.daemon().await, world.daemon().await, world.daemon().await];
    let stored = async || world.database.count("select count(*) from ledger.entry").await;
    let grows = async |more: i64| {
        let before = stored().await;
        eventually("the ledger grows", SOON, async || {
            let now = stored().await;
            when(now > before + more, || format!("{before}, now {now}"))
        })
        .await;
    };
    let work = async {
        grows(100).await;
        let [killed, frozen, _left] = &mut daemons;
        killed.sigkill();
        frozen.sigstop();
        grows(300).await;
        frozen.sigcont();
        grows(100).await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (published.all().len(), 0, 0));
}

#[tokio::test]
async fn the_leader_of_a_replicated_stream_is_killed_under_load() {
    let world = World::builder().nats_cluster().start().await;
    let mut daemons = [world.daemon().await, world.daemon().await];
    let mut published = Published::default();
    for (n, event) in good_events(300).into_iter().enumerate() {
        if n == 100 {
            world.nats_cluster().kill_leader(STREAM).await;
        }
        published.publish_through_outages(&world.publisher, &format!("leader-{n}"), event).await;
    }
    // Two of three suffice.
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (300, 0));
    for daemon in &mut daemons {
        daemon.ready().await;
    }
}

/// The standby stands still while records come, so that what the primary committed is not on it. Then the primary dies. An
/// acknowledgement that had not waited for the standby would have been for a record that is gone.
#[tokio::test]
async fn a_primary_is_killed_and_its_synchronous_standby_has_every_acknowledged_record() {
    let mut world = World::builder().own_cluster().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let standby = world.cluster().synchronous_standby().await;
    let (primary, second) = (world.cluster().port(), standby.port());
    let url = format!(
        "postgres://{SUPERUSER}:{PASSWORD}@127.0.0.1:{primary},127.0.0.1:{second}/{}?target_session_attrs=read-write",
        world.database.name()
    );
    let with_both = [("LEDGERD__DATABASE__URL", url.as_str())];
    let mut daemons = [world.spawn_daemon_with(&with_both), world.spawn_daemon_with(&with_both)];
    for daemon in &mut daemons {
        daemon.ready().await;
    }
    let work = async {
        let some = "select count(*) from ledger.entry";
        eventually("the ledger grows", SOON, async || {
            let stored = world.database.count(some).await;
            when(stored > 100, || stored.to_string())
        })
        .await;
        standby.freeze();
        let waiting =
            "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and application_name = 'ledgerd'";
        eventually("commits wait for the standby", SOON, async || {
            let waiting = world.database.count(waiting).await;
            when(waiting >= 1, || format!("{waiting} wait"))
        })
        .await;
    };
    let ((), mut published) = while_publishing(&world.publisher, work).await;
    world.cluster().kill().await;
    standby.thaw();
    standby.promote().await;
    world.use_server(&standby);
    published.publish_all(&world.publisher, good_events(60)).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (published.all().len(), 0, 0));
}
