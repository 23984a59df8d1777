//! The signed checkpoints: the newest of each name of the log, their witnesses, and what is not signed yet.

use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The newest checkpoint of one name of the log.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct NewestCheckpoint {
    /// The log's name.
    pub origin: String,
    pub tree_size: i64,
    /// In hexadecimal.
    pub root: String,
    /// The signed note.
    pub note: String,
    /// ISO 8601 in UTC.
    pub signed_at: String,
    /// Since then, in seconds.
    pub ago_seconds: f64,
    /// Who cosigned it.
    pub witnesses: Vec<String>,
    /// How long the oldest entry that it does not cover has been committed, in seconds; null: it covers all.
    pub unsigned_seconds: Option<f64>,
}

/// One for each name, the one that was signed last first. The table grows by the second, so each is found by steps in its key.
pub(crate) async fn newest(connection: &mut PgConnection) -> Result<Vec<NewestCheckpoint>, sqlx::Error> {
    sqlx::query_as(
        "with recursive name as (
            (select origin from ledger.checkpoint order by origin limit 1)
            union all
            select (select origin from ledger.checkpoint as next where next.origin > name.origin order by origin limit 1)
            from name
            where name.origin is not null
        )
        select newest.origin, newest.tree_size, encode(newest.root, 'hex') as root, newest.note,
            to_char(newest.signed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as signed_at,
            extract(epoch from clock_timestamp() - newest.signed_at)::double precision as ago_seconds,
            array(
                select distinct witness
                from ledger.cosignature as line
                where line.origin = newest.origin and line.tree_size = newest.tree_size
                order by witness
            ) as witnesses,
            (
                select extract(epoch from clock_timestamp() - batch.committed_at)::double precision
                from ledger.batch as batch
                where batch.first_leaf = (select max(first_leaf) from ledger.batch where first_leaf <= newest.tree_size)
                    and newest.tree_size < batch.first_leaf + batch.leaves
            ) as unsigned_seconds
        from name
        cross join lateral (
            select * from ledger.checkpoint as its where its.origin = name.origin order by tree_size desc limit 1
        ) as newest
        order by newest.signed_at desc",
    )
    .fetch_all(connection)
    .await
}
