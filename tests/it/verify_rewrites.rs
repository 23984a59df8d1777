//! A forger who rewrites everything consistently, and one who brings back an old state: only what was kept outside shows it.
//! And the specification's own hash, by the program and in SQL.

use crate::support::daemon::text_of;
use crate::support::postgres::Database;
use crate::support::world::World;
use crate::verify::{Said, checkpoint, settled_world, strings, unguarded, verify};
use ledgerd::record::digest::sha256;
use ledgerd::record::event::integrity_hash;
use ledgerd::record::leaf::{Disposition, Leaf, headers_sha256};
use ledgerd::record::message::{Headers, Incarnation, Message};
use ledgerd::record::reject::{Reason, Rejection};
use serde_json::Value;
use sqlx::Row;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use tlog::tree::Frontier;

/// Rewrites an event, its bytes, every leaf, every subtree and the head, as the daemon would have written them.
async fn forge(database: &Database, id: i64) {
    let mut connection = database.connect().await;
    let entries = sqlx::query(
        "select leaf_index, stream, stream_created_ns, regressions, sequence, subject, server_time_ns, headers, payload, payload_sha256,
            disposition, record_id, row_id, (extract(epoch from committed_at) * 1000000)::bigint as committed_at_us, reason, detail
        from ledger.entry join ledger.epoch using (epoch) left join ledger.dead_letter using (leaf_index) order by leaf_index",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the tables are there");
    let (mut frontier, mut completed) = (Frontier::EMPTY, Vec::new());
    for row in &entries {
        let payload: Option<Vec<u8>> = row.get("payload");
        let is_it = row.get::<Option<i64>, _>("row_id") == Some(id)
            && row.get::<String, _>("subject").starts_with("ledger.EXEC.");
        let mut hash: [u8; 32] = row.get::<Vec<u8>, _>("payload_sha256").try_into().expect("32 bytes");
        if is_it {
            let mut event: Value = serde_json::from_slice(&payload.expect("a record has bytes")).expect("JSON");
            event["outcome"] = "FAILURE".into();
            let text = |field: &str| event[field].as_str().expect("a text").to_owned();
            let spec =
                integrity_hash(&text("event_id"), &text("actor"), &text("action"), "FAILURE", &text("timestamp"));
            let bytes = event.to_string().into_bytes();
            hash = sha256(&bytes);
            let update = "update ledger.entry set payload = $1 where leaf_index = $2";
            let leaf_index: i64 = row.get("leaf_index");
            sqlx::query(update).bind(&bytes).bind(leaf_index).execute(&mut connection).await.expect("unguarded");
            let update = "update audit_events set outcome = 'FAILURE', integrity_hash = $1 where id = $2";
            sqlx::query(update).bind(spec).bind(id).execute(&mut connection).await.expect("unguarded");
        }
        let rejection = row.get::<Option<String>, _>("reason").map(|reason| {
            let reason = Reason::ALL.iter().copied().find(|known| known.code() == reason).expect("a known reason");
            Rejection::new(reason, &row.get::<String, _>("detail"))
        });
        let incarnation =
            Incarnation { stream: Arc::from(row.get::<String, _>("stream")), created_ns: row.get("stream_created_ns") };
        let subject: String = row.get("subject");
        let record_id: Option<String> = row.get("record_id");
        let message = Message {
            incarnation: incarnation.clone(),
            sequence: row.get("sequence"),
            subject: subject.clone(),
            server_time_ns: row.get("server_time_ns"),
            headers: Headers::from_stored(row.get("headers")),
            payload: Vec::new().into(),
        };
        let disposition = row.get::<String, _>("disposition");
        let disposition = Disposition::ALL.into_iter().find(|known| known.name() == disposition).expect("one of three");
        let leaf = Leaf {
            stream: &incarnation.stream,
            stream_created_ns: incarnation.created_ns,
            regressions: row.get("regressions"),
            sequence: message.sequence,
            subject: &subject,
            server_time_ns: message.server_time_ns,
            headers_sha256: headers_sha256(&message),
            payload_sha256: hash,
            disposition,
            record_id: record_id.as_deref(),
            row_id: row.get("row_id"),
            committed_at_us: row.get("committed_at_us"),
            rejection: rejection.as_ref().map(|it| (it.reason().code(), it.detail())),
        };
        let leaf = leaf.hash();
        frontier.append(leaf, &mut completed);
        let update = "update ledger.entry set leaf_hash = $1 where leaf_index = $2";
        sqlx::query(update)
            .bind(&leaf[..])
            .bind(row.get::<i64, _>("leaf_index"))
            .execute(&mut connection)
            .await
            .expect("unguarded");
    }
    for subtree in completed {
        let update = "update ledger.subtree set hash = $1 where level = $2 and index = $3";
        let update = sqlx::query(update).bind(&subtree.hash[..]).bind(subtree.level).bind(subtree.index);
        update.execute(&mut connection).await.expect("unguarded");
    }
    let update = "update ledger.tree_head set root = $1, frontier = $2";
    let update = sqlx::query(update).bind(&frontier.root()[..]).bind(frontier.to_bytes());
    update.execute(&mut connection).await.expect("unguarded");
}

/// A note in a file of its own.
fn noted(note: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), note).expect("written");
    file
}

async fn verify_against(world: &World, database: &Database, notes: &[&tempfile::NamedTempFile]) -> Said {
    let words: Vec<&str> =
        notes.iter().flat_map(|file| ["--checkpoint", file.path().to_str().expect("UTF-8")]).collect();
    verify(world, database, &words).await
}

async fn an_event(database: &Database) -> i64 {
    database
        .count("select min(row_id) from ledger.entry where subject like 'ledger.EXEC.%' and disposition = 'recorded'")
        .await
}

#[tokio::test]
async fn a_rewrite_of_row_bytes_leaves_and_tree_is_shown_by_a_root_that_was_kept_outside() {
    let world = settled_world().await;
    let note = noted(&checkpoint(&world.database).await);
    let said = verify_against(&world, &world.database, &[&note]).await;
    assert_eq!((said.code, said.report["known_roots_compared"].as_i64()), (Some(0), Some(1)), "{}", said.text);

    let forged = unguarded(&world.database).await;
    forge(&forged, an_event(&forged).await).await;
    let said = verify(&world, &forged, &[]).await;
    assert_eq!(said.code, Some(0), "from within, nothing is to be seen: {}", said.text);
    let said = verify_against(&world, &forged, &[&note]).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    let differences = said.differences();
    assert!(
        differences.len() == 1 && differences[0].starts_with("checkpoint ") && differences[0].ends_with(": root"),
        "{differences:?}"
    );

    // The same from the table of signed checkpoints, as long as it was forgotten.
    let size = forged.count("select size from ledger.tree_head").await;
    let mut connection = forged.connect().await;
    let insert = "insert into ledger.checkpoint (tree_size, root, origin, note) select $1, root, 'example.com/ledger', $2 from ledger.tree_head";
    let text = fs::read_to_string(note.path()).expect("readable");
    sqlx::query(insert).bind(size).bind(text).execute(&mut connection).await.expect("inserted");
    let said = verify(&world, &forged, &[]).await;
    let expected: BTreeSet<String> = [format!("ledger.checkpoint {size}: root")].into();
    assert_eq!((said.code, said.differences().into_iter().collect()), (Some(3), expected), "{}", said.text);
}

#[tokio::test]
async fn an_old_backup_is_shown_by_a_root_of_a_larger_tree() {
    let world = settled_world().await;
    let old = world.database.copy().await;
    let old_note = noted(&checkpoint(&old).await);
    let mut daemon = world.daemon().await;
    let mut published = crate::support::published::Published::default();
    published.publish_all(&world.publisher, crate::support::events::good_events(20)).await;
    crate::support::ledger::settled(&world, &published).await;
    crate::support::eventually("they are leaves", crate::support::SOON, async || {
        let (now, then) = (
            world.database.count("select size from ledger.tree_head").await,
            old.count("select size from ledger.tree_head").await,
        );
        crate::support::when(now == then + 20, || format!("{now} leaves"))
    })
    .await;
    daemon.sigterm();
    daemon.wait_exit().await;
    let note = noted(&checkpoint(&world.database).await);
    // The ledger grew out of the old tree; the old tree knows nothing of the new root.
    assert_eq!(verify_against(&world, &world.database, &[&old_note, &note]).await.code, Some(0));
    assert_eq!(verify_against(&world, &old, &[&old_note]).await.code, Some(0));
    let said = verify_against(&world, &old, &[&old_note, &note]).await;
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("restored from an old backup"), "{}", said.text);
    // The last leaves cut off, and the head with them.
    let cut = unguarded(&world.database).await;
    cut.execute(
        "delete from ledger.entry where leaf_index >= (select size - 20 from ledger.tree_head);
        delete from ledger.tree_head",
    )
    .await;
    let said = verify_against(&world, &cut, &[&note]).await;
    assert!(said.text.contains("restored from an old backup"), "{}", said.text);
}

/// A moment with its zone: UTC, where it names none.
fn zoned(moment: &str) -> String {
    if moment.contains('+') { moment.to_owned() } else { format!("{moment}+00") }
}

#[tokio::test]
async fn the_specifications_hash_over_a_time_range_finds_the_same_rows_as_sql() {
    let world = settled_world().await;
    let spoiled = unguarded(&world.database).await;
    let ids =
        strings(&spoiled, "select id::text from audit_events where timestamp < '2026-03-01' order by timestamp, id")
            .await;
    let chosen = [&ids[3], &ids[50], &ids[ids.len() - 1]];
    for (id, change) in chosen.iter().zip([
        "actor = case actor when 'ARCHITECT' then 'RXY-CEO' else 'ARCHITECT' end",
        "integrity_hash = repeat('0', 64)",
        "timestamp_text = timestamp_text || 'Z'",
    ]) {
        spoiled.execute(&format!("update audit_events set {change} where id = {id}")).await;
    }
    let bounds = strings(&spoiled, &format!("select to_char(timestamp, 'YYYY-MM-DD\"T\"HH24:MI:SS.US') from audit_events where id in ({}, {}) order by timestamp", ids[3], ids[50])).await;
    let whole = (String::from("2026-02-20"), String::from("2026-02-21"));
    for (from, to) in
        [whole, (bounds[0].clone(), bounds[1].clone()), (bounds[1].clone(), "2027-01-01T00:00:00+01:00".to_owned())]
    {
        let said = verify(&world, &spoiled, &["--from", &from, "--to", &to]).await;
        let found: BTreeSet<String> =
            said.report["rows"].as_array().expect("rows").iter().map(|row| row["id"].to_string()).collect();
        // The tests' server is not in UTC, and the column is.
        let utc = |moment: &str| format!("(timestamptz '{}' at time zone 'UTC')", zoned(moment));
        let range =
            format!("from audit_events_integrity where timestamp >= {} and timestamp < {}", utc(&from), utc(&to));
        let in_sql = strings(&spoiled, &format!("select id::text {range} and not intact")).await;
        assert_eq!(found, in_sql.iter().cloned().collect(), "{from} {to}");
        assert!(!found.is_empty());
        let checked = spoiled.count(&format!("select count(*) {range}")).await;
        assert_eq!(said.report["checked"].as_i64(), Some(checked));
        assert_eq!(said.code, Some(3), "{}", said.text);
    }
    let good = world.ledgerd(&["verify", "--from", "2026-02-20", "--to", "2026-02-21T00:00:00Z"]).await;
    assert!(good.status.success() && text_of(&good).contains(" events checked, 0 differ"), "{}", text_of(&good));
    assert_eq!(world.ledgerd(&["verify", "--from", "yesterday"]).await.status.code(), Some(64));
}
