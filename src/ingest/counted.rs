//! The statements on `ledger.counted`: the sequence up to which an epoch was counted, and the instance that counts.

use crate::ingest::positions::LanePositions;
use crate::postgres::remedy::DatabaseError;

impl LanePositions {
    /// Whether this instance is the one that counts: it owns the first of the lanes that anybody owns.
    pub async fn is_counting(&self, stream: &str) -> Result<bool, DatabaseError> {
        let owner: Option<String> = self
            .connections()
            .run("reading who counts", async |connection| {
                sqlx::query_scalar(
                    "select owner
                    from ledger.position
                    where epoch = (select max(epoch) from ledger.epoch where stream = $1) and owner is not null
                    order by lane
                    limit 1",
                )
                .bind(stream)
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(owner.as_ref() == Some(&self.instance))
    }

    /// How far every sequence of an epoch was counted.
    pub async fn counted(&self, epoch: i32) -> Result<i64, DatabaseError> {
        let through: Option<i64> = self
            .connections()
            .run("reading what was counted", async |connection| {
                sqlx::query_scalar("select through from ledger.counted where epoch = $1")
                    .bind(epoch)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        Ok(through.unwrap_or(0))
    }

    /// Keeps how far every sequence of an epoch was counted. Another instance may have come further.
    pub async fn keep_counted(&self, epoch: i32, through: i64) -> Result<(), DatabaseError> {
        self.connections()
            .run("keeping what was counted", async |connection| {
                sqlx::query(
                    "insert into ledger.counted (epoch, through, counted_at) values ($1, $2, clock_timestamp())
                on conflict (epoch) do update set through = excluded.through, counted_at = excluded.counted_at
                where counted.through < excluded.through",
                )
                .bind(epoch)
                .bind(through)
                .execute(connection)
                .await
                .map(drop)
            })
            .await
    }
}
