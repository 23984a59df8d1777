//! Custody in batches: what a commit writes, how an entry is found again, and what may change.

use crate::support::events::{good_events, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::published::Published;
use crate::support::world::World;
use crate::verify::strings;
use ledgerd::ingest::lifecycle::{Judged, References, Store as _};
use ledgerd::ingest::position::Order;
use ledgerd::ingest::store::Ledger;
use ledgerd::postgres::connections::{ConnectionLimits, Connections};
use ledgerd::record::message::{Headers, Incarnation, Message};
use ledgerd::record::reject::{Reason, Rejection};
use ledgerd::record::verdict::Verdict;
use std::sync::Arc;
use std::time::Duration;

/// Entries that are made up: a thousand batches, lane after lane, with few bytes.
const LANES: i64 = 10;
const BATCHES: i64 = 1_000;
const ROWS: i64 = 400;

const GENERATE: &str = "
    alter table ledger.batch disable trigger all;
    alter table public.audit_events disable trigger all;
    insert into ledger.epoch (stream, stream_created_ns) values ('GENERATED', 1);
    insert into public.audit_events (id, event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text)
    overriding system value
    select 1000000 + n, 'EVENT-' || n, 'A', 'X', 'X', 'epoch', 'x', 'x' from generate_series(0, $BATCHES * $ROWS - 1) as n;
    insert into ledger.batch
        (first_leaf, leaves, epoch, lane, layer, first_sequence, last_sequence, first_row_id, last_row_id, duplicates, rejected,
        committed_at, sequences, subjects, server_times_ns, payloads, dispositions, record_ids, row_ids, leaf_hashes)
    select base.size + b * $ROWS, $ROWS, epoch.epoch, 'L' || b % $LANES, 0, min(sequence), max(sequence), min(1000000 + n), max(1000000 + n),
        0, (b % 100 = 7)::integer, now(), array_agg(sequence order by n), array_agg('ledger.L' || b % $LANES || '.A'), array_agg(n order by n),
        array_agg(convert_to(repeat(n::text, 20), 'UTF8') order by n),
        array_agg((case when b % 100 = 7 and n % $ROWS = 0 then 'x' else 'r' end)::\"char\" order by n),
        array_agg('EVENT-' || n order by n), array_agg(1000000 + n order by n), array_agg(sha256(n::text::bytea) order by n)
    from (select size from ledger.tree_head) as base
    cross join (select max(epoch) as epoch from ledger.epoch) as epoch
    cross join generate_series(0, $BATCHES - 1) as b
    cross join lateral (
        -- Lanes take turns in the stream.
        select n, 1 + b / $LANES * $LANES * $ROWS + n % $ROWS * $LANES + b % $LANES as sequence
        from generate_series(b * $ROWS, b * $ROWS + $ROWS - 1) as n
    ) as item
    group by base.size, epoch.epoch, b;
    update ledger.tree_head set size = size + $BATCHES * $ROWS;
    analyze";

/// What a question reads: blocks, and whether it goes through a whole table of custody.
async fn plan_of(world: &World, query: &str) -> (i64, Vec<String>) {
    let plan = strings(&world.database, &format!("explain (analyze, buffers, timing off) {query}")).await;
    let blocks = plan[..]
        .iter()
        .find_map(|line| line.trim().strip_prefix("Buffers: shared "))
        .map(|line| line.split([' ', '=']).filter_map(|word| word.parse::<i64>().ok()).sum())
        .unwrap_or_default();
    (
        blocks,
        plan.into_iter()
            .filter(|line| line.contains("Seq Scan on batch") || line.contains("Seq Scan on audit"))
            .collect(),
    )
}

#[tokio::test]
async fn an_entry_is_found_by_leaf_sequence_row_or_name_and_the_newest_lines_without_going_through_custody() {
    let world = World::builder().without_streams().start().await;
    let generate = [("$BATCHES", BATCHES), ("$ROWS", ROWS), ("$LANES", LANES)];
    let generate =
        generate.iter().fold(GENERATE.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()));
    world.database.execute(&generate).await;
    let all = world.database.count("select pg_relation_size('ledger.batch') / 8192 + pg_relation_size(reltoastrelid) / 8192 from pg_class where oid = 'ledger.batch'::regclass").await;
    let first = world.database.count("select size from ledger.tree_head").await - BATCHES * ROWS;
    let epoch = world.database.count("select max(epoch)::bigint from ledger.epoch").await;
    // Of the middle: batch 507 is of lane 7, and its first entry was rejected.
    let n = 507 * ROWS + 33;
    let sequence = 1 + 507 / LANES * LANES * ROWS + n % ROWS * LANES + 507 % LANES;
    for (query, found) in [
        (format!("ledger.entry_at({})", first + n), n),
        (format!("ledger.entry_by_sequence({epoch}, {sequence})"), n),
        (format!("ledger.entry_of_row('audit_events', {})", 1_000_000 + n), n),
        (format!("ledger.entries_by_record('EVENT-{n}')"), n),
        (format!("ledger.became_of('EVENT-{n}')"), n),
        // The name of a reject, which has no row.
        (format!("ledger.entries_by_record('EVENT-{}')", 507 * ROWS), 507 * ROWS),
    ] {
        let leaves = strings(&world.database, &format!("select leaf_index::text from {query}")).await;
        assert_eq!(leaves, [(first + found).to_string()], "{query}");
        let (blocks, searched) = plan_of(&world, &format!("select * from {query}")).await;
        assert!(searched.is_empty(), "{query}: {searched:?}");
        // Steps in indexes, the arrays of a few batches, and what a new session learns of the catalog.
        assert!(blocks < 700 && blocks < all / 3, "{query} reads {blocks} blocks of {all}");
    }
    let newest = strings(&world.database, "select leaf_index::text from ledger.newest(20)").await;
    let last = first + BATCHES * ROWS;
    assert_eq!(newest, (1..=20).map(|back| (last - back).to_string()).collect::<Vec<_>>());
    let (blocks, searched) = plan_of(&world, "select * from ledger.newest(20)").await;
    assert!(blocks < 100 && searched.is_empty(), "{blocks} blocks, {searched:?}");
    for nothing in
        ["ledger.entry_at(99999999)", "ledger.entry_by_sequence(1, 99999999)", "ledger.entries_by_record('NOBODY')"]
    {
        assert_eq!(world.database.count(&format!("select count(*) from {nothing}")).await, 0, "{nothing}");
    }
}

fn ledger_of(world: &World) -> Ledger {
    let budget = ledgerd::budget::status::Budget {
        yellow_percent: 70,
        red_percent: 90,
        exceeded_percent: 100,
        shared_groups: Vec::new(),
    };
    let limits = ConnectionLimits { connect: Duration::from_secs(5), statement: Duration::from_secs(10) };
    Ledger::new(Connections::new(&world.database.url(), limits, 1).expect("a URL"), budget)
}

fn rejects(lane: &str, sequences: &[i64]) -> Arc<Vec<Judged>> {
    let judged = |sequence: &i64| Judged {
        order: Order::Late,
        message: Message {
            incarnation: Incarnation { stream: "LEDGER".into(), created_ns: 1 },
            sequence: *sequence,
            subject: format!("ledger.{lane}.BRM-CTO"),
            server_time_ns: *sequence * 10,
            headers: Headers::NONE,
            payload: sequence.to_string().into(),
        },
        verdict: Verdict::Reject {
            rejection: Rejection::new(Reason::MalformedJson, "not JSON"),
            record_id: Some(format!("{lane}-{sequence}")),
        },
    };
    Arc::new(sequences.iter().map(judged).collect())
}

/// What fills a hole lies beside what is there, and is found like anything else.
#[tokio::test]
async fn a_batch_that_comes_late_takes_the_lowest_layer_with_room_and_is_found_there() {
    let world = World::builder().without_streams().start().await;
    let ledger = ledger_of(&world);
    for (sequences, layer) in [
        (&[1, 4, 9][..], 0),
        (&[12, 20], 0),
        // Between two batches there is room; within one there is none.
        (&[10, 11], 0),
        (&[5, 7], 1),
        (&[2, 6], 2),
        (&[3], 1),
        (&[30, 25, 28], 0),
    ] {
        let done = ledger.commit(&rejects("EXEC", sequences), References::MayFollow).await.expect("it is there");
        assert_eq!(done.rejected.values().sum::<usize>(), sequences.len());
        let [first, last] = [sequences.iter().min(), sequences.iter().max()].map(|it| it.expect("some"));
        let placed = format!(
            "select layer::bigint from ledger.batch where lane = 'EXEC' and (first_sequence, last_sequence) = ({first}, {last})"
        );
        assert_eq!(world.database.count(&placed).await, layer, "{sequences:?}");
    }
    // Of another lane, and in the order of the stream within it.
    let both = Arc::new([rejects("VOTE", &[8]).to_vec(), rejects("EXEC", &[31]).to_vec()].concat());
    ledger.commit(&both, References::MayFollow).await.expect("it is there");
    let all = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 25, 28, 30, 31];
    for sequence in all {
        let epoch = "(select epoch from ledger.epoch where stream = 'LEDGER')";
        let found = format!("select (server_time_ns / 10) from ledger.entry_by_sequence({epoch}, {sequence})");
        assert_eq!(world.database.count(&found).await, sequence);
        let named = format!("select count(*) from ledger.entries_by_record('EXEC-{sequence}')");
        assert_eq!(world.database.count(&named).await, i64::from(sequence != 8), "{sequence}");
    }
    // Whatever of it comes again is known.
    let again = ledger.commit(&rejects("EXEC", &[3, 4, 5, 6, 40]), References::MayFollow).await.expect("it is there");
    assert_eq!((again.known, again.rejected.values().sum::<usize>()), (4, 1));
    world.database.execute("update ledger.dead_letter set published_at = now()").await;
    world.ledgerd_ok(&["verify"]).await;
    // A layer that has no reason is one that a search finds, and verify names.
    world
        .database
        .execute(
            "alter table ledger.batch disable trigger all; update ledger.batch set layer = 3 where first_sequence = 12",
        )
        .await;
    let said = world.ledgerd(&["verify"]).await;
    assert_eq!(said.status.code(), Some(3), "{said:?}");
}

#[tokio::test]
async fn a_commit_of_one_and_one_of_a_thousand_are_a_batch_each_and_weigh_little() {
    let world = World::builder().without_streams().start().await;
    let ledger = ledger_of(&world);
    let thousand: Vec<i64> = (2..=1001).collect();
    for sequences in [&[1][..], &thousand] {
        ledger.commit(&rejects("EXEC", sequences), References::MayFollow).await.expect("it is there");
    }
    assert_eq!(
        strings(&world.database, "select leaves::text from ledger.batch where lane = 'EXEC' order by 1").await,
        ["1", "1000"]
    );
    world.ledgerd_ok(&["verify"]).await;
}

/// A server that was built without lz4 has pglz.
#[tokio::test]
async fn custody_is_compressed_by_what_the_server_has() {
    let world = World::builder().start().await;
    let [has_lz4, uses_lz4] = [
        "select ('lz4' = any (enumvals))::integer::bigint from pg_settings where name = 'default_toast_compression'",
        "select (count(*) >= 7)::integer::bigint from pg_attribute where attrelid = 'ledger.batch'::regclass and attcompression = 'l'",
    ];
    assert_eq!(world.database.count(has_lz4).await, world.database.count(uses_lz4).await);
    for column in
        ["sequences", "subjects", "server_times_ns", "headers", "payloads", "dispositions", "record_ids", "row_ids"]
    {
        world.database.execute(&format!("alter table ledger.batch alter {column} set compression pglz")).await;
    }
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(600)).await;
    let _daemon = world.daemon().await;
    check_ledger(&world, &published).await;
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn an_erasure_leaves_its_neighbours_in_the_batch_as_they_are() {
    let world = World::start().await;
    let mut published = Published::default();
    // All before the daemon starts, so that they are one batch.
    let events: Vec<_> = (0..20).map(|_| next_event("EXEC")).collect();
    for event in &events {
        published.publish_with_headers(&world.publisher, &[("Trace", "a")], event.good()).await;
    }
    let _daemon = world.daemon().await;
    let ids = [events[3].event_id(), events[12].event_id()];
    let details = serde_json::json!({"table": "audit_events", "ids": ids, "reason": "they hold a password"});
    let approval = crate::support::events::event("SYS", "ARCHITECT", 77).with("action", "DELETION_AUTHORIZED");
    let approval = approval.with("outcome", "APPROVED").with("details", details);
    published.publish(&world.publisher, approval.good()).await;
    settled(&world, &published).await;
    let others = format!(
        "select leaf_index || ' ' || encode(payload, 'hex') || ' ' || encode(headers, 'hex') || ' ' || encode(leaf_hash, 'hex')
        from ledger.entry where subject like 'ledger.EXEC.%' and record_id not in ('{}', '{}') order by leaf_index",
        ids[0], ids[1]
    );
    let before = strings(&world.database, &others).await;
    assert_eq!(before.len(), 18);
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    assert_eq!(strings(&world.database, &others).await, before);
    let given_up =
        "select count(*) from ledger.entry where payload is null and headers is null and erasure_id is not null";
    assert_eq!(world.database.count(given_up).await, 2);
    assert_eq!(world.database.count("select sum(erased) from ledger.batch").await, 2);
    // Proofs of both still hold.
    world.ledgerd_ok(&["verify"]).await;
}
