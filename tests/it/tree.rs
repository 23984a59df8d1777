//! The tree in the commit: whatever is cut, frozen or interleaved, the leaves are contiguous, and subtrees, head and root agree.
//! `check_ledger` recomputes all of it.

use crate::faults_postgres::COMMIT;
use crate::support::events::{bad_events, good_events};
use crate::support::ledger::{check_ledger, settled};
use crate::support::proxy::{Direction, TcpProxy};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use sqlx::Executor as _;

/// Every statement of a commit that writes, or that the outcome hangs on, in their order.
const STATEMENTS: [&[u8]; 9] = [
    b"begin isolation level read committed",
    b"insert into public.audit_events",
    b"insert into ledger.token_usage",
    b"select size, frontier",
    b"insert into public.token_ledger",
    b"insert into ledger.budget_alert",
    // Together with the subtrees, the head and the positions.
    b"insert into ledger.batch",
    b"insert into ledger.dead_letter",
    COMMIT,
];

/// What becomes of a statement.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It never arrives.
    Refused,
    /// It is done, and the answer is lost.
    DoneUnheard,
}

#[tokio::test]
async fn a_commit_that_breaks_at_any_statement_is_repeated_whole() {
    for fault in [Fault::Refused, Fault::DoneUnheard] {
        let world = World::builder().postgres_proxy().env("LEDGERD__DATABASE__WRITERS", "1").start().await;
        let proxy: &TcpProxy = world.postgres_proxy();
        let _daemon = world.daemon().await;
        let mut published = Published::default();
        for statement in STATEMENTS {
            // On a new connection each statement is parsed anew, and so passes the proxy as text.
            world
                .database
                .execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ledgerd' and datname = current_database()")
                .await;
            let mut hold = match fault {
                Fault::Refused => proxy.hold_when(Direction::ToServer, statement),
                Fault::DoneUnheard => proxy.hold_answer_after(statement),
            };
            // Enough for a subtree of 256 leaves in each round, with rejects among them.
            published.publish_all(&world.publisher, good_events(280)).await;
            published.publish_all(&world.publisher, bad_events()).await;
            hold.happened().await;
            proxy.drop_held().await;
            settled(&world, &published).await;
        }
        let counts = check_ledger(&world, &published).await;
        assert_eq!((counts.rows, counts.rejects), (280 * STATEMENTS.len(), published.bad()), "{fault:?}");
    }
}

#[tokio::test]
async fn three_instances_of_which_each_is_frozen_and_woken_in_turn() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let mut daemons = [world.daemon().await, world.daemon().await, world.daemon().await];
    let mut published = Published::default();
    for round in 0..6 {
        let daemon = &mut daemons[round % 3];
        published.publish_all(&world.publisher, good_events(500)).await;
        daemon.sigstop();
        published.publish_all(&world.publisher, good_events(500)).await;
        let before = world.database.count("select count(*) from ledger.entry").await;
        eventually("the others go on", SOON, async || {
            let now = world.database.count("select count(*) from ledger.entry").await;
            when(now > before || now >= published.all().len().try_into().expect("few"), || format!("{now} entries"))
        })
        .await;
        daemons[round % 3].sigcont();
    }
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (6000, 0));
}

/// The holder of the head's lock stands still in the middle of its commit. The server ends its session, and the others go on;
/// when it wakes, it finds what it holds not stored, or stored by others, and stores nothing twice.
#[tokio::test]
async fn a_holder_of_the_heads_lock_that_stands_still_delays_the_others_by_seconds() {
    let world = World::builder().postgres_proxy().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let holder = world.daemon().await;
    let mut hold = world.postgres_proxy().hold_when(Direction::ToServer, b"insert into ledger.batch");
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(150)).await;
    hold.happened().await;
    // The second instance does not go through the proxy.
    let mut straight = world.environment.clone();
    straight.extend(world.operator.clone());
    let mut second = crate::support::daemon::Daemon::spawn(&straight);
    second.ready().await;
    published.publish_all(&world.publisher, good_events(150)).await;
    eventually("the second instance commits", SOON, async || {
        let committed = second.metric("ledgerd_records_committed_total", "").await;
        when(committed > 0.0, || "nothing is committed".to_owned())
    })
    .await;
    world.postgres_proxy().release();
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (300, 0));
    eventually("the holder goes on", SOON, async || {
        when(holder.metric("ledgerd_dependency_up", "postgres").await > 0.5, || holder.log())
    })
    .await;
}

/// No commit waits for a horizon: neither a writer elsewhere in the cluster nor an old snapshot holds up the tree.
#[tokio::test]
async fn a_transaction_elsewhere_that_stays_open_holds_up_nothing() {
    let world = World::start().await;
    let elsewhere = crate::support::postgres::Database::fresh().await;
    let mut writer = elsewhere.connect().await;
    writer.execute("create table t (x int); begin; insert into t values (1)").await.expect("open");
    let mut reader = world.database.connect().await;
    reader.execute("begin isolation level repeatable read; select count(*) from ledger.entry").await.expect("open");
    let mut prepared = world.database.connect().await;
    prepared.execute("create table public.t (x int); begin; insert into public.t values (1)").await.expect("open");
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(900)).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!(counts.rows, 900);
    writer.execute("commit").await.expect("it was open all the time");
    reader.execute("commit").await.expect("it was open all the time");
    prepared.execute("rollback").await.expect("it was open all the time");
}
