//! The position of a lane is in the database. Whatever becomes of database, stream and consumer, the lane goes on from there.

use crate::replay::{use_another_database, world_that_deletes};
use crate::stalls::ask;
use crate::support::daemon::{Daemon, ledgerd, text_of};
use crate::support::events::{LANES, bad_events, good_events, next_event};
use crate::support::ledger::{STREAM, check_ledger, settled};
use crate::support::postgres::{Database, PASSWORD, SUPERUSER};
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::records::REGISTRIES;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use async_nats::jetstream::consumer::DeliverPolicy;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Every kind of record, and usage that has no id of its own.
fn some_of_each() -> Vec<crate::support::events::Outgoing> {
    let mut outgoing = good_events(55);
    outgoing.extend(bad_events());
    outgoing.extend((0..5).map(|_| next_event("TOKENS").without("usage_id").good()));
    outgoing.extend((0..3).map(|_| next_event("METRIC").good()));
    outgoing
}

async fn stop(mut daemon: Daemon) {
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
}

/// The older copy is what a dump, or a base backup, brings back: what was stored since was acknowledged long ago.
#[tokio::test]
async fn a_database_that_was_restored_from_an_older_copy_catches_up_by_itself() {
    let mut world = World::start().await;
    let mut published = Published::default();
    let daemon = world.daemon().await;
    published.publish_all(&world.publisher, some_of_each()).await;
    settled(&world, &published).await;
    stop(daemon).await;
    let older = world.database.copy().await;
    let daemon = world.daemon().await;
    published.publish_all(&world.publisher, some_of_each()).await;
    settled(&world, &published).await;
    stop(daemon).await;

    world.use_database(older);
    let _daemon = world.daemon().await;
    check_ledger(&world, &published).await;
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn a_new_empty_database_is_filled_from_the_beginning_of_the_stream() {
    let mut world = World::start().await;
    let mut published = Published::default();
    let daemon = world.daemon().await;
    published.publish_all(&world.publisher, some_of_each()).await;
    settled(&world, &published).await;
    stop(daemon).await;

    use_another_database(&mut world).await;
    world.database.execute(REGISTRIES).await;
    let daemon = world.daemon().await;
    check_ledger(&world, &published).await;
    assert!(daemon.log_contains("was made by the ledger"), "the consumers were another ledger's: {}", daemon.log());
}

/// It lacks the last commits, which were acknowledged, and the daemon is not started again.
#[tokio::test]
async fn a_failover_to_an_asynchronous_standby_costs_nothing() {
    let mut world = World::builder().own_cluster().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let standby = world.cluster().asynchronous_standby().await;
    let (primary, second) = (world.cluster().port(), standby.port());
    let url = format!(
        "postgres://{SUPERUSER}:{PASSWORD}@127.0.0.1:{primary},127.0.0.1:{second}/{}?target_session_attrs=read-write",
        world.database.name()
    );
    let mut daemon = world.spawn_daemon_with(&[("LEDGERD__DATABASE__URL", url.as_str())]);
    daemon.ready().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, some_of_each()).await;
    settled(&world, &published).await;
    standby.freeze();
    published.publish_all(&world.publisher, some_of_each()).await;
    settled(&world, &published).await;
    world.cluster().kill().await;
    standby.thaw();
    standby.promote().await;
    world.use_server(&standby);
    check_ledger(&world, &published).await;
    assert!(daemon.is_running());
}

#[tokio::test]
async fn what_the_stream_lost_before_it_was_read_is_a_gap_that_is_told() {
    let world = world_that_deletes().await;
    let mut published = Published::default();
    let daemon = world.daemon().await;
    published.publish_all(&world.publisher, vec![next_event("EXEC").good(); 1]).await;
    settled(&world, &published).await;
    stop(daemon).await;
    for _ in 0..10 {
        world.publisher.publish(&next_event("EXEC").subject(), next_event("EXEC").payload()).await;
    }
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    stream.purge().sequence(8).await.expect("it is allowed");

    let daemon = world.daemon().await;
    let rest = "select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'";
    eventually("the rest is stored", SOON, async || {
        let count = world.database.count(rest).await;
        when(count == 5, || count.to_string())
    })
    .await;
    daemon.says("the stream has lost sequences 2 to 7 before they were read").await;
    let recorded = "select count(*) from ledger.gap where lane = 'EXEC' and (first_sequence, last_sequence) = (2, 7)";
    assert_eq!(world.database.count(recorded).await, 1);
    assert!(daemon.metric("ledgerd_gap_sequences_total", "EXEC").await > 5.5);
    let status = world.ledgerd_ok(&["status"]).await;
    assert!(status.contains("EXEC: GAP, sequences 2 to 7"), "{status}");
    let reconciled = world.ledgerd_ok(&["reconcile"]).await;
    assert!(reconciled.contains("EXEC: GAP, sequences 2 to 7"), "{reconciled}");
}

/// The bytes of one delivery go astray, while the connection stays.
#[tokio::test]
async fn a_delivery_that_is_lost_on_the_way_is_noticed_and_read_again() {
    let world = World::builder().nats_proxy().start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    settled(&world, &published).await;
    let mut lost = world.nats_proxy().hold_when(Direction::ToClient, b"MSG ledger.EXEC.");
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    lost.happened().await;
    world.nats_proxy().drop_held().await;
    published.publish_all(&world.publisher, vec![next_event("EXEC").good(), next_event("EXEC").good()]).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 4);
    drop(daemon);
}

/// A former owner of the lane, frozen and woken, acknowledges what it has committed: the server takes that for the new consumer's.
#[tokio::test]
async fn a_late_acknowledgement_of_a_former_owner_does_not_stop_the_lane() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, (0..10).map(|_| next_event("EXEC").good()).collect()).await;
    settled(&world, &published).await;
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    let floor = stream.consumer_info("ledgerd-EXEC").await.expect("it is there").ack_floor.stream_sequence;
    // Its delivery numbers are those of a consumer that has delivered far more.
    let late = format!("$JS.ACK.{STREAM}.ledgerd-EXEC.1.{floor}.5000.1.0");
    world.jetstream().await.client().publish(late, "+ACK".into()).await.expect("sent");
    for _ in 0..3 {
        published.publish_all(&world.publisher, (0..10).map(|_| next_event("EXEC").good()).collect()).await;
        settled(&world, &published).await;
    }
    check_ledger(&world, &published).await;
    drop(daemon);
}

/// A stream that went back to an older copy gives a sequence again, while the message that had it is still in flight.
#[tokio::test]
async fn two_messages_that_had_one_sequence_are_both_stored() {
    let world = World::builder().postgres_proxy().start().await;
    let mut published = Published::default();
    let daemon = world.daemon().await;
    published.publish_all(&world.publisher, good_events(11)).await;
    settled(&world, &published).await;
    let backup = world.nats().back_up().await;
    daemon.says("owned, from position").await;
    let mut held = world.postgres_proxy().hold_when(Direction::ToServer, crate::faults_postgres::COMMIT);
    let older = next_event("EXEC");
    world.publisher.publish(&older.subject(), older.payload()).await;
    held.happened().await;
    world.nats().restore(&backup).await;
    let newer = next_event("EXEC");
    world.publisher.publish(&newer.subject(), newer.payload()).await;
    world.postgres_proxy().release();
    let both =
        format!("select count(*) from audit_events where event_id in ('{}', '{}')", older.event_id(), newer.event_id());
    eventually("both are stored", SOON, async || {
        let count = world.database.count(&both).await;
        when(count == 2, || format!("{count} of 2"))
    })
    .await;
    let epochs = "select count(distinct epoch) from ledger.entry join ledger.epoch using (epoch)
        where stream = 'LEDGER' and sequence = 12";
    assert_eq!(world.database.count(epochs).await, 2, "one sequence, of two epochs");
    world.ledgerd_ok(&["verify"]).await;
}

/// The server stores such a subject, and no filtered consumer that comes upon it in the stream delivers it.
#[tokio::test]
async fn a_message_that_no_consumer_delivers_is_in_custody_within_a_minute() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    settled(&world, &published).await;
    stop(daemon).await;
    let payload = next_event("EXEC").payload();
    let plain = world.publisher.publish("ledger.EXEC.\u{7f}", payload.clone()).await;
    let odd = world.publisher.publish_raw("ledger.EXEC.\u{7f}", b"NATS/1.0\r\nA: x\ry\r\n\r\n", &payload).await;
    published.publish_all(&world.publisher, good_events(22)).await;
    let _daemon = world.daemon().await;
    let stored = format!(
        "select count(*) from ledger.entry join ledger.epoch using (epoch) join ledger.dead_letter using (leaf_index)
        where stream = 'LEDGER' and sequence in ({plain}, {odd}) and reason = 'actor_mismatch' and published_at is not null"
    );
    eventually("both are dead letters", Duration::from_mins(1), async || {
        let count = world.database.count(&stored).await;
        when(count == 2, || format!("{count} of 2"))
    })
    .await;
    let good = "select count(*) from ledger.entry join ledger.epoch using (epoch)
        where stream = 'LEDGER' and disposition = 'recorded'";
    eventually("the others are stored", SOON, async || {
        let count = world.database.count(good).await;
        when(count == 23, || count.to_string())
    })
    .await;
    let reconciled = world.ledgerd_ok(&["reconcile"]).await;
    assert!(reconciled.contains("proven through sequence 25 of 25"), "{reconciled}");
    world.ledgerd_ok(&["verify"]).await;
}

/// Whatever a consumer may have passed over: the daemon counts what its lanes have passed, and reads what is missing.
#[tokio::test]
async fn what_the_lanes_have_passed_and_nobody_has_stored_is_found_by_the_daemons_own_count() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(15)).await;
    settled(&world, &published).await;
    stop(daemon).await;
    published.publish_all(&world.publisher, good_events(15)).await;
    let rejected = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    published.publish(&world.publisher, rejected).await;
    world.database.execute("update ledger.position set sequence = 31").await;
    // What a consumer has not acknowledged would be read again for another reason.
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    for lane in LANES {
        stream.delete_consumer(&format!("ledgerd-{lane}")).await.expect("it is there");
    }
    let daemon = world.daemon().await;
    check_ledger(&world, &published).await;
    daemon.says("were passed over by their lanes' consumers").await;
    let counted = "select count(*) from ledger.counted where through = 31";
    eventually("all of it is counted", SOON, async || when(world.database.count(counted).await == 1, String::new))
        .await;
    world.ledgerd_ok(&["verify"]).await;
}

/// Each of these headers ends the client of its lane. The other lanes have clients of their own.
#[tokio::test]
async fn a_lane_whose_headers_end_the_client_again_and_again_delays_no_other_lane() {
    let world = World::builder().env("RUST_BACKTRACE", "1").start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let block = b"NATS/1.0\r\nA: x\ry\r\n\r\n";
    for _ in 0..40 {
        published.publish_raw(&world.publisher, block, next_event("ERR").good()).await;
        published.publish(&world.publisher, next_event("EXEC").good()).await;
    }
    assert_eq!(check_ledger(&world, &published).await.rows, 80);
    let others: Vec<String> = daemon.log_lines_matching("made anew");
    assert!(others.iter().all(|line| line.contains("ERR")), "{others:#?}");
    for line in daemon.log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "the log stays JSON: {line}");
    }
    let told = daemon.log_lines_matching("panicked");
    assert!(told.len() <= 2, "one line a minute: {told:#?}");
}

#[tokio::test]
async fn a_ledger_leaves_the_consumers_of_another_one_alone() {
    let world = World::start().await;
    let first = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(11)).await;
    settled(&world, &published).await;
    let created = async |world: &World| {
        let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
        stream.consumer_info("ledgerd-EXEC").await.expect("it is there").created
    };
    let before = created(&world).await;
    let other = Database::on(Arc::clone(world.database.cluster())).await;
    let url = other.url();
    let migrated = ledgerd(&["migrate"], &[("LEDGERD__DATABASE__URL".to_owned(), url.clone())].into()).await;
    assert!(migrated.status.success(), "{}", text_of(&migrated));
    let on_the_other = [("LEDGERD__DATABASE__URL", url.as_str())];
    let second = world.spawn_daemon_with(&on_the_other);
    second.says("give one of the two another nats.consumer_prefix").await;
    assert_eq!(created(&world).await, before);
    drop(second);
    let with_a_prefix = [on_the_other[0], ("LEDGERD__NATS__CONSUMER_PREFIX", "second")];
    let second = world.spawn_daemon_with(&with_a_prefix);
    let stored = "select count(*) from audit_events where action <> 'SCHEMA_MIGRATION'";
    eventually("the second ledger has everything, too", SOON, async || {
        let count = other.count(stored).await;
        when(count == 11, || count.to_string())
    })
    .await;
    check_ledger(&world, &published).await;
    drop((first, second));
}

/// The answer that says that a consumer was made is lost. So it is when a cluster elects the consumer's leader for longer than a
/// request waits; to make it anew would begin the election again.
#[tokio::test]
async fn a_consumer_whose_making_was_not_confirmed_is_used_and_not_made_anew() {
    let world = World::builder().nats_proxy().start().await;
    let mut held = world.nats_proxy().hold_answer_after(b"CONSUMER.CREATE.LEDGER.ledgerd-EXEC");
    let _daemon = world.spawn_daemon_with(&[]);
    held.happened().await;
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    let created = async || {
        let info = stream.consumer_info("ledgerd-EXEC").await.map_err(|error| error.to_string())?;
        let is_the_daemons = matches!(info.config.deliver_policy, DeliverPolicy::ByStartSequence { .. });
        if is_the_daemons { Ok(info.created) } else { Err("it is not made yet".to_owned()) }
    };
    let before = eventually("the consumer is made", SOON, &created).await;
    world.nats_proxy().drop_held().await;
    eventually("the lane is read through a consumer", SOON, async || {
        let info = stream.consumer_info("ledgerd-EXEC").await.map_err(|error| error.to_string())?;
        when(info.num_waiting == 1, || format!("{} pulls wait", info.num_waiting))
    })
    .await;
    assert_eq!(created().await, Ok(before));
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 1);
}

/// Somebody pauses a lane; the pause outlives the consumer.
#[tokio::test]
async fn a_pause_outlives_a_restart_of_the_daemon() {
    let world = World::start().await;
    if !world.jetstream().await.client().is_server_compatible(2, 11, 0) {
        return;
    }
    let daemon = world.daemon().await;
    let until = json!({"pause_until": "2999-01-01T00:00:00Z"});
    ask(&world, "CONSUMER.PAUSE.LEDGER.ledgerd-VOTE", &until).await;
    stop(daemon).await;
    let _daemon = world.daemon().await;
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    eventually("the lane is read by the new daemon, and paused", SOON, async || {
        let owned = world.database.count("select count(*) from ledger.position where owner is not null").await;
        let info = stream.consumer_info("ledgerd-VOTE").await.map_err(|error| error.to_string())?;
        when(owned == 15 && info.paused, || format!("{owned} owned, paused: {}", info.paused))
    })
    .await;
}
