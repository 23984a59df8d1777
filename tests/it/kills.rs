//! kill -9 at every instant that matters: nothing is lost, no row and no dead letter is doubled.

use crate::faults_postgres::COMMIT;
use crate::support::events::{bad_events, good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::proxy::{Direction, Hold, TcpProxy};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};

async fn publish_some(world: &World) -> Published {
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(110)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    published
}

/// What becomes of the bytes that the proxy held when the daemon was killed.
enum Held {
    /// They never arrive.
    Lost,
    /// They arrive late, while the next daemon is at work already.
    Late,
}

/// Kills the daemon at the instant at which the proxy holds something.
async fn kill_at(world: &World, proxy: &TcpProxy, hold: impl FnOnce(&TcpProxy) -> Hold, fate: Held) -> Published {
    let mut daemon = world.daemon().await;
    let mut hold = hold(proxy);
    let published = publish_some(world).await;
    hold.happened().await;
    daemon.sigkill();
    match fate {
        Held::Lost => proxy.drop_held().await,
        Held::Late => proxy.release(),
    }
    published
}

/// Checks what the next daemon makes of it.
async fn restart_and_check(world: &World, published: &Published) {
    let _again = world.daemon().await;
    let counts = check_ledger(world, published).await;
    assert_eq!((counts.rows, counts.rejects), (110, published.bad()));
}

#[tokio::test]
async fn killed_before_the_commit() {
    let world = World::builder().postgres_proxy().start().await;
    let hold = |proxy: &TcpProxy| proxy.hold_when(Direction::ToServer, COMMIT);
    let published = kill_at(&world, world.postgres_proxy(), hold, Held::Lost).await;
    restart_and_check(&world, &published).await;
}

#[tokio::test]
async fn killed_while_the_commit_is_on_its_way() {
    let world = World::builder().postgres_proxy().start().await;
    let hold = |proxy: &TcpProxy| proxy.hold_when(Direction::ToServer, COMMIT);
    let published = kill_at(&world, world.postgres_proxy(), hold, Held::Late).await;
    restart_and_check(&world, &published).await;
}

#[tokio::test]
async fn killed_between_the_commit_and_the_acknowledgement() {
    let world = World::builder().postgres_proxy().start().await;
    let published = kill_at(&world, world.postgres_proxy(), |proxy| proxy.hold_answer_after(COMMIT), Held::Lost).await;
    restart_and_check(&world, &published).await;
}

#[tokio::test]
async fn killed_while_the_acknowledgement_is_on_its_way() {
    let world = World::builder().nats_proxy().start().await;
    let hold = |proxy: &TcpProxy| proxy.hold_when(Direction::ToServer, b"PUB $JS.ACK.");
    let published = kill_at(&world, world.nats_proxy(), hold, Held::Lost).await;
    restart_and_check(&world, &published).await;
}

/// The mark is what is held: the publication came before it.
#[tokio::test]
async fn killed_between_a_dead_letters_publication_and_its_mark() {
    let world = World::builder().postgres_proxy().start().await;
    let hold = |proxy: &TcpProxy| proxy.hold_when(Direction::ToServer, b"update ledger.dead_letter");
    let published = kill_at(&world, world.postgres_proxy(), hold, Held::Lost).await;
    let unmarked = world.database.count("select count(*) from ledger.dead_letter where published_at is null").await;
    assert!(unmarked > 0, "the kill came before the mark");
    restart_and_check(&world, &published).await;
}

#[tokio::test]
async fn killed_while_a_dead_letter_is_on_its_way() {
    let world = World::builder().nats_proxy().start().await;
    let hold = |proxy: &TcpProxy| proxy.hold_when(Direction::ToServer, b"HPUB dlq.ledger.");
    let published = kill_at(&world, world.nats_proxy(), hold, Held::Late).await;
    restart_and_check(&world, &published).await;
}

#[tokio::test]
async fn killed_again_and_again_under_load() {
    let world = World::start().await;
    let mut published = Published::default();
    let mut entries_wanted = 1;
    for round in 0..12 {
        let mut daemon = world.spawn_daemon();
        let mut events = good_events(400);
        events.push(next_event("TOOL").with("outcome", "SUCCESS").bad("outcome_not_allowed"));
        published.publish_all(&world.publisher, events).await;
        // Another instant each time: after so many entries more.
        entries_wanted += 37 * (round % 5);
        eventually("enough are stored", SOON, async || {
            let count = world.database.count("select count(*) from ledger.entry").await;
            when(count >= entries_wanted, || format!("{count} of {entries_wanted}"))
        })
        .await;
        daemon.sigkill();
        entries_wanted = world.database.count("select count(*) from ledger.entry").await;
    }
    let _last = world.daemon().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects, counts.lost), (4800, 12, 0));
}

#[tokio::test]
async fn two_instances_share_the_lanes_and_one_is_killed() {
    let world = World::start().await;
    let mut first = world.daemon().await;
    let second = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(1100)).await;
    first.sigkill();
    published.publish_all(&world.publisher, good_events(1100)).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (2200, 0, 0));
    assert!(second.metric("ledgerd_records_committed_total", "").await > 0.0);
}
