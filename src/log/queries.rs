//! The queries on the transparency log: the stored hashes for proofs and tiles, the leaves, and the signed checkpoints.

use crate::log::signer::SignedTree;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use sqlx::PgConnection;
use tlog::checkpoint::{Origin, SignedCheckpoint};
use tlog::plan::Hashes;
use tlog::tile::HashRange;
use tlog::tree::{Hash, TreeHead};

/// The log, over connections of its own: its readers never hold up a commit.
#[derive(Debug)]
pub struct LogStore(pub Connections);

impl LogStore {
    /// The tree as it stands.
    pub async fn head(&self) -> Result<TreeHead, DatabaseError> {
        let reading = self.0.run("reading the tree's head", async |connection| {
            sqlx::query_as("select size, root from ledger.tree_head").fetch_optional(connection).await
        });
        let head: Option<(i64, Vec<u8>)> = reading.await?;
        let broken = || DatabaseError::of_the_operator("ledger.tree_head has no row, or a broken one".to_owned());
        let (size, root) = head.ok_or_else(broken)?;
        let (Ok(size), Ok(root)) = (u64::try_from(size), Hash::try_from(root)) else { return Err(broken()) };
        Ok(TreeHead { size, root })
    }

    /// The stored hashes of these ranges: leaf hashes at level 0, complete subtrees above. One that is missing is left out.
    pub async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, DatabaseError> {
        stored_hashes(&self.0, ranges).await
    }

    /// The newest checkpoint that was signed in this name: the note.
    pub async fn last_checkpoint(&self, origin: &Origin) -> Result<Option<String>, DatabaseError> {
        self.0
            .run("reading the last checkpoint", async |connection| {
                let query = "select note from ledger.checkpoint where origin = $1 order by tree_size desc limit 1";
                sqlx::query_scalar(query).bind(origin.as_str()).fetch_optional(connection).await
            })
            .await
    }

    /// Keeps a checkpoint. Another instance may have signed the same tree already.
    pub async fn keep_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<(), DatabaseError> {
        self.0
            .run("keeping a checkpoint", async |connection| {
                let TreeHead { size, root } = checkpoint.head();
                sqlx::query(
                    "insert into ledger.checkpoint (origin, tree_size, root, note)
            values ($1, $2, $3, $4)
            on conflict (origin, tree_size) do nothing",
                )
                .bind(checkpoint.checkpoint().origin().as_str())
                .bind(i64::try_from(size).expect("a size of our own tree fits"))
                .bind(&root[..])
                .bind(checkpoint.to_string())
                .execute(connection)
                .await?;
                Ok(())
            })
            .await
    }
}

/// The stored hashes of these ranges. One that is missing is left out.
pub(crate) async fn stored_hashes(connections: &Connections, ranges: &[HashRange]) -> Result<Hashes, DatabaseError> {
    connections
        .run("reading hashes of the tree", async |connection| {
            let mut hashes = Hashes::new();
            for range in ranges {
                for (index, hash) in read_range(connection, range).await? {
                    if let (Ok(index), Ok(hash)) = (u64::try_from(index), Hash::try_from(hash)) {
                        hashes.insert(range.level, index, hash);
                    }
                }
            }
            Ok(hashes)
        })
        .await
}

impl SignedTree for LogStore {
    async fn head(&self) -> Result<TreeHead, String> {
        self.head().await.map_err(|error| error.to_string())
    }

    async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, String> {
        self.hashes(ranges).await.map_err(|error| error.to_string())
    }

    async fn last_checkpoint(&self, origin: &Origin) -> Result<Option<String>, String> {
        self.last_checkpoint(origin).await.map_err(|error| error.to_string())
    }

    async fn keep(&self, checkpoint: &SignedCheckpoint) -> Result<(), String> {
        self.keep_checkpoint(checkpoint).await.map_err(|error| error.to_string())
    }
}

async fn read_range(connection: &mut PgConnection, range: &HashRange) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    let first = i64::try_from(range.first).unwrap_or(i64::MAX);
    let end = i64::try_from(range.first.saturating_add(range.count)).unwrap_or(i64::MAX);
    if range.level == 0 {
        let query = "
            select item.leaf_index, item.leaf_hash
            from ledger.batch
            cross join lateral (
                select batch.first_leaf + position - 1, hash from unnest(batch.leaf_hashes) with ordinality as leaf (hash, position)
            ) as item (leaf_index, leaf_hash)
            where batch.first_leaf >= coalesce((select max(first_leaf) from ledger.batch where first_leaf <= $1), 0)
                and batch.first_leaf < $2 and item.leaf_index >= $1 and item.leaf_index < $2";
        sqlx::query_as(query).bind(first).bind(end).fetch_all(connection).await
    } else {
        sqlx::query_as("select index, hash from ledger.subtree where level = $1 and index >= $2 and index < $3")
            .bind(i16::from(range.level))
            .bind(first)
            .bind(end)
            .fetch_all(connection)
            .await
    }
}
