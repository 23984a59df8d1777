//! `ledgerd retention erase`: from a permanent table leaves what the Architect names, and nothing else; and the gap is explained.

use crate::support::archived::texts;
use crate::support::daemon::{Daemon, ledgerd, spawn_ledgerd, text_of};
use crate::support::events::{Event, Expectation, event, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::process::scratch_folder;
use crate::support::proxy::{Direction, Hold, TcpProxy};
use crate::support::published::Published;
use crate::support::records::spend;
use crate::support::requeued::{newest_letter, note, requeued_from};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use ::ledgerd::record::leaf::{Disposition, Leaf};
use ::ledgerd::record::message::Incarnation;
use serde_json::{Value, json};
use sqlx::{Executor as _, FromRow};
use std::sync::Arc;

/// The word of the Architect, number `n`.
fn authorization(n: u64, table: &str, ids: &[&str]) -> Event {
    event("SYS", "ARCHITECT", n)
        .with("action", "DELETION_AUTHORIZED")
        .with("outcome", "APPROVED")
        .with("details", json!({ "table": table, "ids": ids, "reason": "it holds a password" }))
}

async fn publish(world: &World, published: &mut Published, event: &Event) -> String {
    published.publish(&world.publisher, event.good()).await;
    settled(world, published).await;
    event.event_id().to_owned()
}

/// A record that is published, and the word that it may be erased, number `n`.
async fn secret_and_approval(world: &World, published: &mut Published, n: u64) -> (Event, Event) {
    let secret = next_event("EXEC");
    publish(world, published, &secret).await;
    let approval = authorization(n, "audit_events", &[secret.event_id()]);
    publish(world, published, &approval).await;
    (secret, approval)
}

async fn count(world: &World, sql: &str) -> i64 {
    world.database.count(sql).await
}

async fn leaf_hashes(world: &World) -> Vec<String> {
    texts(world, "select leaf_index || ' ' || encode(leaf_hash, 'hex') from ledger.entry order by leaf_index").await
}

#[derive(Debug, FromRow)]
struct Kept {
    stream: String,
    stream_created_ns: i64,
    regressions: i32,
    sequence: i64,
    subject: String,
    server_time_ns: i64,
    headers_sha256: Option<Vec<u8>>,
    payload_sha256: Vec<u8>,
    disposition: String,
    record_id: Option<String>,
    row_id: Option<i64>,
    committed_at_us: i64,
    leaf_hash: Vec<u8>,
}

/// Of each record whose bytes were given up, the leaf can still be computed. Gives their number.
async fn check_erased_leaves(world: &World) -> usize {
    let mut connection = world.database.connect().await;
    let kept: Vec<Kept> = sqlx::query_as(
        "select stream, stream_created_ns, regressions, sequence, subject, server_time_ns, headers_sha256, payload_sha256,
            disposition, record_id, row_id, (extract(epoch from committed_at) * 1000000)::bigint as committed_at_us, leaf_hash
        from ledger.entry join ledger.epoch using (epoch)
        where erasure_id is not null and payload is null and headers is null",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the tables are there");
    for it in &kept {
        let incarnation = Incarnation { stream: Arc::from(it.stream.as_str()), created_ns: it.stream_created_ns };
        let hash = |bytes: &Vec<u8>| -> [u8; 32] { bytes.as_slice().try_into().expect("32 bytes") };
        let leaf = Leaf {
            stream: &incarnation.stream,
            stream_created_ns: incarnation.created_ns,
            regressions: it.regressions,
            sequence: it.sequence,
            subject: &it.subject,
            server_time_ns: it.server_time_ns,
            headers_sha256: it.headers_sha256.as_ref().map(hash),
            payload_sha256: hash(&it.payload_sha256),
            disposition: if it.disposition == "recorded" { Disposition::Recorded } else { Disposition::Duplicate },
            record_id: it.record_id.as_deref(),
            row_id: it.row_id,
            committed_at_us: it.committed_at_us,
            rejection: None,
        };
        assert_eq!(leaf.hash().as_slice(), it.leaf_hash, "{it:?}");
    }
    kept.len()
}

#[tokio::test]
async fn what_the_architect_names_leaves_and_the_gap_is_explained() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let (secret, other, stays) = (next_event("SEC"), next_event("EXEC"), next_event("EXEC"));
    published.publish_with_headers(&world.publisher, &[("X-Password", "swordfish")], secret.good()).await;
    published.publish(&world.publisher, other.good()).await;
    published.publish(&world.publisher, stays.good()).await;
    // Again in other bytes, which custody keeps too.
    let mut spaced = secret.again();
    spaced.payload = [b" ", &spaced.payload[..]].concat();
    settled(&world, &published).await;
    published.publish_with_headers(&world.publisher, &[("X-Again", "swordfish")], spaced).await;
    let approval = authorization(1, "audit_events", &[secret.event_id(), other.event_id()]);
    let approved_by = publish(&world, &mut published, &approval).await;
    check_ledger(&world, &published).await;
    let (leaves, rows) = (leaf_hashes(&world).await, count(&world, "select count(*) from audit_events").await);

    let erase = ["retention", "erase", "--authorized-by", &approved_by, "--json"];
    let planned: Value =
        serde_json::from_str(&world.ledgerd_ok(&[&erase[..], &["--dry-run"]].concat()).await).expect("JSON");
    assert_eq!(planned["ids"], json!([secret.event_id(), other.event_id()]));
    assert_eq!(count(&world, "select count(*) from audit_events").await, rows);

    let done: Value = serde_json::from_str(&world.ledgerd_ok(&erase).await).expect("JSON");
    assert_eq!(done["deleted"], true);
    let again: Value = serde_json::from_str(&world.ledgerd_ok(&erase).await).expect("JSON");
    assert_eq!((&again["deleted"], &again["event_id"]), (&json!(false), &done["event_id"]));

    // Two are gone, and one tells of it.
    assert_eq!(count(&world, "select count(*) from audit_events").await, rows - 2 + 1);
    let recorded = texts(&world, "select details::text from audit_events where action = 'RECORDS_DELETED'").await;
    let recorded: Value = serde_json::from_str(&recorded[0]).expect("JSON");
    assert_eq!(recorded, json!({"table": "audit_events", "authorized_by": approved_by, "rows": 2}));
    let explained = "select count(*) from ledger.removal join ledger.erasure on erasure.id = erasure_id
        join ledger.entry using (leaf_index)
        where authorized_by like 'SYS-ARCHITECT-%' and row_key = record_id and entry.erasure_id = erasure.id";
    assert_eq!(count(&world, explained).await, 2);
    // Every leaf is where it was, as it was.
    assert_eq!(leaf_hashes(&world).await[..leaves.len()], leaves);
    assert_eq!(check_erased_leaves(&world).await, 3);
    let bytes_left = "select count(*) from ledger.entry
        where position('swordfish'::bytea in coalesce(payload, '') || coalesce(headers, '')) > 0";
    assert_eq!(count(&world, bytes_left).await, 0);

    // Nothing takes the place of what was erased, not even itself.
    let sequence = world.publisher.publish(&secret.subject(), secret.payload()).await;
    eventually("it is a dead letter", SOON, async || {
        let sql = format!(
            "select count(*) from ledger.entry join ledger.dead_letter using (leaf_index)
            where sequence = {sequence} and reason = 'database_rejected' and detail like '%erased from audit_events%'"
        );
        let found = count(&world, &sql).await;
        when(found == 1, || found.to_string())
    })
    .await;
    // And the lane goes on.
    published.publish(&world.publisher, next_event("SEC").good()).await;
    eventually("the lane goes on", SOON, async || {
        let found = count(&world, "select count(*) from ledger.entry where subject like 'ledger.SEC.%'").await;
        when(found == 4, || found.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_council_vote_leaves_in_the_same_way() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let [goes, stays] = ["TRAIL-P1-1708451234568", "TRAIL-P1-1708451234569"];
    for trail in [goes, stays] {
        let vote = json!({
            "trail_id": trail, "council_vote": {"RXY-CEO": "APPROVED"}, "proposal": {"proposal_id": "P1"}, "outcome": "APPROVED",
        });
        world.publisher.publish("ledger.TRAIL.RXY-CEO", vote.to_string()).await;
    }
    let approval = authorization(2, "decision_trails", &[goes]);
    world.publisher.publish(&approval.subject(), approval.payload()).await;
    eventually("all are stored", SOON, async || {
        let found = count(
            &world,
            "select count(*) from ledger.entry where subject !~ '^ledger.SYS.' or record_id like '%0002'",
        )
        .await;
        when(found == 3, || found.to_string())
    })
    .await;
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    assert_eq!(texts(&world, "select trail_id from decision_trails").await, [stays]);
    assert_eq!(check_erased_leaves(&world).await, 1);
}

/// A commit that has found the record stored already, and waits for the tree's head, has its bytes still before it.
#[tokio::test]
async fn what_comes_again_while_a_record_is_erased_leaves_no_bytes_behind() {
    let world = World::builder().limited_role().start().await;
    world.database.execute(&::ledgerd::retention::queries::GRANTS.replace("{role}", &world.role)).await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let (secret, approval) = secret_and_approval(&world, &mut published, 30).await;

    let mut head = world.database.connect().await;
    head.execute("begin; select from ledger.tree_head for update").await.expect("nobody else has it for long");
    let spaced = [b" ", &secret.payload()[..]].concat();
    let sequence = world.publisher.publish(&secret.subject(), spaced).await;
    eventually("the daemon waits for the head", SOON, async || {
        let waiting = count(
            &world,
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'ledgerd'
                and datname = current_database()",
        )
        .await;
        when(waiting == 1, || format!("{waiting} wait"))
    })
    .await;
    let log = scratch_folder("erase");
    let erase = ["retention", "erase", "--authorized-by", approval.event_id()];
    let mut process = spawn_ledgerd(&erase, &world.environment, &log.path().join("log"));
    eventually("the erasure waits for the daemon, or is through without", SOON, async || {
        let waiting = "select count(*) from pg_locks where not granted and relation = 'public.audit_events'::regclass
            and database = (select oid from pg_database where datname = current_database())";
        let seen = (count(&world, waiting).await, count(&world, "select count(*) from ledger.erasure").await);
        when(seen != (0, 0), || format!("{seen:?}"))
    })
    .await;
    head.execute("rollback").await.expect("it was open all the time");
    assert_eq!(process.wait_exit(SOON).await, 0, "{}", process.log());
    eventually("what came again is in custody", SOON, async || {
        let stored = format!(
            "select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER' and sequence = {sequence}"
        );
        let stored = count(&world, &stored).await;
        when(stored == 1, || stored.to_string())
    })
    .await;
    let kept = format!(
        "select count(*) from ledger.entry
        where record_id = '{}' and disposition <> 'rejected' and (payload is not null or erasure_id is null)",
        secret.event_id()
    );
    assert_eq!(count(&world, &kept).await, 0);
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn an_erasure_that_cannot_keep_writers_out_gives_up_and_has_done_nothing() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "1s").start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let (_, approval) = secret_and_approval(&world, &mut published, 40).await;
    let mut writer = world.database.connect().await;
    writer.execute("begin; lock table audit_events in row exclusive mode").await.expect("anybody may write");
    let erase = ["retention", "erase", "--authorized-by", approval.event_id()];
    let output = world.ledgerd(&erase).await;
    assert_eq!(output.status.code(), Some(69), "{}", text_of(&output));
    assert!(text_of(&output).contains("another session holds a lock"), "{}", text_of(&output));
    check_ledger(&world, &published).await;
    writer.execute("rollback").await.expect("it was open all the time");
    world.ledgerd_ok(&erase).await;
}

/// The bytes that an operator gave a record stay with the decision; docs/retention.md says so, and how they are found.
#[tokio::test]
async fn what_an_operator_put_in_a_rejected_messages_place_is_out_of_reach_and_can_be_found() {
    const DOCUMENT: &str = include_str!("../../docs/retention.md");
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
    settled(&world, &published).await;
    let corrected = next_event("EXEC");
    let folder = scratch_folder("payload");
    let file = folder.path().join("payload");
    std::fs::write(&file, corrected.payload()).expect("the folder is ours");
    let (letter, file) = (newest_letter(&world).await, file.to_str().expect("UTF-8"));
    world.ledgerd_ok(&["dlq", "requeue", &letter, "--by", "Ops", "--payload", file, "--why", "a typo"]).await;
    note(&mut published, &requeued_from(&world, &letter).await[0], Expectation::Good);
    let approval = authorization(50, "audit_events", &[corrected.event_id()]);
    publish(&world, &mut published, &approval).await;
    let blocks = DOCUMENT.split("```sql\n").filter_map(|rest| rest.split("```").next());
    let query = blocks.last().expect("a query").trim_end().trim_end_matches(';');
    let query = query.replace("SEC-WRK-001-1708451234568", corrected.event_id());
    let found = format!("select count(*) from ({query}) as found join ledger.dead_letter on leaf_index = dead_letter");
    assert_eq!(count(&world, &found).await, 1);
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    assert_eq!(count(&world, &found).await, 1);
    let kept = "select count(*) from ledger.resolution where replacement is not null";
    assert_eq!(count(&world, kept).await, 1);
    world.ledgerd_ok(&["verify"]).await;
}

/// A record's id is its table's own: any agent may give its usage the id of an event.
#[tokio::test]
async fn usage_that_bears_an_authorisations_id_does_not_spoil_what_was_erased() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let secret = next_event("EXEC");
    publish(&world, &mut published, &secret).await;
    let approval = authorization(20, "audit_events", &[secret.event_id()]);
    // One before it, and one after: custody gives them in either order.
    for (agent, usd) in [("RXY-CEO", 1.0), ("WRK-001", 2.0)] {
        let namesake = spend(agent, usd, "2026-02-20").with("usage_id", approval.event_id());
        published.publish(&world.publisher, namesake.good()).await;
        settled(&world, &published).await;
        if agent == "RXY-CEO" {
            publish(&world, &mut published, &approval).await;
        }
    }
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of what is refused, over one ledger")]
async fn nothing_else_leaves() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let (one, two) = (next_event("EXEC"), next_event("EXEC"));
    for event in [&one, &two] {
        published.publish(&world.publisher, event.good()).await;
    }
    let ids = [one.event_id(), two.event_id()];
    let approval = publish(&world, &mut published, &authorization(10, "audit_events", &[ids[0]])).await;
    let unknown = publish(&world, &mut published, &authorization(11, "audit_events", &[ids[0], "EXEC-NOBODY-1"])).await;
    let itself = authorization(12, "audit_events", &["SYS-ARCHITECT-1708451200012"]);
    let itself = publish(&world, &mut published, &itself).await;
    let silent = event("SYS", "ARCHITECT", 13).with("action", "DELETION_AUTHORIZED").with("outcome", "APPROVED");
    let silent = publish(&world, &mut published, &silent).await;
    let other = publish(&world, &mut published, &event("SYS", "ARCHITECT", 14)).await;
    check_ledger(&world, &published).await;
    let before = texts(&world, "select row_to_json(it)::text from audit_events as it order by id").await;
    for authorized_by in [unknown.as_str(), &itself, &silent, &other, one.event_id(), "SYS-ARCHITECT-0"] {
        let output = world.ledgerd(&["retention", "erase", "--authorized-by", authorized_by]).await;
        assert_eq!(output.status.code(), Some(1), "{authorized_by}: {}", text_of(&output));
    }

    // As superuser, with whatever one could enter by hand.
    let erasure = |word: &str, rows: i64| {
        format!(
            "insert into ledger.erasure (table_name, authorized_by, row_count, event_id) values ('audit_events', '{word}', {rows}, 'x')"
        )
    };
    let removal = |id: &str| {
        format!(
            "insert into ledger.removal (table_name, row_key, erasure_id, leaf_index)
            select 'audit_events', event_id, (select max(id) from ledger.erasure), leaf_index
            from audit_events join ledger.entry on record_id = event_id and row_id = audit_events.id where event_id = '{id}'"
        )
    };
    let delete = |id: &str| format!("delete from audit_events where event_id = '{id}'");
    let keep = |id: &str| {
        format!(
            "insert into ledger.erased
            select leaf_index, (select max(id) from ledger.erasure), payload_sha256, sha256(headers)
            from ledger.entry where record_id = '{id}'"
        )
    };
    let take = |id: &str| {
        format!(
            "update ledger.batch
            set payloads = ledger.without(payloads, array[array_position(record_ids, '{id}')]),
                headers = ledger.without(headers, array[array_position(record_ids, '{id}')]), erased = erased + 1
            where '{id}' = any (record_ids)"
        )
    };
    let give_up = |id: &str| format!("{}; {}", keep(id), take(id));
    let forged = "insert into audit_events (event_id, actor, action, outcome, details, timestamp, integrity_hash, timestamp_text)
        select 'SYS-ARCHITECT-1708451299999', actor, action, outcome, details, timestamp, integrity_hash, timestamp_text
        from audit_events where event_id = 'SYS-ARCHITECT-1708451200010'";
    let refused = [
        "delete from audit_events".to_owned(),
        "delete from decision_trails; delete from audit_events".to_owned(),
        "set session_replication_role = replica; delete from audit_events".to_owned(),
        delete(ids[0]),
        give_up(ids[0]),
        // Another record than the one that is named.
        format!("{}; {}; {}", erasure(&approval, 1), removal(ids[1]), delete(ids[1])),
        // More than what is named, under the cover of it.
        format!("{}; {}; {}; {}", erasure(&approval, 1), removal(ids[0]), delete(ids[0]), delete(ids[1])),
        // Its bytes alone, or another's.
        format!("{}; {}; {}", erasure(&approval, 1), removal(ids[0]), give_up(ids[0])),
        format!("{}; {}; {}; {}", erasure(&approval, 1), removal(ids[0]), delete(ids[0]), give_up(ids[1])),
        format!(
            "{}; {}; {}; update ledger.batch set leaf_hashes = array_fill(sha256('x'), array[leaves])",
            erasure(&approval, 1),
            removal(ids[0]),
            delete(ids[0])
        ),
        // The bytes without their hashes, the hashes without the bytes, and hashes of other bytes.
        format!("{}; {}; {}; {}", erasure(&approval, 1), removal(ids[0]), delete(ids[0]), take(ids[0])),
        format!("{}; {}; {}; {}", erasure(&approval, 1), removal(ids[0]), delete(ids[0]), keep(ids[0])),
        format!(
            "{}; {}; {}; {}; {}",
            erasure(&approval, 1),
            removal(ids[0]),
            delete(ids[0]),
            keep(ids[0]).replace("payload_sha256", "sha256('x')"),
            take(ids[0])
        ),
        // A neighbour's bytes with it, and another column.
        format!(
            "{}; {}; {}; {}; {}",
            erasure(&approval, 1),
            removal(ids[0]),
            delete(ids[0]),
            give_up(ids[0]),
            take(ids[1])
        ),
        format!(
            "{}; {}; {}; {}; {}",
            erasure(&approval, 1),
            removal(ids[0]),
            delete(ids[0]),
            keep(ids[0]),
            take(ids[0]).replace("erased = erased + 1", "erased = erased + 1, rejected = rejected + 1")
        ),
        // A removal that removes nothing.
        format!("{}; {}", erasure(&approval, 1), removal(ids[0])),
        // An event that never came through the stream, and one that is no authorisation.
        format!("{forged}; {}; {}; {}", erasure("SYS-ARCHITECT-1708451299999", 1), removal(ids[0]), delete(ids[0])),
        format!("{}; {}; {}", erasure(&other, 1), removal(ids[0]), delete(ids[0])),
        // What explains a gap.
        format!("{}; {}; {}", erasure(&itself, 1), removal(&itself), delete(&itself)),
    ];
    // This is how it is done, so that what follows is refused for what differs.
    let good = format!(
        "begin; {}; {}; {}; {}; rollback",
        erasure(&approval, 1),
        removal(ids[0]),
        delete(ids[0]),
        give_up(ids[0])
    );
    world.database.execute(&good).await;
    for statements in refused {
        let result = world.cluster().try_execute(world.database.name(), &statements).await;
        assert!(result.is_err(), "{statements}");
    }
    assert_eq!(texts(&world, "select row_to_json(it)::text from audit_events as it order by id").await, before);
    check_ledger(&world, &published).await;

    // The word itself is good, and is good once.
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", &approval]).await;
    for statements in [
        "update ledger.erasure set row_count = 7",
        "delete from ledger.erasure",
        "update ledger.removal set erasure_id = null",
        "update ledger.erased set payload_sha256 = sha256('x')",
        "delete from ledger.erased",
    ] {
        assert!(world.cluster().try_execute(world.database.name(), statements).await.is_err(), "{statements}");
    }
}

#[tokio::test]
async fn killed_at_any_point_it_erases_all_or_nothing_and_tells_once() {
    let world = World::builder().postgres_proxy().start().await;
    // The proxy is for the command alone.
    let _daemon = Daemon::spawn(&world.operator);
    let log = scratch_folder("erase");
    let mut published = Published::default();
    let before = |pattern: &'static [u8]| -> Box<dyn Fn(&TcpProxy) -> Hold> {
        Box::new(move |proxy| proxy.hold_when(Direction::ToServer, pattern))
    };
    let after = |pattern: &'static [u8]| -> Box<dyn Fn(&TcpProxy) -> Hold> {
        Box::new(move |proxy| proxy.hold_answer_after(pattern))
    };
    let instants = [
        before(b"insert into ledger.erasure"),
        after(b"insert into ledger.removal"),
        after(b"delete from public."),
        after(b"insert into ledger.erased"),
        after(b"update ledger.batch"),
        before(b"to 0; commit"),
        after(b"to 0; commit"),
        before(b"insert into public.audit_events"),
        // The first is the erasure's, the second the event's.
        after(b"= 0; commit"),
    ];
    let rounds = instants.len();
    for (round, hold) in (100..).zip(instants) {
        let secrets = [next_event("EXEC"), next_event("EXEC")];
        for secret in &secrets {
            published.publish(&world.publisher, secret.good()).await;
        }
        let ids = [secrets[0].event_id(), secrets[1].event_id()];
        let approval = publish(&world, &mut published, &authorization(round, "audit_events", &ids)).await;
        let mut held = hold(world.postgres_proxy());
        let arguments = ["retention", "erase", "--authorized-by", &approval];
        let mut process = spawn_ledgerd(&arguments, &world.environment, &log.path().join("log"));
        held.happened().await;
        process.kill();
        world.postgres_proxy().drop_held().await;
        let left = format!("select count(*) from audit_events where event_id in ('{}', '{}')", ids[0], ids[1]);
        let found = count(&world, &left).await;
        assert!([0, 2].contains(&found), "round {round}: {found}");
        eventually("the next run completes it", SOON, async || {
            let output = ledgerd(&arguments, &world.environment).await;
            when(output.status.success(), || text_of(&output))
        })
        .await;
        assert_eq!(count(&world, &left).await, 0);
        let told = format!("select count(*) from audit_events where details ->> 'authorized_by' = '{approval}'");
        assert_eq!(count(&world, &told).await, 1, "round {round}");
    }
    assert_eq!(check_erased_leaves(&world).await, 2 * rounds);
}
