//! What the transparency log holds: the stored hashes that proofs and tiles are made of, the leaves themselves, and the
//! checkpoints that were signed.

use crate::log::signer::Tree;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::tlog::checkpoint::{Origin, SignedCheckpoint};
use crate::tlog::plan::Hashes;
use crate::tlog::tile::HashRange;
use crate::tlog::tree::{Hash, TreeHead};
use sqlx::PgConnection;

/// The log, over connections of its own: its readers never hold up a commit.
#[derive(Debug)]
pub struct Log(pub Connections);

impl Log {
    /// The tree as it stands.
    pub async fn head(&self) -> Result<TreeHead, DatabaseError> {
        self.0.bounded("reading the tree's head", self.read_head()).await
    }

    async fn read_head(&self) -> Result<TreeHead, DatabaseError> {
        let mut lease = self.0.lease().await?;
        let head: Option<(i64, Vec<u8>)> = sqlx::query_as("select size, root from ledger.tree_head")
            .fetch_optional(&mut *lease)
            .await
            .map_err(DatabaseError::new)?;
        lease.keep();
        let broken = || DatabaseError::of_the_operator("ledger.tree_head has no row, or a broken one".to_owned());
        let (size, root) = head.ok_or_else(broken)?;
        let (Ok(size), Ok(root)) = (u64::try_from(size), Hash::try_from(root)) else { return Err(broken()) };
        Ok(TreeHead { size, root })
    }

    /// The stored hashes of these ranges: leaf hashes at level 0, complete subtrees above. One that is missing is left out.
    pub async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, DatabaseError> {
        self.0.bounded("reading hashes of the tree", self.read_hashes(ranges)).await
    }

    async fn read_hashes(&self, ranges: &[HashRange]) -> Result<Hashes, DatabaseError> {
        let mut lease = self.0.lease().await?;
        let mut hashes = Hashes::new();
        for range in ranges {
            for (index, hash) in read_range(&mut lease, range).await.map_err(DatabaseError::new)? {
                if let (Ok(index), Ok(hash)) = (u64::try_from(index), Hash::try_from(hash)) {
                    hashes.insert(range.level, index, hash);
                }
            }
        }
        lease.keep();
        Ok(hashes)
    }

    /// The newest checkpoint that was signed in this name: the note.
    pub async fn last_checkpoint(&self, origin: &Origin) -> Result<Option<String>, DatabaseError> {
        self.0.bounded("reading the last checkpoint", self.read_last_checkpoint(origin)).await
    }

    async fn read_last_checkpoint(&self, origin: &Origin) -> Result<Option<String>, DatabaseError> {
        let mut lease = self.0.lease().await?;
        let note =
            sqlx::query_scalar("select note from ledger.checkpoint where origin = $1 order by tree_size desc limit 1")
                .bind(origin.as_str())
                .fetch_optional(&mut *lease)
                .await
                .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(note)
    }

    /// Keeps a checkpoint. Another instance may have signed the same tree already.
    pub async fn keep_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<(), DatabaseError> {
        self.0.bounded("keeping a checkpoint", self.insert_checkpoint(checkpoint)).await
    }

    async fn insert_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<(), DatabaseError> {
        let mut lease = self.0.lease().await?;
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
        .execute(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
        lease.keep();
        Ok(())
    }
}

impl Tree for Log {
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
