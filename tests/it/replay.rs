//! `ledgerd replay`: the stream read again, whole and in parts, into a new database and into the same, killed and resumed.

use crate::faults_postgres::COMMIT;
use crate::support::daemon::{Daemon, spawn_ledgerd, text_of};
use crate::support::events::{Expectation, Outgoing, bad_events, good_events, next_event};
use crate::support::ledger::{STREAM, check_ledger, settled};
use crate::support::postgres::Database;
use crate::support::process::{Process, scratch_folder};
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::records::{REGISTRIES, metric, spend};
use crate::support::requeued::{newest_letter, note, requeued_from};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use async_nats::jetstream::stream::Config;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use std::sync::Arc;

/// Runs a command with `--json`, and gives its exit code and its document.
pub(crate) async fn said(world: &World, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = world.ledgerd(&[&["--json"], arguments].concat()).await;
    let document = serde_json::from_slice(&output.stdout);
    (output.status.code(), document.unwrap_or_else(|error| panic!("{error}: {}", text_of(&output))))
}

/// A world whose stream lets messages be deleted.
pub(crate) async fn world_that_deletes() -> World {
    let world = World::builder().without_streams().start().await;
    let shipped = include_str!("../../nats/streams/LEDGER.json");
    let shipped: Config = serde_json::from_str(shipped).expect("a test shows that it is good");
    let lenient = Config { deny_delete: false, deny_purge: false, ..shipped };
    world.jetstream().await.create_stream(lenient).await.expect("there is none");
    assert_eq!(world.ledgerd(&["setup"]).await.status.code(), Some(3), "it differs, and stays as it is");
    world
}

/// An empty database on the same server, with the schema.
pub(crate) async fn use_another_database(world: &mut World) {
    world.use_database(Database::on(Arc::clone(world.database.cluster())).await);
    world.ledgerd_ok(&["migrate"]).await;
}

/// What each consumer says of itself.
async fn consumers(world: &World) -> Vec<Value> {
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    let consumers: Vec<_> = stream.consumers().try_collect().await.expect("it answers");
    let mut said: Vec<Value> = consumers
        .iter()
        .map(|it| {
            json!({
                "name": it.name, "created": it.created.to_string(), "delivered": it.delivered.stream_sequence,
                "deliveries": it.delivered.consumer_sequence, "floor": it.ack_floor.stream_sequence,
                "pending": it.num_pending, "unacknowledged": it.num_ack_pending, "redelivered": it.num_redelivered,
            })
        })
        .collect();
    said.sort_by_key(|consumer| consumer["name"].to_string());
    said
}

/// All that must be the same in two ledgers of one stream: rows and leaves, without what was numbered or dated by the database.
async fn contents(world: &World) -> Vec<String> {
    const CONTENTS: &str = "
        select 'entry ' || concat_ws('|', sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id)
            from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'
        union all select 'reject ' || concat_ws('|', dlq_subject, reason, detail) from ledger.dead_letter
        union all select 'event ' || (to_jsonb(t) - array['id', 'created_at'])::text
            from public.audit_events as t where action <> 'SCHEMA_MIGRATION'
        union all select 'day ' || (to_jsonb(t) - array['last_updated'])::text from public.token_ledger as t
        union all select 'trail ' || (to_jsonb(t) - array['id', 'created_at'])::text from public.decision_trails as t
        union all select 'metric ' || (to_jsonb(t) - array['id', 'created_at'])::text from public.economic_metrics as t
        union all select 'use ' || to_jsonb(t)::text from public.tool_usage_ledger as t
        union all select 'usage ' || (to_jsonb(t) - array['id', 'input_rate_id', 'output_rate_id'])::text from ledger.token_usage as t
        order by 1";
    let mut connection = world.database.connect().await;
    sqlx::query_scalar(CONTENTS).fetch_all(&mut connection).await.expect("the tables are there")
}

#[tokio::test]
async fn a_replay_into_a_new_database_makes_the_same_ledger_and_touches_no_consumer() {
    let mut world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    let priced = || next_event("TOKENS").without("cost_usd").with("model_tier", "STANDARD").good();
    for rate in [0.003, 0.004] {
        for key in ["token_rate_STANDARD_input", "token_rate_STANDARD_output"] {
            published.publish(&world.publisher, metric("VRA-CFO", key, rate).good()).await;
        }
        settled(&world, &published).await;
        published.publish_all(&world.publisher, vec![priced(), priced()]).await;
        settled(&world, &published).await;
    }
    // A day that is over, beyond its limit: that was told when it happened.
    published.publish(&world.publisher, metric("VRA-CFO", "daily_limit_SRN-CIO", 0.5).good()).await;
    settled(&world, &published).await;
    published.publish(&world.publisher, spend("SRN-CIO", 9.0, "2026-02-20").good()).await;
    let again = next_event("EXEC");
    published.publish_all(&world.publisher, vec![again.good(), again.again()]).await;
    published.publish_all(&world.publisher, good_events(120)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    let counts = check_ledger(&world, &published).await;
    assert!(world.database.count("select count(*) from ledger.budget_alert").await > 0);
    daemon.sigterm();
    daemon.wait_exit().await;

    let (before, original) = (consumers(&world).await, contents(&world).await);
    let (code, whole) = said(&world, &["replay"]).await;
    let all = published.all().len();
    assert_eq!((code, &whole["stored"], &whole["already_there"]), (Some(0), &json!(0), &json!(all)), "{whole}");

    use_another_database(&mut world).await;
    let refused = world.ledgerd(&["replay"]).await;
    assert_eq!(refused.status.code(), Some(78), "{}", text_of(&refused));
    world.database.execute(REGISTRIES).await;
    let entries = "select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'";
    let (_, dry) = said(&world, &["replay", "--dry-run"]).await;
    assert_eq!((&dry["dry_run"], &dry["already_there"]), (&json!(true), &json!(0)), "{dry}");
    assert_eq!(world.database.count(entries).await, 0);

    let (code, whole) = said(&world, &["replay"]).await;
    let expected = (json!(counts.rows), json!(counts.duplicates), json!(counts.rejects), json!(0));
    let found = ["stored", "duplicates", "rejected", "already_there"].map(|name| whole[name].clone());
    assert_eq!((code, found), (Some(0), expected.into()), "{whole}");
    assert_eq!(contents(&world).await, original);
    assert_eq!(world.database.count("select count(*) from ledger.budget_alert").await, 0, "old alerts are old");
    assert_eq!(consumers(&world).await, before);
    // Its dead letters are those that were published already.
    let _daemon = world.daemon().await;
    check_ledger(&world, &published).await;
}

/// This moment, as the servers of this machine see it.
async fn now(world: &World) -> String {
    let mut connection = world.database.connect().await;
    let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    sqlx::query_scalar(now).fetch_one(&mut connection).await.expect("a moment")
}

#[tokio::test]
async fn a_replay_takes_sequences_times_and_lanes_and_names_what_the_stream_has_no_more() {
    let world = world_that_deletes().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(15)).await;
    let since = now(&world).await;
    published.publish_all(&world.publisher, good_events(15)).await;
    let until = now(&world).await;
    published.publish_all(&world.publisher, good_events(15)).await;
    let stored = async |arguments: &[&str]| {
        let (code, said) = said(&world, &[&["replay"], arguments].concat()).await;
        assert_eq!(code, Some(0), "{said}");
        [&said["first_sequence"], &said["last_sequence"], &said["stored"], &said["already_there"]]
            .map(|number| number.as_i64().unwrap_or(-1))
    };
    assert_eq!(stored(&["--from-sequence", "3", "--to-sequence", "6"]).await, [3, 6, 4, 0]);
    assert_eq!(stored(&["--from-time", &since, "--to-time", &until]).await, [16, 30, 15, 0]);
    assert_eq!(stored(&["--lane", "EXEC", "--lane", "CLR", "--to-sequence", "29"]).await, [1, 29, 1, 3]);
    // A moment is meant to the nanosecond.
    let moments: Vec<String> = sqlx::query_scalar(
        r#"select to_char(to_timestamp(server_time_ns / 1000000000) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.')
            || lpad((server_time_ns % 1000000000)::text, 9, '0') || 'Z'
        from ledger.entry join ledger.epoch using (epoch)
        where stream = 'LEDGER' and sequence between 16 and 21
        order by sequence"#,
    )
    .fetch_all(&mut world.database.connect().await)
    .await
    .expect("they are stored");
    for (sequence, moment) in (16..).zip(&moments) {
        assert_eq!(stored(&["--from-time", moment, "--to-sequence", "21"]).await[0], sequence, "{moment}");
    }
    let backwards = world.ledgerd(&["replay", "--from-time", &until, "--to-time", &since]).await;
    assert_eq!(backwards.status.code(), Some(64), "{}", text_of(&backwards));
    assert_eq!(stored(&["--from-sequence", "46"]).await, [-1, -1, 0, 0], "the stream ends before");

    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    stream.purge().sequence(12).await.expect("it is allowed");
    for sequence in [20, 21, 40] {
        stream.delete_message(sequence).await.expect("it is allowed");
    }
    let (code, rest) = said(&world, &["replay", "--from-sequence", "5"]).await;
    assert_eq!((code, &rest["stored"], &rest["already_there"]), (Some(0), &json!(18), &json!(13)), "{rest}");
    assert_eq!(rest["expired"], json!([{"first": 5, "last": 11}]));
    assert_eq!(rest["deleted"], json!([{"first": 20, "last": 21}, {"first": 40, "last": 40}]));
    let text = world.ledgerd_ok(&["replay", "--lane", "VOTE"]).await;
    assert!(text.contains("no longer holds 11 sequences, which are expired: 1 to 11"), "{text}");
    assert_eq!(world.ledgerd(&["replay", "--from-sequence", "9", "--to-sequence", "3"]).await.status.code(), Some(64));

    // All of it is gone, and the stream knows only where it would go on.
    stream.purge().await.expect("it is allowed");
    let (code, nothing) = said(&world, &["replay"]).await;
    assert_eq!((code, &nothing["expired"]), (Some(0), &json!([{"first": 1, "last": 45}])), "{nothing}");
}

#[tokio::test]
async fn a_replay_is_killed_stopped_and_cut_off_and_goes_on_beside_a_daemon() {
    let small_batches = ("LEDGERD__PIPELINE__BATCH_MESSAGES_MAX", "50");
    let world = World::builder().postgres_proxy().nats_proxy().env(small_batches.0, small_batches.1).start().await;
    let (folder, proxy) = (scratch_folder("replay"), world.postgres_proxy());
    let start = |log: &str| spawn_ledgerd(&["replay"], &world.environment, &folder.path().join(log));
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(400)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    let stored = async || {
        let entries = "select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'";
        world.database.count(entries).await
    };

    // Killed with a commit on its way, which arrives all the same.
    let mut hold = proxy.hold_when(Direction::ToServer, COMMIT);
    let mut killed = start("killed");
    hold.happened().await;
    killed.kill();
    proxy.release();
    eventually("its commit has arrived", SOON, async || {
        let stored = stored().await;
        when(stored > 0, || stored.to_string())
    })
    .await;

    // Told to stop, it settles what it holds and says where to go on.
    let mut hold = proxy.hold_when(Direction::ToServer, COMMIT);
    let mut stopped = start("stopped");
    hold.happened().await;
    stopped.signal("TERM");
    proxy.release();
    assert_eq!(stopped.wait_exit(SOON).await, 1);
    let next = 1 + stored().await;
    assert!(stopped.log().contains(&format!("to go on: --from-sequence {next}")), "{}", stopped.log());

    // Both servers go away and come back, one after the other; what the daemon's own lanes bring comes in between.
    let mut hold = proxy.hold_answer_after(COMMIT);
    let mut cut_off = start("cut off");
    hold.happened().await;
    let _daemon = daemon_without_proxies(&world).await;
    world.nats_proxy().cut().await;
    proxy.cut().await;
    proxy.release();
    says(&cut_off, "waiting for PostgreSQL: ").await;
    published.publish_all(&world.publisher, good_events(300)).await;
    proxy.heal().await;
    says(&cut_off, "PostgreSQL is back").await;
    says(&cut_off, "waiting for NATS: ").await;
    world.nats_proxy().heal().await;
    assert_eq!(cut_off.wait_exit(SOON).await, 0, "{}", cut_off.log());
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.duplicates, counts.rejects), (700, 0, published.bad()));
}

async fn says(command: &Process, text: &str) {
    eventually(&format!("it says {text:?}"), SOON, async || when(command.log().contains(text), || command.log())).await;
}

/// A daemon that sees both servers all the time.
async fn daemon_without_proxies(world: &World) -> Daemon {
    let mut daemon = Daemon::spawn(&world.operator);
    daemon.ready().await;
    daemon
}

#[tokio::test]
async fn a_replay_ends_when_the_stream_is_made_anew_under_it() {
    let world = World::builder().postgres_proxy().env("LEDGERD__PIPELINE__BATCH_MESSAGES_MAX", "20").start().await;
    world.publisher.publish_all(outgoing(good_events(200))).await;
    let folder = scratch_folder("replay");
    let mut hold = world.postgres_proxy().hold_when(Direction::ToServer, COMMIT);
    let mut replay = spawn_ledgerd(&["replay"], &world.environment, &folder.path().join("log"));
    hold.happened().await;
    world.jetstream().await.delete_stream(STREAM).await.expect("it is there");
    world.ledgerd_ok(&["setup"]).await;
    world.publisher.publish_all(outgoing(good_events(200))).await;
    world.postgres_proxy().release();
    assert_eq!(replay.wait_exit(SOON).await, 1);
    let log = replay.log();
    assert!(log.contains("the stream was made anew") || log.contains("is gone"), "{log}");
    // A sequence of the old stream means nothing in the new one.
    assert!(!log.contains("--from-sequence"), "{log}");
    let of_the_new = "select count(*) from ledger.entry as e join ledger.epoch as p using (epoch)
        where stream = 'LEDGER' and e.server_time_ns < p.stream_created_ns
            or stream = 'LEDGER' and p.epoch > (select min(epoch) from ledger.epoch where stream = 'LEDGER')";
    assert_eq!(world.database.count(of_the_new).await, 0);
}

fn outgoing(events: Vec<Outgoing>) -> Vec<(String, Bytes)> {
    events.into_iter().map(|it| (it.subject, it.payload.into())).collect()
}

/// The rate was published before the usage, and neither an operator who replays one lane nor a stream that has lost it makes
/// that usage a dead letter.
#[tokio::test]
async fn usage_is_not_rejected_for_a_rate_that_was_not_replayed_or_was_lost() {
    let mut world = world_that_deletes().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    for key in ["token_rate_STANDARD_input", "token_rate_STANDARD_output"] {
        published.publish(&world.publisher, metric("VRA-CFO", key, 0.25).good()).await;
    }
    let usage = || next_event("TOKENS").without("cost_usd").with("model_tier", "STANDARD").good();
    published.publish_all(&world.publisher, vec![usage(), usage()]).await;
    let refused = async |world: &World, says: &str| {
        let output = world.ledgerd(&["replay", "--lane", "TOKENS"]).await;
        assert!(output.status.code() == Some(1) && text_of(&output).contains(says), "{says}: {}", text_of(&output));
        assert_eq!(world.database.count("select count(*) from ledger.dead_letter").await, 0);
    };
    refused(&world, "run `ledgerd replay --lane METRIC` first; to go on: --from-sequence 1").await;
    world.ledgerd_ok(&["replay", "--lane", "METRIC"]).await;
    let (_, tokens) = said(&world, &["replay", "--lane", "TOKENS", "--from-sequence", "4"]).await;
    assert_eq!(tokens["stored"], 2, "{tokens}");

    use_another_database(&mut world).await;
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("it is there");
    stream.delete_message(2).await.expect("it is allowed");
    stream.delete_message(3).await.expect("it is allowed");
    refused(&world, "sequences 2 to 3, which may have brought it, are neither in the stream nor in custody").await;
    let (code, rejected) = said(&world, &["replay", "--lane", "TOKENS", "--rates-are-complete"]).await;
    assert_eq!((code, &rejected["rejects"]["unknown_reference"]), (Some(0), &json!(2)), "{rejected}");
}

/// The database has a rate, and the stream a newer one that was published before the usage.
#[tokio::test]
async fn usage_is_not_charged_at_a_rate_that_was_replaced_before_it() {
    let world = World::start().await;
    let mut published = Published::default();
    let rate = |direction, usd| metric("VRA-CFO", &format!("token_rate_STANDARD_{direction}"), usd).good();
    published.publish_all(&world.publisher, vec![rate("input", 3.0), rate("output", 1.0)]).await;
    world.ledgerd_ok(&["replay"]).await;
    let usage = next_event("TOKENS").without("cost_usd").with("model_tier", "STANDARD");
    let usage = usage.with("tokens_input", 1000).with("tokens_output", 0).good();
    // In one batch with a later rate, which is none of its.
    published.publish_all(&world.publisher, vec![rate("input", 5.0), usage, rate("input", 7.0)]).await;
    let output = world.ledgerd(&["replay", "--lane", "TOKENS"]).await;
    let says = "run `ledgerd replay --lane METRIC` first";
    assert!(output.status.code() == Some(1) && text_of(&output).contains(says), "{}", text_of(&output));
    world.ledgerd_ok(&["replay"]).await;
    assert_eq!(world.database.count("select count(*) from ledger.token_usage where cost_usd = 5").await, 1);
    world.ledgerd_ok(&["verify"]).await;
}

/// Usage without an id is named by its place. What was rejected for want of a rate and published again stays one usage, also
/// where a new database has the rate before it meets the first of the two.
#[tokio::test]
async fn usage_that_was_requeued_is_one_usage_in_a_new_database() {
    let mut world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let usage = next_event("TOKENS").without("cost_usd").without("usage_id").with("model_tier", "STANDARD");
    published.publish(&world.publisher, usage.bad("unknown_reference")).await;
    check_ledger(&world, &published).await;
    for key in ["token_rate_STANDARD_input", "token_rate_STANDARD_output"] {
        published.publish(&world.publisher, metric("VRA-CFO", key, 0.25).good()).await;
    }
    check_ledger(&world, &published).await;
    let reference = newest_letter(&world).await;
    world.ledgerd_ok(&["dlq", "requeue", &reference, "--by", "Ops"]).await;
    note(&mut published, &requeued_from(&world, &reference).await[0], Expectation::Good);
    check_ledger(&world, &published).await;
    drop(daemon);

    // The same records, and the letter is open again, for the decisions were never in the stream.
    let usages = "select count(*) from ledger.token_usage";
    use_another_database(&mut world).await;
    world.ledgerd_ok(&["replay"]).await;
    assert_eq!(world.database.count(usages).await, 1);
    let _daemon = world.daemon().await;
    world.ledgerd_ok(&["dlq", "requeue", &reference, "--by", "Ops"]).await;
    let twice = "select count(*) from ledger.entry where disposition = 'duplicate'";
    eventually("it is known", SOON, async || when(world.database.count(twice).await == 1, String::new)).await;
    assert_eq!(world.database.count(usages).await, 1);
    world.ledgerd_ok(&["verify"]).await;

    use_another_database(&mut world).await;
    world.ledgerd_ok(&["replay", "--lane", "METRIC"]).await;
    world.ledgerd_ok(&["replay"]).await;
    assert_eq!(world.database.count(usages).await, 1);
    world.ledgerd_ok(&["verify"]).await;
}
