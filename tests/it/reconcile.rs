//! `ledgerd reconcile`: what is acknowledged is in the ledger, or the stream itself has removed it; anything else is named, and
//! repaired.

use crate::replay::{said, world_that_deletes};
use crate::support::daemon::{Daemon, ledgerd, text_of};
use crate::support::events::{bad_events, good_events, next_event};
use crate::support::forge;
use crate::support::ledger::{STREAM, check_ledger, settled};
use crate::support::published::Published;
use crate::support::world::World;
use serde_json::{Value, json};

async fn reconcile(world: &World, options: &[&str]) -> (Option<i32>, Value) {
    said(world, &[&["reconcile"], options].concat()).await
}

/// A world whose stream and ledger have so many events.
async fn a_ledger_of(events: usize) -> (World, Daemon, Published) {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(events)).await;
    settled(&world, &published).await;
    (world, daemon, published)
}

/// Moves the positions of all lanes to the stream's end, as no daemon would.
async fn pass_over(world: &World, through: usize) {
    world.database.execute(&format!("update ledger.position set sequence = {through}")).await;
}

#[tokio::test]
async fn a_ledger_is_proven_once_and_what_is_missing_is_named_and_repaired() {
    let world = World::builder().limited_role().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(110)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    settled(&world, &published).await;
    let all = published.all().len();
    // As the daemon's own role: the timer has no other.
    let output = ledgerd(&["reconcile"], &world.environment).await;
    let text = text_of(&output);
    assert!(output.status.success() && text.contains(&format!("proven through sequence {all} of {all}")), "{text}");
    assert!(text.contains(&format!("sequences 1 to {all}: {all} in the ledger, 0 expired, 0 deleted")), "{text}");
    let (code, second) = reconcile(&world, &[]).await;
    assert_eq!((code, &second["looked_at"], &second["proven_through"]), (Some(0), &Value::Null, &json!(all)));
    published.publish_all(&world.publisher, vec![next_event("EXEC").good(), next_event("VOTE").good()]).await;
    settled(&world, &published).await;
    let (_, third) = reconcile(&world, &[]).await;
    assert_eq!(third["looked_at"], json!({"first": all + 1, "last": all + 2}));
    assert_eq!(third["newly_proven"]["entries"], json!(2));

    // What waits is above the floor, and not missing.
    daemon.sigterm();
    daemon.wait_exit().await;
    published.publish_all(&world.publisher, vec![next_event("EXEC").good(), next_event("VOTE").good()]).await;
    let (code, waiting) = reconcile(&world, &[]).await;
    let found = ["stored_through", "held_back_by"].map(|name| waiting[name].clone());
    assert_eq!((code, found), (Some(0), [json!(all + 2), json!("EXEC")]), "{waiting}");

    // Below the positions, and in no ledger.
    pass_over(&world, all + 4).await;
    let (code, missing) = reconcile(&world, &[]).await;
    let range = json!([{"first": all + 3, "last": all + 4}]);
    assert_eq!((code, &missing["missing"]["ranges"]), (Some(3), &range), "{missing}");
    assert_eq!(missing["proven_through"], json!(all + 2), "no further than what is there");
    let (code, repaired) = reconcile(&world, &["--repair"]).await;
    assert_eq!((code, &repaired["repaired"]["stored"]), (Some(0), &json!(2)), "{repaired}");
    assert_eq!(repaired["proven_through"], json!(all + 4));
    check_ledger(&world, &published).await;

    // Taken out of custody below what was proven: a run of everything finds it.
    let delete = "delete from ledger.entry
        where sequence = 7 and epoch = (select epoch from ledger.epoch where stream = 'LEDGER')";
    forge::arm(&world.database).await;
    world.database.execute(delete).await;
    forge::disarm_and_guard(&world.database).await;
    assert_eq!(reconcile(&world, &[]).await.0, Some(0), "the daily run looks at what is new");
    let (code, missing) = reconcile(&world, &["--all"]).await;
    assert_eq!((code, &missing["missing"]["ranges"]), (Some(3), &json!([{"first": 7, "last": 7}])), "{missing}");
    let text = text_of(&world.ledgerd(&["reconcile", "--all"]).await);
    assert!(text.contains("`ledgerd reconcile --all --repair` reads them again"), "{text}");
    let (code, repaired) = reconcile(&world, &["--all", "--repair"]).await;
    assert_eq!((code, &repaired["missing"]["sequences"]), (Some(0), &json!(0)), "{repaired}");
}

#[tokio::test]
async fn what_the_stream_removed_is_told_apart_from_what_is_missing() {
    let world = world_that_deletes().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(20)).await;
    settled(&world, &published).await;
    daemon.sigterm();
    daemon.wait_exit().await;
    published.publish_all(&world.publisher, good_events(10)).await;
    let mut stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    let mut wider = stream.info().await.expect("it answers").config.clone();
    wider.subjects.push("extra.*".to_owned());
    world.jetstream().await.update_stream(wider).await.expect("it may be wider");
    world.publisher.publish("extra.thing", "nobody reads this").await;
    stream.purge().sequence(25).await.expect("it is allowed");
    stream.delete_message(27).await.expect("it is allowed");
    let next = world.publisher.publish(&next_event("EXEC").subject(), next_event("EXEC").payload()).await;
    assert_eq!(next, 32);

    let _daemon = world.daemon().await;
    crate::support::eventually("all that is left is acknowledged", crate::support::SOON, async || {
        let (_, said) = reconcile(&world, &["--all"]).await;
        crate::support::when(said["stored_through"] == json!(32), || said.to_string())
    })
    .await;
    let (code, said) = reconcile(&world, &["--all"]).await;
    let ranges = ["expired", "deleted", "on_no_lane", "missing"].map(|name| said[name]["ranges"].clone());
    let one = |first: i64, last: i64| json!([{"first": first, "last": last}]);
    assert_eq!((code, ranges), (Some(0), [one(21, 24), one(27, 27), one(31, 31), json!([])]), "{said}");
    assert_eq!(said["newly_proven"]["entries"], json!(26));
    let text = world.ledgerd_ok(&["reconcile", "--all"]).await;
    assert!(text.contains("not in the ledger, and expired in the stream: 4 sequences, 21 to 24"), "{text}");
}

#[tokio::test]
async fn epochs_are_named_and_a_stream_that_went_back_is_found_and_repaired() {
    let (world, mut daemon, mut published) = a_ledger_of(30).await;
    assert_eq!(reconcile(&world, &[]).await.0, Some(0));
    published.publish_all(&world.publisher, good_events(15)).await;
    settled(&world, &published).await;
    daemon.sigterm();
    daemon.wait_exit().await;

    // Made anew: what the old stream held stays, and of its end nothing was proven.
    world.jetstream().await.delete_stream(STREAM).await.expect("it is there");
    world.ledgerd_ok(&["setup"]).await;
    published.stream_was_made_anew();
    let mut daemon = world.daemon().await;
    published.publish_all(&world.publisher, good_events(30)).await;
    settled(&world, &published).await;
    let text = world.ledgerd_ok(&["reconcile"]).await;
    assert!(text.contains("proven through sequence 30 of 30"), "{text}");
    let says =
        "is gone, and the ledger keeps sequences 1 to 45 of it; proven through 30; of sequences 31 to 45 nothing";
    assert!(text.contains(says), "{text}");

    // Restored from a copy that lacks its end.
    daemon.sigterm();
    daemon.wait_exit().await;
    let backup = world.nats().back_up().await;
    let mut daemon = world.daemon().await;
    published.publish_all(&world.publisher, good_events(15)).await;
    settled(&world, &published).await;
    assert_eq!(reconcile(&world, &[]).await.0, Some(0));
    daemon.sigterm();
    daemon.wait_exit().await;
    world.nats().restore(&backup).await;
    let (code, said) = reconcile(&world, &[]).await;
    assert_eq!((code, &said["went_back_from"]), (Some(3), &json!(45)), "{said}");

    // Its sequences are used again.
    for _ in 0..20 {
        world.publisher.publish(&next_event("EXEC").subject(), next_event("EXEC").payload()).await;
    }
    let (code, said) = reconcile(&world, &[]).await;
    assert_eq!((code, &said["parted_at"]), (Some(3), &json!(31)), "{said}");
    let (code, said) = reconcile(&world, &["--repair"]).await;
    // As far as all lanes had come; the daemon stores the rest.
    assert!(code == Some(0) && said["repaired"]["stored"].as_i64() >= Some(1), "{said}");
    assert_eq!(said["parted_at"], Value::Null, "{said}");
    let _daemon = world.daemon().await;
    crate::support::eventually("the rest is stored", crate::support::SOON, async || {
        let (code, said) = reconcile(&world, &[]).await;
        crate::support::when((code, &said["proven_through"]) == (Some(0), &json!(50)), || said.to_string())
    })
    .await;
    let text = world.ledgerd_ok(&["reconcile"]).await;
    assert!(
        text.contains("the stream went back, and epoch") && text.contains("goes on with sequences 31 to 50"),
        "{text}"
    );
}

#[tokio::test]
async fn a_stream_that_went_back_and_grew_again_beyond_what_was_stored_is_read_again_where_it_diverged() {
    let (world, mut daemon, mut published) = a_ledger_of(30).await;
    daemon.sigterm();
    daemon.wait_exit().await;
    let backup = world.nats().back_up().await;
    let mut daemon = world.daemon().await;
    published.publish_all(&world.publisher, good_events(15)).await;
    settled(&world, &published).await;
    assert_eq!(reconcile(&world, &[]).await.1["proven_through"], json!(45));
    daemon.sigterm();
    daemon.wait_exit().await;

    // The sequences 31 to 45 are other messages now.
    world.nats().restore(&backup).await;
    for _ in 0..20 {
        world.publisher.publish(&next_event("EXEC").subject(), next_event("EXEC").payload()).await;
    }
    let (code, said) = reconcile(&world, &[]).await;
    assert_eq!((code, &said["parted_at"]), (Some(3), &json!(31)), "{said}");
    let daemon = world.daemon().await;
    daemon.says("from sequence 31 on it holds other messages").await;
    let new = "select count(*) from ledger.entry join ledger.epoch using (epoch)
        where stream = 'LEDGER' and regressions = 1 and sequence between 31 and 50";
    crate::support::eventually("all of them are stored in a new epoch", crate::support::SOON, async || {
        let count = world.database.count(new).await;
        crate::support::when(count == 20, || count.to_string())
    })
    .await;
    crate::support::eventually("and the ledger is proven", crate::support::SOON, async || {
        let (code, said) = reconcile(&world, &["--all"]).await;
        crate::support::when((code, &said["proven_through"]) == (Some(0), &json!(50)), || said.to_string())
    })
    .await;
    world.ledgerd_ok(&["verify"]).await;
}
