//! The check of the whole ledger finds damage. A check that passes everything would make every other test worthless.

use crate::support::events::{bad_events, good_events, next_event};
use crate::support::forge;
use crate::support::ledger::{check_ledger, check_settled_ledger};
use crate::support::published::Published;
use crate::support::world::World;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

/// More than one full tile of leaves.
const GOOD: usize = 300;

/// A ledger with something of everything, and the daemon gone.
async fn settled_world() -> (World, Published) {
    let world = World::builder().limited_role().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(GOOD)).await;
    // Now leaf 200 is a good one, whichever lane was quickest.
    check_ledger(&world, &published).await;
    let twice = next_event("EXEC").hashed();
    published.publish_all(&world.publisher, vec![twice.good(), twice.again()]).await;
    published.publish_all(&world.publisher, bad_events()).await;
    published.publish_with_headers(&world.publisher, &[("Nats-Msg-Id", "one")], next_event("SEC").good()).await;
    let pairs = [("Trace", "a: b"), ("Nats-Msg-Id", "two"), ("Ledger-Reason", "forged")];
    let bad = next_event("SEC").without("actor").bad("missing_field");
    published.publish_with_headers(&world.publisher, &pairs, bad).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (GOOD + 2, 1, published.bad()));
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    (world, published)
}

/// Checks, and returns the faults; `None` when the check passes.
async fn faults(world: &World, published: &Published) -> Option<String> {
    let checked = AssertUnwindSafe(check_settled_ledger(world, published)).catch_unwind().await;
    checked.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[tokio::test]
async fn any_damage_to_any_table() {
    let (mut world, mut published) = settled_world().await;
    let damages = [
        ("delete from ledger.entry where leaf_index = 200", "LOST"),
        ("delete from ledger.entry where leaf_index = 200", "leaf 200 is missing"),
        ("update ledger.entry set payload = payload || ' '::bytea where leaf_index = 200", "other bytes"),
        ("update ledger.entry set payload = 'x' where leaf_index = 200", "of other bytes"),
        ("update ledger.entry set headers = 'A: b' where leaf_index = 200", "custody has the headers"),
        ("update ledger.entry set subject = 'ledger.SEC.X' where leaf_index = 200", "published to"),
        ("update ledger.entry set record_id = 'x' where leaf_index = 200", "custody names it"),
        ("update ledger.entry set disposition = 'duplicate' where leaf_index = 200", "recorded 0 times"),
        ("update ledger.entry set disposition = 'recorded', payload = '' where disposition = 'duplicate'", "recorded 2 times"),
        ("update ledger.entry set disposition = 'rejected' where leaf_index = 200", "rejected, not Good"),
        ("update ledger.entry set leaf_hash = sha256('x') where leaf_index = 200", "root is not that of its leaves"),
        ("update ledger.tree_head set root = sha256('x')", "root is not that of its leaves"),
        ("update ledger.tree_head set frontier = frontier || sha256('x')", "frontier is not that of its leaves"),
        ("update ledger.tree_head set size = size + 1", "the tree's head says"),
        ("update ledger.subtree set hash = sha256('x')", "or their hashes differ"),
        ("delete from ledger.subtree", "there are 0 subtrees"),
        ("update public.audit_events set actor = 'ARCHITECT' where id = (select row_id from ledger.entry where leaf_index = 200)", "another actor"),
        ("update public.audit_events set details = '{}' where details is not null", "another details"),
        ("update public.audit_events set task_id = null", "another task_id"),
        ("update public.audit_events set timestamp = timestamp + interval '1 ms' where id = (select row_id from ledger.entry where leaf_index = 200)", "another timestamp"),
        ("update public.audit_events set integrity_hash = repeat('0', 64) where id = (select row_id from ledger.entry where leaf_index = 200)", "another integrity_hash"),
        ("delete from public.audit_events where id = (select row_id from ledger.entry where leaf_index = 200)", "recorded, and has no row"),
        (
            "insert into public.audit_events (event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text)
             values ('x', 'x', 'x', 'x', now(), 'x', now()::text)",
            "and there are",
        ),
        ("delete from ledger.dead_letter", "rejected, and has a dead letter: false"),
        ("update ledger.dead_letter set reason = 'conflict'", "rejected for conflict"),
        ("update ledger.dead_letter set detail = 'other'", "Ledger-Detail is"),
        ("update ledger.dead_letter set dlq_subject = dlq_subject || '0'", "its dead letter goes to"),
        (
            "insert into ledger.entry select leaf_index + 1, epoch, sequence + 1000, subject, server_time_ns, headers, payload,
                    payload_sha256, disposition, record_id, row_id, leaf_hash, committed_at
             from ledger.entry order by leaf_index desc limit 1",
            "nobody published it",
        ),
    ];
    // The leaves are numbered as the lanes happened to commit: 200 stands for one of an audit event.
    let leaf = world
        .database
        .count("select max(leaf_index) from ledger.entry where disposition = 'recorded' and subject = 'ledger.EXEC.BRM-CTO'")
        .await;
    let original = world.database.copy().await;
    for (damage, expected) in damages {
        world.database = original.copy().await;
        forge::arm(&world.database).await;
        let tables = ["ledger.dead_letter", "ledger.subtree", "ledger.tree_head", "public.audit_events"];
        for table in tables {
            world.database.execute(&format!("alter table {table} disable trigger all")).await;
        }
        let damage = &damage.replace("200", &leaf.to_string());
        let expected = expected.replace("200", &leaf.to_string());
        world.database.execute(damage).await;
        let found = faults(&world, &published).await.unwrap_or_else(|| panic!("the check passes {damage}"));
        assert!(found.contains(&expected), "{damage}: {found}");
    }

    world.database = original.copy().await;
    assert_eq!(faults(&world, &published).await, None, "without damage it passes");
    world.publisher.publish("dlq.ledger.EXEC.BRM-CTO.1-1", "nobody's").await;
    let found = faults(&world, &published).await.expect("a dead letter of nobody");
    assert!(found.contains("LEDGER_DLQ has"), "{found}");
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    let found = faults(&world, &published).await.expect("a message that the daemon has not taken");
    assert!(found.contains("LOST: ledger.EXEC.BRM-CTO"), "{found}");
}
