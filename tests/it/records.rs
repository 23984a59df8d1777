//! What becomes of a message: a row, a duplicate, or a dead letter with its reason.

use crate::support::dead_letters::dead_letter_messages;
use crate::support::events::{bad_events, event, good_events, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::published::{Headers, Published};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

const DUPLICATES_WITH_BYTES: &str =
    "select count(*) from ledger.entry where disposition = 'duplicate' and payload is not null";

#[tokio::test]
async fn good_events_of_every_lane_become_rows_and_bad_ones_become_dead_letters() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(220)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (220, published.bad()));
}

#[tokio::test]
async fn the_same_event_again_is_stored_once_and_another_under_its_id_is_a_conflict() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let first = next_event("EXEC").with("details", json!({"cost": 1.10, "steps": [1, 2]}));
    published.publish(&world.publisher, first.good()).await;
    settled(&world, &published).await;
    published.publish(&world.publisher, first.again()).await;
    // The order of keys and the form of numbers are not content.
    let mut same = first.again();
    let text = String::from_utf8(same.payload).expect("JSON").replace("\"cost\":1.1", "\"cost\":11e-1");
    same.payload = text.into_bytes();
    published.publish(&world.publisher, same).await;
    published.publish(&world.publisher, first.clone().with("task_id", "another").bad("conflict")).await;
    published.publish(&world.publisher, first.with("details", json!({"cost": 2})).bad("conflict")).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (1, 2, 2));
    // Each is kept as it came: in a batch, a copy takes next to no room.
    assert_eq!(world.database.count(DUPLICATES_WITH_BYTES).await, 2);
}

#[tokio::test]
async fn duplicates_and_conflicts_within_one_batch_are_told_apart() {
    let world = World::start().await;
    let mut published = Published::default();
    let first = next_event("SEC");
    let batch = vec![first.good(), first.again(), first.clone().with("task_id", "x").bad("conflict"), first.again()];
    published.publish_all(&world.publisher, batch).await;
    let _daemon = world.daemon().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (1, 2, 1));
    assert_eq!(world.database.count(DUPLICATES_WITH_BYTES).await, 2, "what is kept does not depend on the batch");
}

/// Each commit looks for what earlier ones stored. A plan for that which was made while the table was empty is kept for ever.
#[tokio::test]
async fn what_is_stored_already_is_looked_up_and_never_searched_for() {
    const EVENTS: usize = 300;
    const MORE: u32 = 30;
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    // One after the other, so that there are many commits: the server keeps a plan after a handful.
    for event in good_events(EVENTS) {
        published.publish(&world.publisher, event).await;
    }
    check_ledger(&world, &published).await;
    // The test itself has read all of custody. From here on, only the daemon does.
    let counted = async |column: &str| {
        world.database.count(&format!("select {column} from pg_stat_user_tables where relname = 'batch'")).await
    };
    let (committed, stored) = (daemon.metric("ledgerd_records_committed_total", "").await, counted("n_tup_ins").await);
    let searched = counted("seq_tup_read").await;
    for event in good_events(MORE as usize) {
        world.publisher.publish(&event.subject, event.payload).await;
        tokio::task::yield_now().await;
    }
    eventually("they are stored, and the server has counted them", SOON, async || {
        let more = daemon.metric("ledgerd_records_committed_total", "").await - committed;
        let batches = counted("n_tup_ins").await - stored;
        when(more >= f64::from(MORE) && batches > 0, || format!("{more} records, {batches} batches"))
    })
    .await;
    let searched = counted("seq_tup_read").await - searched;
    assert!(searched < 100, "{searched} batches were read in search of sequences, and none was there before");
}

#[tokio::test]
async fn one_bad_record_among_a_thousand_good_ones_is_the_only_dead_letter() {
    let world = World::start().await;
    let mut published = Published::default();
    let mut batch = good_events(1000);
    batch.insert(500, next_event("EXEC").with("outcome", "ABSTAIN").bad("outcome_not_allowed"));
    published.publish_all(&world.publisher, batch).await;
    let _daemon = world.daemon().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (1000, 1));
}

/// An operator's own constraint is not known to the judging.
#[tokio::test]
async fn one_record_that_only_the_database_refuses_is_found_among_a_thousand() {
    let world = World::start().await;
    world.database.execute("alter table audit_events add constraint no_poison check (task_id <> 'poison')").await;
    let mut published = Published::default();
    let mut batch: Vec<_> = (0..1000).map(|_| next_event("EXEC").good()).collect();
    batch.insert(400, next_event("EXEC").with("task_id", "poison").bad("database_rejected"));
    published.publish_all(&world.publisher, batch).await;
    let _daemon = world.daemon().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (1000, 1));
}

/// A table that takes no good record either is the operator's fault, and no reason to reject anything.
#[tokio::test]
async fn a_column_that_was_narrowed_makes_records_wait_and_rejects_none() {
    let world = World::start().await;
    // The view stands on the column's type, so the narrowing is written as a constraint.
    world
        .database
        .execute("alter table audit_events add constraint narrow check (length(event_id) <= 20) not valid")
        .await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(30)).await;
    let missing = daemon.unready().await;
    assert!(missing.contains("audit_events refuses records that are good"), "{missing}");
    world.database.execute("alter table audit_events drop constraint narrow").await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (30, 0));
}

/// The table is mended and broken again while records are being tried one by one.
#[tokio::test]
async fn a_table_that_is_mended_while_records_are_tried_rejects_none() {
    let world = World::start().await;
    let break_it = "alter table audit_events add constraint narrow check (length(event_id) <= 20) not valid";
    let mend_it = "alter table audit_events drop constraint narrow";
    world.database.execute(break_it).await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    for _ in 0..40 {
        published.publish_all(&world.publisher, good_events(11)).await;
        world.database.execute(mend_it).await;
        world.database.execute(break_it).await;
    }
    world.database.execute(mend_it).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (440, 0));
}

#[tokio::test]
async fn headers_are_kept_and_travel_with_the_dead_letter_without_taking_effect() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let headers = [("Trace", "abc"), ("X-Empty", "")];
    let bad = next_event("ERR").with("action", "NO_SUCH_ACTION").bad("unknown_action");
    published.publish_with_headers(&world.publisher, &headers, bad).await;
    published.publish_with_headers(&world.publisher, &headers, next_event("ERR").good()).await;
    check_ledger(&world, &published).await;
}

/// No client library reads these: it drops the connection, or takes a message for an answer of the server.
#[tokio::test]
async fn a_header_block_that_no_client_can_parse_does_not_stop_the_ledger() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    let blocks: [&[u8]; 9] = [
        b"NATS/1.0\r\nBad: \xff\xfe\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        b"NATS/1.0\r\nno colon here\r\n\r\n",
        b"garbage\r\n\r\n",
        b"NATS/1.0 xyz\r\n\r\n",
        // On this one the client's reader panics, and its connection never comes back.
        b"NATS/1.0\r\nA: x\ry\r\n\r\n",
    ];
    for block in blocks {
        published.publish(&world.publisher, next_event("EXEC").good()).await;
        let good = next_event("EXEC").good();
        let sequence = world.publisher.publish_raw(&good.subject, block, &good.payload).await;
        published.note(sequence, stored_headers(&world, sequence).await, good);
    }
    let bad = next_event("EXEC").with("action", "NO_SUCH_ACTION").bad("unknown_action");
    published.publish_raw(&world.publisher, blocks[0], bad).await;
    let bad = next_event("EXEC").with("action", "NO_SUCH_ACTION").bad("unknown_action");
    published.publish_raw(&world.publisher, blocks[8], bad).await;
    published.publish(&world.publisher, next_event("VOTE").good()).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (19, 2));
    assert!(daemon.is_running());
    assert!(daemon.metric("ledgerd_messages_read_around_total", "EXEC").await >= 1.0);
}

/// What the stream has: newer servers store no status line.
async fn stored_headers(world: &World, sequence: u64) -> Headers {
    let request = json!({"seq": sequence});
    let answer: Value =
        world.jetstream().await.request("STREAM.MSG.GET.LEDGER", &request).await.expect("the stream has the message");
    match answer["message"]["hdrs"].as_str() {
        None => Headers::None,
        Some(text) => Headers::Raw(BASE64.decode(text).expect("base64")),
    }
}

/// The server takes 64 KiB of headers, and the reason needs some of them.
#[tokio::test]
async fn a_reject_with_as_many_headers_as_the_server_takes_does_not_hold_up_the_others() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let bad = || next_event("EXEC").with("action", "NO_SUCH_ACTION").bad("unknown_action");
    let block = format!("NATS/1.0\r\nLong: {}\r\n\r\n", "x".repeat(65_000));
    let large = bad();
    world.publisher.publish_raw(&large.subject, block.as_bytes(), &large.payload).await;
    world.publisher.publish(&large.subject, bad().payload).await;
    let messages = eventually("both rejects are published", SOON, async || {
        let messages = dead_letter_messages(&world).await;
        if messages.len() == 2 { Ok(messages) } else { Err(messages.len().to_string()) }
    })
    .await;
    assert_eq!(messages[0].payload, large.payload);
    assert!(messages[0].headers.get("Ledger-Original-Headers-Omitted").is_some());
    assert_eq!(daemon.log_lines_matching("waiting for the dead-letter stream"), Vec::<String>::new());
}

/// The server sends its answer wherever the publisher says, so a publisher can put one on a reject's own subject first.
#[tokio::test]
async fn a_message_that_a_publisher_put_on_a_rejects_subject_does_not_take_its_place() {
    let world = World::start().await;
    let jetstream = world.jetstream().await;
    let created =
        jetstream.get_stream("LEDGER").await.expect("setup made it").cached_info().created.unix_timestamp_nanos();
    let bad = next_event("EXEC").with("action", "NO_SUCH_ACTION").bad("unknown_action");
    let forged = format!("dlq.ledger.EXEC.BRM-CTO.{created}-1");
    jetstream.publish(forged.clone(), "forged".into()).await.expect("sent").await.expect("stored");
    let sequence = world.publisher.publish(&bad.subject, bad.payload.clone()).await;
    assert_eq!(sequence, 1);
    let _daemon = world.daemon().await;
    eventually("the reject is on its subject, after what was forged", SOON, async || {
        let messages = dead_letter_messages(&world).await;
        let ours =
            messages.iter().filter(|message| message.payload == bad.payload && *message.subject == *forged).count();
        when(ours == 1 && messages.len() == 2, || format!("{} messages, {ours} of them ours", messages.len()))
    })
    .await;
}

#[tokio::test]
async fn the_settings_admit_what_todays_agents_send() {
    let world = World::builder()
        .env("LEDGERD__AUDIT__EVENT_ID", "any")
        .env("LEDGERD__AUDIT__MISSING_TIMESTAMP", "stamp")
        .start()
        .await;
    let _daemon = world.daemon().await;
    let scan = event("SEC", "WRK-006", 1).with("event_id", "SEC-WRK-006-0f1e2d3c4b5a6978").without("timestamp");
    let subject = scan.subject();
    world.publisher.publish(&subject, scan.payload()).await;
    world.publisher.publish(&subject, scan.payload()).await;
    let rows = "select count(*) from audit_events_integrity join audit_events using (event_id) \
        where event_id = 'SEC-WRK-006-0f1e2d3c4b5a6978' and intact and timestamp_text like '2%Z'";
    let duplicates = "select count(*) from ledger.entry where disposition = 'duplicate'";
    eventually("the event is stored once and known the second time", SOON, async || {
        let seen = (world.database.count(rows).await, world.database.count(duplicates).await);
        when(seen == (1, 1), || format!("{seen:?}"))
    })
    .await;
}

#[tokio::test]
async fn every_registered_agent_may_write_but_those_whose_status_is_refused() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let of_astra =
        |n, action: &str, outcome: &str| event("CORP", "AST-GOV", n).with("action", action).with("outcome", outcome);
    let astra = [
        ("CORPUS_AUDIT", "SUCCESS"),
        ("VIOLATION_FLAGGED", "BLOCKED"),
        ("CP_SUBMITTED", "PENDING"),
        ("DOC_VALIDATED", "REJECTED"),
        ("HANDOFF_PRODUCED", "SUCCESS"),
    ];
    for (n, (action, outcome)) in (1..).zip(astra) {
        published.publish(&world.publisher, of_astra(n, action, outcome).good()).await;
    }
    settled(&world, &published).await;
    drop(daemon);
    let _stricter = world.spawn_daemon_with(&[("LEDGERD__REGISTRY__REFUSED_STATUSES", "retired, inactive, dev")]);
    published.publish(&world.publisher, of_astra(9, "CORPUS_AUDIT", "SUCCESS").bad("inactive_actor")).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (5, 1));
}

/// A backlog of rejects, some of them large, while the dead-letter stream was away: each is published once, in pages.
#[tokio::test]
async fn a_backlog_of_rejects_is_published_in_pages_and_each_once() {
    const REJECTS: usize = 1_500;
    let world = World::start().await;
    let jetstream = world.jetstream().await;
    let stream = jetstream.get_stream("LEDGER_DLQ").await.expect("setup made it");
    let config = stream.cached_info().config.clone();
    jetstream.delete_stream("LEDGER_DLQ").await.expect("it is there");
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    let bad = || next_event("EXEC").with("action", "NO_SUCH_ACTION");
    let large = (0..40).map(|_| bad().with("task_id", "x".repeat(200_000)).bad("too_long"));
    let small = (0..REJECTS).map(|_| bad().bad("unknown_action"));
    published.publish_all(&world.publisher, large.chain(small).collect()).await;
    eventually("all of them wait", SOON, async || {
        let waiting = daemon.metric("ledgerd_dead_letters_unpublished", "").await;
        let expected = f64::from(u32::try_from(REJECTS + 40).expect("few"));
        when((waiting - expected).abs() < 0.5, || format!("{waiting} wait"))
    })
    .await;
    jetstream.create_stream(config).await.expect("there is none");
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (0, REJECTS + 40));
    eventually("none waits", SOON, async || {
        let waiting = daemon.metric("ledgerd_dead_letters_unpublished", "").await;
        when(waiting.abs() < 0.5, || format!("{waiting} wait"))
    })
    .await;
    assert!(daemon.is_running());
}
