//! One entry of the log with all that custody holds of it: the publisher's bytes, the headers, and where it came from.

use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use sqlx::FromRow;

/// An entry, with its bytes.
#[derive(Debug, FromRow)]
pub(crate) struct CustodyEntry {
    pub(crate) stream: String,
    pub(crate) epoch: i32,
    pub(crate) sequence: i64,
    pub(crate) subject: String,
    pub(crate) received_at: String,
    pub(crate) committed_at: String,
    pub(crate) headers: Option<Vec<u8>>,
    /// `None` where they were erased.
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) payload_sha256: String,
    pub(crate) leaf_hash: String,
}

impl Reader {
    /// The entry at a leaf. `None` where the log is shorter.
    pub(crate) async fn custody_entry(&self, leaf_index: i64) -> Result<Option<CustodyEntry>, DatabaseError> {
        self.0
            .run("reading an entry", async |connection| {
                sqlx::query_as(
                    "select epoch.stream, epoch.epoch, entry.sequence, entry.subject,
                        to_char(to_timestamp(entry.server_time_ns / 1000000000) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')
                            || '.' || lpad((entry.server_time_ns % 1000000000)::text, 9, '0') || 'Z' as received_at,
                        to_char(entry.committed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as committed_at,
                        entry.headers, entry.payload, encode(entry.payload_sha256, 'hex') as payload_sha256,
                        encode(entry.leaf_hash, 'hex') as leaf_hash
                    from ledger.entry_at($1) as entry
                    join ledger.epoch as epoch using (epoch)",
                )
                .bind(leaf_index)
                .fetch_optional(connection)
                .await
            })
            .await
    }
}
