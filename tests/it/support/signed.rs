//! A ledger with any number of entries, and checkpoints that the test signs itself.

use super::postgres::Database;
use ledgerd::record::digest::sha256;
use ledgerd::record::leaf::Disposition;
use ledgerd::record::leaf_fields::LeafFields;
use tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use tlog::key::KeyName;
use tlog::note::SignerKey;
use tlog::proof::ConsistencyProof;
use tlog::tree::{Frontier, Hash, Subtree, TreeHead, leaf_hash};

/// The log's name.
pub(crate) const ORIGIN: &str = "example.com/ledger";

/// Entries in one statement.
const CHUNK: u64 = 8192;

/// Rows below are those of migrations.
const FIRST_ROW: i64 = 1_000_000;

/// Entries of one batch at most.
const BATCH: i64 = 100;

/// A log's key.
pub(crate) fn log_key(name: &str, seed: u8) -> SignerKey {
    SignerKey::from_seed(KeyName::parse(name).expect("a name"), &[seed; 32]).expect("a key")
}

/// The key of the log in these tests.
pub(crate) fn key() -> SignerKey {
    log_key(ORIGIN, 1)
}

/// What verifiers are given.
pub(crate) fn verifier_key() -> String {
    key().verifier().to_string()
}

/// Appends recorded entries until the ledger has `size`, as commits of the daemon would.
pub(crate) async fn fill(database: &Database, size: u64) {
    let mut connection = database.connect().await;
    let (present, stored): (i64, Vec<u8>) =
        sqlx::query_as("select size, frontier from ledger.tree_head").fetch_one(&mut connection).await.expect("a head");
    let mut frontier = Frontier::restore(present.unsigned_abs(), &stored).expect("as the daemon stored it");
    assert!(frontier.size() <= size, "it has {present} entries already");
    let (epoch, stream, created_ns): (i32, String, i64) = sqlx::query_as(
        "with made as (
            insert into ledger.epoch (stream, stream_created_ns) values ('FILLED', 1) on conflict do nothing
            returning epoch, stream, stream_created_ns
        )
        select * from made
        union all
        select epoch, stream, stream_created_ns from ledger.epoch where stream = 'FILLED'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("an epoch");
    while frontier.size() < size {
        let rows: Vec<(i64, LeafFields)> = (frontier.size()..size.min(frontier.size() + CHUNK))
            .map(|index| {
                let index = i64::try_from(index).expect("small");
                (index, filled(index, &stream, created_ns))
            })
            .collect();
        let mut completed: Vec<Subtree> = Vec::new();
        let hashes: Vec<Hash> = rows.iter().map(|(_, fields)| leaf_hash(&fields.encode())).collect();
        for hash in &hashes {
            frontier.append(*hash, &mut completed);
        }
        sqlx::query(
            "with
            batch as (
                insert into ledger.batch
                    (first_leaf, leaves, epoch, lane, layer, first_sequence, last_sequence, first_row_id, last_row_id, duplicates,
                    rejected, committed_at, sequences, subjects, server_times_ns, payloads, dispositions, record_ids, row_ids,
                    leaf_hashes)
                select min(leaf_index), count(*), $1, 'SYS', 0, min(leaf_index), max(leaf_index), min(leaf_index) + $5, max(leaf_index) + $5,
                    0, 0, to_timestamp(second), array_agg(leaf_index order by leaf_index),
                    array_agg('ledger.SYS.ARCHITECT'::text), array_agg(leaf_index order by leaf_index),
                    array_agg(convert_to(leaf_index::text, 'UTF8') order by leaf_index), array_agg('r'::\"char\"),
                    array_agg('FILLED-' || leaf_index order by leaf_index), array_agg(leaf_index + $5 order by leaf_index),
                    array_agg(leaf_hash order by leaf_index)
                from unnest($2::bigint[], $3::bytea[]) as new (leaf_index, leaf_hash)
                cross join lateral (select leaf_index - leaf_index % $4 as second) as commit
                group by second
            )
            insert into public.audit_events
                (id, event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text)
            overriding system value
            select leaf_index + $5, 'FILLED-' || leaf_index, 'ARCHITECT', 'X', 'X', 'epoch', 'x', 'x'
            from unnest($2::bigint[]) as leaf_index",
        )
        .bind(epoch)
        .bind(rows.iter().map(|(index, _)| *index).collect::<Vec<_>>())
        .bind(hashes.iter().map(|hash| &hash[..]).collect::<Vec<_>>())
        .bind(BATCH)
        .bind(FIRST_ROW)
        .execute(&mut connection)
        .await
        .expect("the tables are there");
        sqlx::query("insert into ledger.subtree select * from unnest($1::smallint[], $2::bigint[], $3::bytea[])")
            .bind(completed.iter().map(|subtree| subtree.level).collect::<Vec<_>>())
            .bind(completed.iter().map(|subtree| subtree.index).collect::<Vec<_>>())
            .bind(completed.iter().map(|subtree| &subtree.hash[..]).collect::<Vec<_>>())
            .execute(&mut connection)
            .await
            .expect("the tables are there");
    }
    sqlx::query("update ledger.tree_head set size = $1, root = $2, frontier = $3 where size < $1")
        .bind(i64::try_from(frontier.size()).expect("small"))
        .bind(&frontier.root()[..])
        .bind(frontier.to_bytes())
        .execute(&mut connection)
        .await
        .expect("the head is there");
}

/// The entry at this index, as [`fill`] makes it.
fn filled(index: i64, stream: &str, stream_created_ns: i64) -> LeafFields {
    LeafFields {
        stream: stream.to_owned(),
        stream_created_ns,
        regressions: 0,
        sequence: index,
        subject: "ledger.SYS.ARCHITECT".to_owned(),
        server_time_ns: index,
        headers_sha256: None,
        payload_sha256: sha256(index.to_string().as_bytes()),
        disposition: Disposition::Recorded,
        record_id: Some(format!("FILLED-{index}")),
        row_id: Some(FIRST_ROW + index),
        committed_at_us: (index - index % BATCH) * 1_000_000,
        rejection: None,
    }
}

/// The head of the first `size` entries, hashed anew from the stored leaf hashes.
pub(crate) async fn head_at(database: &Database, size: u64) -> TreeHead {
    let hashes: Vec<Vec<u8>> =
        sqlx::query_scalar("select leaf_hash from ledger.entry where leaf_index < $1 order by leaf_index")
            .bind(i64::try_from(size).expect("small"))
            .fetch_all(&mut database.connect().await)
            .await
            .expect("the table is there");
    let mut frontier = Frontier::EMPTY;
    for hash in hashes {
        frontier.append(hash.try_into().expect("32 bytes"), &mut Vec::new());
    }
    assert_eq!(frontier.size(), size);
    frontier.head()
}

/// A signed checkpoint of any tree.
pub(crate) fn signed(head: TreeHead, key: &SignerKey) -> SignedCheckpoint {
    let first = ConsistencyProof { path: Vec::new() };
    SignedCheckpoint::sign(head, &TreeHead::EMPTY, &first, key).expect("any tree grew out of nothing")
}

/// Signs the ledger as it stands, and stores the checkpoint, as the daemon would.
pub(crate) async fn sign(database: &Database) -> SignedCheckpoint {
    let size = database.count("select size from ledger.tree_head").await.unsigned_abs();
    sign_at(database, size).await
}

/// Signs the ledger as it stood at this size.
pub(crate) async fn sign_at(database: &Database, size: u64) -> SignedCheckpoint {
    let checkpoint = signed(head_at(database, size).await, &key());
    store(database, &checkpoint).await;
    checkpoint
}

/// Stores a checkpoint, be it right or wrong.
pub(crate) async fn store(database: &Database, checkpoint: &SignedCheckpoint) {
    let signed: &Checkpoint = checkpoint.checkpoint();
    sqlx::query("insert into ledger.checkpoint (origin, tree_size, root, note) values ($1, $2, $3, $4)")
        .bind(signed.origin().as_str())
        .bind(i64::try_from(signed.head().size).expect("small"))
        .bind(&signed.head().root[..])
        .bind(checkpoint.to_string())
        .execute(&mut database.connect().await)
        .await
        .expect("the table is there");
}
