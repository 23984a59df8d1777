//! What must not cost more as the ledger grows: nobody goes through a whole table to find a few of its rows.

use crate::support::daemon::text_of;
use crate::support::forge;
use crate::support::signed::{ORIGIN, fill};
use crate::support::world::World;
use serde_json::Value;

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

#[tokio::test]
async fn status_and_check_count_what_is_no_record_and_leave_the_records_alone() {
    let world = World::start().await;
    fill(&world.database, 20_000).await;
    forge::arm(&world.database).await;
    let fates = "update ledger.entry set disposition = 'duplicate' where leaf_index % 1000 = 7;
        update ledger.entry set disposition = 'rejected' where leaf_index % 1000 = 8;
        insert into ledger.dead_letter
            select leaf_index, 'conflict', 'x', 'dlq.' || leaf_index, committed_at from ledger.entry where disposition = 'rejected';
        update ledger.dead_letter set published_at = now() where leaf_index = 8;
        analyze ledger.batch;
        -- What these have read is counted before they are answered.
        select pg_stat_force_next_flush()";
    world.database.execute(fates).await;
    let before = world.database.read_in_full("batch").await;

    let status: Value = serde_json::from_str(&world.ledgerd_ok(&["status", "--json"]).await).expect("JSON");
    let counts = ["tree_size", "recorded", "duplicates", "rejected", "unpublished_dead_letters"];
    assert_eq!(counts.map(|name| status[name].as_i64().unwrap_or(-1)), [20_000, 19_960, 20, 20, 19], "{status}");
    let checked = text_of(&world.ledgerd(&["check"]).await);
    assert!(checked.contains("dead letters: 19 are not published yet"), "{checked}");
    assert_eq!(world.database.read_in_full("batch").await, before, "batches were read in full");
}
