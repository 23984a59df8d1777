//! The nats-server goes away, loses a consumer, a leader, the stream: the daemon goes on by itself.

use crate::support::events::{good_events, next_event};
use crate::support::ledger::{STREAM, all_lanes_are_owned, check_ledger, settled};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use std::time::Duration;

/// The daemon goes on within this time, or says loudly what an operator must do.
const RESUMED_WITHIN: Duration = Duration::from_secs(15);

/// What a consumer's leader had sent out when it lost its office may be lost, and comes again after `ack_wait`
/// (nats/consumers/).
const SENT_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// Waits until everything that was published has its entry.
async fn resumed(world: &World, published: &Published) {
    resumed_within(RESUMED_WITHIN, world, published).await;
}

async fn resumed_within(bound: Duration, world: &World, published: &Published) {
    let expected = i64::try_from(published.all().len()).expect("few");
    let entries = "select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'";
    eventually("the daemon has resumed", bound, async || {
        let count = world.database.count(entries).await;
        when(count >= expected, || format!("{count} of {expected}"))
    })
    .await;
}

#[tokio::test]
async fn the_nats_server_is_killed_under_load_and_restarted() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    for round in 0..3 {
        published.publish_all(&world.publisher, good_events(700)).await;
        world.nats().kill();
        let missing = daemon.unready().await;
        assert!(missing.contains("[-] NATS"), "{missing}");
        world.nats().restart().await;
        let id = format!("after-kill-{round}");
        published.publish_through_outages(&world.publisher, &id, next_event("VOTE").good()).await;
        resumed(&world, &published).await;
        daemon.ready().await;
    }
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (2103, 0));
    assert!(daemon.is_running());
}

#[tokio::test]
async fn a_consumer_that_is_deleted_while_connected_is_made_anew() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(110)).await;
    settled(&world, &published).await;
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("setup made it");
    stream.delete_consumer("ledgerd-EXEC").await.expect("it is there");
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    resumed(&world, &published).await;
    daemon.says("lane EXEC: Consumer Deleted").await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates), (111, 0));
}

#[tokio::test]
async fn a_consumer_that_is_deleted_while_offline_is_made_anew() {
    let world = World::builder().nats_proxy().start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(110)).await;
    settled(&world, &published).await;
    world.nats_proxy().cut().await;
    daemon.unready().await;
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("setup made it");
    stream.delete_consumer("ledgerd-SEC").await.expect("it is there");
    published.publish(&world.publisher, next_event("SEC").good()).await;
    world.nats_proxy().heal().await;
    resumed(&world, &published).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates), (111, 0));
}

#[tokio::test]
async fn leaders_of_stream_and_consumers_move_under_load() {
    let world = World::builder().nats_cluster().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    for round in 0..3 {
        for (n, event) in good_events(110).into_iter().enumerate() {
            let id = format!("moved-{round}-{n}");
            published.publish_through_outages(&world.publisher, &id, event).await;
            if n == 40 {
                world.nats_cluster().step_down_stream_leader(STREAM).await;
            }
            if n == 80 {
                world.nats_cluster().step_down_consumer_leader(STREAM, "ledgerd-EXEC").await;
            }
        }
        resumed_within(SENT_AGAIN_WITHIN + RESUMED_WITHIN, &world, &published).await;
    }
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (330, 0));
    assert!(daemon.is_running());
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_a_new_epoch_and_keeps_the_old_rows() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(220)).await;
    published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
    settled(&world, &published).await;
    world.database.execute("create table public.noted as select * from audit_events").await;

    let jetstream = world.jetstream().await;
    jetstream.delete_stream(STREAM).await.expect("it is there");
    daemon.says("run `ledgerd setup`").await;
    world.ledgerd_ok(&["setup"]).await;
    published.stream_was_made_anew();
    published.publish_all(&world.publisher, good_events(330)).await;
    published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (550, 2));
    assert_eq!(world.database.count("select count(*) from ledger.epoch where stream = 'LEDGER'").await, 2);
    let changed = "select count(*) from (select * from public.noted except select * from audit_events) as gone";
    assert_eq!(world.database.count(changed).await, 0, "old rows are untouched");
}

/// A header that ends the client comes while PostgreSQL refuses the login: both were survivable alone.
#[tokio::test]
async fn a_client_that_ends_while_postgres_refuses_the_login_does_not_end_the_daemon() {
    let world = World::builder().limited_role().start().await;
    let mut daemon = world.daemon().await;
    let (role, name) = (&world.role, world.database.name());
    all_lanes_are_owned(&world).await;
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and usename = '{role}'"
    );
    world.database.execute(&format!("alter role {role} nologin; {cut}")).await;
    let mut published = Published::default();
    // On another lane: one that holds two batches pulls no third.
    published.publish_all(&world.publisher, (0..110).map(|_| next_event("EXEC").good()).collect()).await;
    daemon.unready().await;
    let block = b"NATS/1.0\r\nA: x\ry\r\n\r\n";
    published.publish_raw(&world.publisher, block, next_event("ERR").good()).await;
    eventually("the lane reads on", SOON, async || {
        let read = daemon.metric("ledgerd_messages_received_total", "ERR").await;
        when(read > 0.5, || read.to_string())
    })
    .await;
    world.database.execute(&format!("alter role {role} login")).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (111, 0));
    assert!(daemon.is_running());
    eventually("nothing is counted as in flight", SOON, async || {
        let held = daemon.metric("ledgerd_in_flight_messages", "").await;
        when(held.abs() < 0.5, || held.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_flood_in_one_lane_does_not_delay_another() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let flood: Vec<_> = (0..6000).map(|_| next_event("EXEC").good()).collect();
    published.publish_all(&world.publisher, flood).await;
    published.publish(&world.publisher, next_event("VOTE").good()).await;
    let vote = "select count(*) from ledger.entry where subject like 'ledger.VOTE.%'";
    eventually("the other lane's event is stored", SOON, async || {
        let count = world.database.count(vote).await;
        when(count == 1, || count.to_string())
    })
    .await;
    assert_eq!(check_ledger(&world, &published).await.rows, 6001);
    assert!(daemon.metric("ledgerd_records_committed_total", "EXEC").await >= 6000.0);
}
