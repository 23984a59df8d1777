//! What must not cost more as the ledger grows: nobody goes through a whole table to find a few of its rows.

use crate::support::signed::{ORIGIN, fill};
use crate::support::world::World;

#[tokio::test]
async fn verify_finds_the_checkpoints_of_a_few_leaves_without_reading_all_others() {
    const CHECKPOINTS: i64 = 6000;
    // Checkpoints are asked for once for each 4,096 of these.
    const LEAVES: u64 = 4 * 4096;
    let world = World::builder().without_streams().start().await;
    fill(&world.database, LEAVES).await;
    let sign = format!(
        "insert into ledger.checkpoint (origin, tree_size, root, note)
            select '{ORIGIN}', size, sha256(size::text::bytea), repeat('a note', 30) from generate_series(1, {CHECKPOINTS}) as size;
        analyze ledger.checkpoint"
    );
    world.database.execute(&sign).await;
    let before = world.database.read_in_full("checkpoint").await;
    // Neither the leaves nor the checkpoints are any good; how they are looked for is the same.
    assert_eq!(world.ledgerd(&["verify", "--json"]).await.status.code(), Some(3));
    let read = world.database.read_in_full("checkpoint").await - before;
    assert!(read < CHECKPOINTS, "{read} checkpoints were read in full, and there are {CHECKPOINTS}");
}
