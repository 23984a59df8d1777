//! Batches that wait for a connection at the same time are one transaction, and none of them pays for another.

use crate::support::daemon::Daemon;
use crate::support::events::{Outgoing, good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use sqlx::Executor as _;

const LANES: usize = 11;

/// Publishes while somebody holds the tree's head: one commit or two wait for that, and the other lanes in line.
async fn publish_into_a_line(world: &World, daemon: &Daemon, published: &mut Published, outgoing: Vec<Outgoing>) {
    let mut holder = world.database.connect().await;
    holder.execute("begin; select from ledger.tree_head for update").await.expect("the head is free");
    published.publish_all(&world.publisher, outgoing).await;
    eventually("all lanes wait", SOON, async || {
        let received = daemon.metric("ledgerd_messages_received_total", "").await;
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'ledgerd' and wait_event_type = 'Lock'";
        let waiting = world.database.count(waiting).await;
        when(received > 10.5 && waiting > 0, || format!("{received} received, {waiting} commits wait"))
    })
    .await;
    holder.execute("commit").await.expect("the head is let go");
}

async fn a_world_that_may_wait_for_long() -> World {
    World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "60s").start().await
}

#[tokio::test]
async fn lanes_that_wait_for_a_connection_commit_together() {
    let world = a_world_that_may_wait_for_long().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    publish_into_a_line(&world, &daemon, &mut published, good_events(LANES)).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (LANES, 0));
    eventually("each lane counts its own", SOON, async || {
        let counted = daemon.metric("ledgerd_records_committed_total", "").await;
        when((counted - 11.0).abs() < 0.5, || format!("{counted} are counted"))
    })
    .await;
    let transactions = "select count(distinct xmin::text) from ledger.batch where subjects[1] like 'ledger.%.%'";
    let transactions = world.database.count(transactions).await;
    // Who was first in line, who waited too long for a turn, and who came late.
    assert!(transactions <= 5, "{transactions} transactions for {LANES} lanes");
}

#[tokio::test]
async fn a_record_that_the_database_refuses_takes_no_other_lane_with_it() {
    let world = a_world_that_may_wait_for_long().await;
    world.database.execute("alter table audit_events add constraint no_poison check (task_id <> 'poison')").await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let mut outgoing = good_events(LANES - 1);
    outgoing.push(next_event("ERR").with("task_id", "poison").bad("database_rejected"));
    publish_into_a_line(&world, &daemon, &mut published, outgoing).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (LANES - 1, 1));
}
