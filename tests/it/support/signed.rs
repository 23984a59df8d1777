//! A ledger with any number of entries, and checkpoints that the test signs itself.

use super::postgres::Database;
use ledgerd::domain::digest::sha256;
use ledgerd::domain::leaf::Disposition;
use ledgerd::domain::leaf_fields::LeafFields;
use ledgerd::tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use ledgerd::tlog::key::KeyName;
use ledgerd::tlog::note::SignerKey;
use ledgerd::tlog::proof::ConsistencyProof;
use ledgerd::tlog::tree::{Frontier, Hash, Subtree, TreeHead, leaf_hash};

/// The log's name.
pub(crate) const ORIGIN: &str = "example.com/ledger";

/// Entries in one statement.
const CHUNK: u64 = 8192;

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
            "insert into ledger.entry (leaf_index, epoch, sequence, subject, server_time_ns, payload, payload_sha256,
                disposition, record_id, row_id, leaf_hash, committed_at)
            select leaf_index, $1, leaf_index, 'ledger.SYS.ARCHITECT', leaf_index, convert_to(leaf_index::text, 'UTF8'),
                sha256(convert_to(leaf_index::text, 'UTF8')), 'recorded', 'FILLED-' || leaf_index, leaf_index, leaf_hash,
                to_timestamp(leaf_index)
            from unnest($2::bigint[], $3::bytea[]) as new (leaf_index, leaf_hash)",
        )
        .bind(epoch)
        .bind(rows.iter().map(|(index, _)| *index).collect::<Vec<_>>())
        .bind(hashes.iter().map(|hash| &hash[..]).collect::<Vec<_>>())
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
        row_id: Some(index),
        committed_at_us: index * 1_000_000,
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
