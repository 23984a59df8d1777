//! Reads log entries: leaves rebuilt from custody, each compared with its stored hash, and the checkpoints that prove
//! them.

use crate::log::queries::LogStore;
use crate::log::stored_tree::{StoredTree, Unread};
use crate::postgres::remedy::DatabaseError;
use crate::record::digest::{Hash, sha256};
use crate::record::leaf::Disposition;
use crate::record::leaf_fields::{LeafFields, LeafRejection};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use tlog::checkpoint::SignedCheckpoint;
use tlog::cosignature::WitnessVerifierKey;
use tlog::note::{Note, Signature};
use tlog::plan::Hashes;
use tlog::tile::HashRange;
use tlog::tree::leaf_hash;

/// An entry of custody, as its leaf has it.
#[derive(Clone, Debug)]
pub struct LoggedEntry {
    pub index: u64,
    /// What the leaf says, made of the row.
    pub fields: LeafFields,
    /// The stored hash of the leaf.
    pub leaf_hash: Hash,
    pub headers: Option<Vec<u8>>,
    /// The publisher's bytes. `None` where custody does not have them any more.
    pub payload: Option<Vec<u8>>,
}

impl LoggedEntry {
    /// The leaf's bytes, if the row still gives the hash that is in the tree.
    pub fn leaf(&self) -> Result<Vec<u8>, Changed> {
        let leaf = self.fields.encode();
        if leaf_hash(&leaf) == self.leaf_hash { Ok(leaf) } else { Err(Changed { index: self.index }) }
    }
}

/// A row of custody that does not give its leaf's hash any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub index: u64,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry {} is not what was logged: its row does not give its leaf's hash", self.index)
    }
}

/// An entry in a list.
#[derive(Clone, Debug)]
pub struct EntrySummary {
    pub index: u64,
    /// recorded, duplicate or rejected.
    pub disposition: String,
    pub subject: String,
    /// When it was committed.
    pub committed_at: String,
}

/// A checkpoint as it is stored, which nobody has verified.
#[derive(Clone, Debug)]
pub struct StoredCheckpoint {
    pub origin: String,
    pub tree_size: u64,
    /// The note, with the cosignatures that were collected since.
    pub note: Note,
}

/// What [`LogStore::entry`] and the leaves read: entries with all that their leaves cover.
macro_rules! entries_from {
    ($entries:literal) => {
        concat!(
            "select e.leaf_index, e.sequence, e.subject, e.server_time_ns, e.headers, e.headers_sha256, e.payload_sha256, e.disposition,
                e.record_id, e.row_id, e.leaf_hash, (extract(epoch from e.committed_at) * 1000000)::bigint as committed_at_us,
                p.stream, p.stream_created_ns, p.regressions, d.reason, d.detail, e.payload
            from ",
            $entries,
            " as e
            join ledger.epoch as p using (epoch)
            left join ledger.dead_letter as d using (leaf_index) "
        )
    };
}

const ENTRY: &str = entries_from!("ledger.entry_at($1)");

const LEAVES: &str = concat!(
    entries_from!("ledger.entry"),
    "where e.first_leaf >= coalesce((select max(first_leaf) from ledger.batch where first_leaf <= $1), 0)
        and e.first_leaf < $2 and e.leaf_index >= $1 and e.leaf_index < $2
    order by e.leaf_index"
);

/// Cosignatures may come a moment after the checkpoint: of this many, the one with the most witnesses is taken.
const CHECKPOINTS_COMPARED: i64 = 100;

impl<'r> FromRow<'r, PgRow> for LoggedEntry {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let broken = |column: &str| sqlx::Error::ColumnDecode { index: column.to_owned(), source: "impossible".into() };
        let hash = |column: &str| Hash::try_from(row.try_get::<Vec<u8>, _>(column)?).map_err(|_| broken(column));
        let headers: Option<Vec<u8>> = row.try_get("headers")?;
        let disposition: String = row.try_get("disposition")?;
        let reason: Option<String> = row.try_get("reason")?;
        let detail: Option<String> = row.try_get("detail")?;
        Ok(Self {
            index: u64::try_from(row.try_get::<i64, _>("leaf_index")?).map_err(|_| broken("leaf_index"))?,
            fields: LeafFields {
                stream: row.try_get("stream")?,
                stream_created_ns: row.try_get("stream_created_ns")?,
                regressions: row.try_get("regressions")?,
                sequence: row.try_get("sequence")?,
                subject: row.try_get("subject")?,
                server_time_ns: row.try_get("server_time_ns")?,
                // An erased record keeps its headers' hash.
                headers_sha256: match row.try_get::<Option<Vec<u8>>, _>("headers_sha256")? {
                    Some(kept) => Some(Hash::try_from(kept).map_err(|_| broken("headers_sha256"))?),
                    None => headers.as_deref().map(sha256),
                },
                // Of bytes that are gone without a word, nothing gives the leaf's hash.
                payload_sha256: match row.try_get::<Option<Vec<u8>>, _>("payload_sha256")? {
                    Some(found) => Hash::try_from(found).map_err(|_| broken("payload_sha256"))?,
                    None => Hash::default(),
                },
                disposition: Disposition::named(&disposition).ok_or_else(|| broken("disposition"))?,
                record_id: row.try_get("record_id")?,
                row_id: row.try_get("row_id")?,
                committed_at_us: row.try_get("committed_at_us")?,
                rejection: reason.zip(detail).map(|(reason, detail)| LeafRejection { reason, detail }),
            },
            leaf_hash: hash("leaf_hash")?,
            headers,
            payload: row.try_get("payload")?,
        })
    }
}

impl LogStore {
    /// The entries of a record's id, in any lane or in one; at most `limit`, the oldest first.
    pub async fn entries_of(
        &self,
        record_id: &str,
        lane: Option<&str>,
        limit: i64,
    ) -> Result<Vec<EntrySummary>, DatabaseError> {
        let reading = self.0.run("looking for a record", async |connection| {
            sqlx::query_as(
                "select leaf_index, disposition, subject,
                    to_char(committed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
                from ledger.entries_by_record($1)
                where $2::text is null or split_part(subject, '.', 2) = $2
                order by leaf_index
                limit $3",
            )
            .bind(record_id)
            .bind(lane)
            .bind(limit)
            .fetch_all(connection)
            .await
        });
        let rows: Vec<(i64, String, String, String)> = reading.await?;
        Ok(rows
            .into_iter()
            .map(|(index, disposition, subject, committed_at)| EntrySummary {
                index: index.unsigned_abs(),
                disposition,
                subject,
                committed_at,
            })
            .collect())
    }

    pub async fn entry(&self, index: u64) -> Result<Option<LoggedEntry>, DatabaseError> {
        let Ok(index) = i64::try_from(index) else { return Ok(None) };
        self.0
            .run("reading an entry", async |connection| {
                sqlx::query_as(ENTRY).bind(index).fetch_optional(connection).await
            })
            .await
    }

    /// Of the newest checkpoints of the log's present name, the one that most witnesses cosigned; of those the newest. It covers
    /// the leaf, if one is given.
    pub async fn newest_checkpoint(&self, covering: Option<u64>) -> Result<Option<StoredCheckpoint>, DatabaseError> {
        let smallest = covering.map_or(0, |index| index.saturating_add(1));
        let compared = if covering.is_some() { CHECKPOINTS_COMPARED } else { 1 };
        let reading = self.0.run("reading the newest checkpoint", async |connection| {
            sqlx::query_as(
                // A row a second, for years: each origin is found by a step in the primary key, and nothing is scanned.
                "with recursive name as (
                    (select origin from ledger.checkpoint order by origin limit 1)
                    union all
                    select (select c.origin from ledger.checkpoint as c where c.origin > name.origin order by c.origin limit 1)
                    from name
                    where name.origin is not null
                ),
                present as (
                    select name.origin
                    from name
                    cross join lateral (
                        select signed_at from ledger.checkpoint as c
                        where c.origin = name.origin
                        order by c.tree_size desc
                        limit 1
                    ) as last
                    order by last.signed_at desc
                    limit 1
                )
                select origin, tree_size, note, lines
                from (
                    select * from ledger.checkpoint
                    where origin = (select origin from present) and tree_size >= $1
                    order by tree_size desc
                    limit $2
                ) as newest
                cross join lateral (
                    select coalesce(array_agg(line order by cosigned_at, line), '{}') as lines, count(distinct witness) as witnesses
                    from ledger.cosignature as c
                    where c.origin = newest.origin and c.tree_size = newest.tree_size
                ) as cosigned
                order by witnesses desc, tree_size desc
                limit 1",
            )
            .bind(i64::try_from(smallest).unwrap_or(i64::MAX))
            .bind(compared)
            .fetch_optional(connection)
            .await
        });
        let row: Option<(String, i64, String, Vec<String>)> = reading.await?;
        let Some((origin, tree_size, note, lines)) = row else { return Ok(None) };
        let broken = |why: String| {
            DatabaseError::of_the_operator(format!("the checkpoint of {origin} at size {tree_size} is broken: {why}"))
        };
        let mut cosigned = Note::parse(note.as_bytes()).map_err(|error| broken(error.to_string()))?;
        for line in lines {
            for signature in Signature::parse_lines(&line).map_err(|error| broken(error.to_string()))? {
                cosigned.add(signature).map_err(|error| broken(error.to_string()))?;
            }
        }
        Ok(Some(StoredCheckpoint { tree_size: tree_size.unsigned_abs(), origin, note: cosigned }))
    }

    /// Keeps the cosignatures that these witnesses have added to a checkpoint. The checkpoint is kept already.
    pub async fn keep_cosignatures(
        &self,
        checkpoint: &SignedCheckpoint,
        witnesses: &[WitnessVerifierKey],
    ) -> Result<(), DatabaseError> {
        let added: Vec<&Signature> = checkpoint
            .note()
            .signatures()
            .iter()
            .filter(|line| witnesses.iter().any(|key| line.name() == key.name() && line.id() == key.id()))
            .collect();
        self.0
            .run("keeping cosignatures", async |connection| {
                sqlx::query(
                    "insert into ledger.cosignature (origin, tree_size, witness, line)
                select $1, $2, witness, line from unnest($3::text[], $4::text[]) as new (witness, line)
                on conflict do nothing",
                )
                .bind(checkpoint.checkpoint().origin().as_str())
                .bind(i64::try_from(checkpoint.head().size).expect("a size of our own tree fits"))
                .bind(added.iter().map(|line| line.name().as_str()).collect::<Vec<_>>())
                .bind(added.iter().map(ToString::to_string).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
                Ok(())
            })
            .await
    }

    async fn read_leaves(&self, first: u64, count: u64) -> Result<(Vec<LoggedEntry>, Option<i64>), DatabaseError> {
        let bound = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        let range = (bound(first), bound(first.saturating_add(count)));
        let reading = self.0.run("reading leaves", async |connection| {
            sqlx::query_as(LEAVES).bind(range.0).bind(range.1).fetch_all(connection).await
        });
        let entries: Vec<LoggedEntry> = reading.await?;
        let begins_at = if entries.len() as u64 == count { None } else { Some(self.begins_at().await?) };
        Ok((entries, begins_at))
    }

    /// The index of the first leaf that is there.
    async fn begins_at(&self) -> Result<i64, DatabaseError> {
        let reading = self.0.run("looking for the first leaf", async |connection| {
            sqlx::query_scalar("select min(first_leaf) from ledger.batch").fetch_one(connection).await
        });
        let begins_at: Option<i64> = reading.await?;
        Ok(begins_at.unwrap_or(0))
    }

    /// Why hashes or leaves from `first` on are not all there.
    fn missing(first: u64, begins_at: i64) -> Unread {
        match u64::try_from(begins_at) {
            Ok(begins_at) if begins_at > first => Unread::Removed { begins_at },
            _ => Unread::Broken(format!("of what begins at index {first}, a part is missing")),
        }
    }
}

fn unread(error: &DatabaseError) -> Unread {
    if error.is_absence() { Unread::Away(error.to_string()) } else { Unread::Broken(error.to_string()) }
}

impl StoredTree for LogStore {
    async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, Unread> {
        let hashes = LogStore::hashes(self, ranges).await.map_err(|error| unread(&error))?;
        if let Some(range) = ranges.iter().find(|range| hashes.of_range(range).is_err()) {
            // Only leaves are ever removed: the subtrees above them stay.
            let begins_at = if range.level == 0 { self.begins_at().await.map_err(|error| unread(&error))? } else { 0 };
            return Err(Self::missing(range.first, begins_at));
        }
        Ok(hashes)
    }

    async fn leaves(&self, first: u64, count: u64) -> Result<Vec<Vec<u8>>, Unread> {
        let reading = self.read_leaves(first, count);
        let (entries, begins_at) = reading.await.map_err(|error| unread(&error))?;
        if let Some(begins_at) = begins_at {
            return Err(Self::missing(first, begins_at));
        }
        let leaves = entries.iter().map(|entry| entry.leaf().map_err(|error| Unread::Broken(error.to_string())));
        leaves.collect()
    }
}

impl StoredTree for std::sync::Arc<LogStore> {
    async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, Unread> {
        StoredTree::hashes(&**self, ranges).await
    }

    async fn leaves(&self, first: u64, count: u64) -> Result<Vec<Vec<u8>>, Unread> {
        StoredTree::leaves(&**self, first, count).await
    }
}
