//! What the database and the stream say of the ledger's state, before anything is made of it.

use crate::query::checkpoints::NewestCheckpoint;
use crate::query::lanes::LaneState;
use crate::query::runs::CheckRuns;
use crate::query::spending::Spending;
use crate::query::stream::StreamAnswer;
use crate::query::troubles::Troubles;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// How much there is.
#[derive(Clone, Debug, Default, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct Extent {
    /// Messages in custody.
    pub entries: i64,
    /// Since the first commit, in seconds; null: there is none.
    pub oldest_seconds: Option<f64>,
    /// Since the newest commit.
    pub newest_seconds: Option<f64>,
    /// Since the daemon last found every passed sequence of the stream in custody; null: it has not counted yet.
    pub counted_seconds: Option<f64>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) extent: Extent,
    pub(crate) lanes: Vec<LaneState>,
    pub(crate) stream: StreamAnswer,
    pub(crate) spending: Vec<Spending>,
    pub(crate) checkpoint: Option<NewestCheckpoint>,
    pub(crate) runs: CheckRuns,
    pub(crate) troubles: Troubles,
}

pub(crate) async fn extent(connection: &mut PgConnection, stream: &str) -> Result<Extent, sqlx::Error> {
    sqlx::query_as(
        "select size as entries,
            (
                select extract(epoch from clock_timestamp() - committed_at)::double precision
                from ledger.batch order by first_leaf limit 1
            ) as oldest_seconds,
            (
                select extract(epoch from clock_timestamp() - committed_at)::double precision
                from ledger.batch order by first_leaf desc limit 1
            ) as newest_seconds,
            (
                select extract(epoch from clock_timestamp() - counted_at)::double precision
                from ledger.counted
                where epoch = (select max(epoch) from ledger.epoch where stream = $1)
            ) as counted_seconds
        from ledger.tree_head",
    )
    .bind(stream)
    .fetch_optional(connection)
    .await
    .map(Option::unwrap_or_default)
}
