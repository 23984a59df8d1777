//! What can be trusted of the ledger: its checkpoints and witnesses, its runs of verification, what was removed and by whose word.

use crate::config::Config;
use crate::ingest::positions::{self, GAPS_SHOWN_MAX, Gap};
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::query::checkpoints::{self, NewestCheckpoint};
use crate::query::facts::{Extent, extent};
use crate::query::kept_checkpoint::KeptCheckpoint;
use crate::query::runs::{self, CheckRuns};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

/// What is asked beside the state itself.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct TrustQuestion {
    /// A checkpoint that somebody kept: whether the present log contains it.
    pub checkpoint: Option<String>,
}

/// What can be trusted, as far as the database tells it.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct Trust {
    pub extent: Extent,
    /// The log's public key, where this console can read it. Compare it with your own copy.
    pub verifier_key: Option<String>,
    /// The newest of each name of the log, the one that was signed last first.
    pub checkpoints: Vec<NewestCheckpoint>,
    /// How many witnesses are configured.
    pub witnesses: usize,
    /// How soon the entries of the last 24 hours were signed, the newest last.
    pub signatures: Vec<SignedQuarter>,
    pub runs: CheckRuns,
    /// What the stream lost before it was read, the newest first.
    pub gaps: Vec<LostSequences>,
    /// The newest first.
    pub removals: Vec<Removal>,
    /// The newest first.
    pub epochs: Vec<StreamEpoch>,
    /// What became of the checkpoint that was asked about.
    pub kept: Option<KeptCheckpoint>,
}

/// A quarter of an hour, and its signature.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct SignedQuarter {
    /// ISO 8601 in UTC.
    pub ends_at: String,
    /// From its end until all that was committed by then was signed, in seconds; null: it is not signed yet.
    pub signed_after_seconds: Option<f64>,
}

/// Sequences that are lost.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct LostSequences {
    pub epoch: i32,
    pub lane: String,
    pub first_sequence: i64,
    pub last_sequence: i64,
    pub noticed_at: String,
    pub why: String,
}

/// Rows that left by rule, with what entitles to it.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct Removal {
    /// `export`: archived past their retention; `erasure`: deleted by the word of the Architect.
    pub kind: String,
    pub table_name: String,
    pub row_count: i64,
    /// ISO 8601 in UTC.
    pub at: String,
    /// The event that authorised it; null: the retention of the specification did.
    pub authorized_by: Option<String>,
    /// The event that records it.
    pub event_id: String,
    /// Where the rows are archived.
    pub location: Option<String>,
}

/// One incarnation of a stream.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct StreamEpoch {
    pub epoch: i32,
    pub stream: String,
    /// How often the stream had gone back to sequences that it had used before.
    pub regressions: i32,
    /// ISO 8601 in UTC.
    pub opened_at: String,
}

const REMOVALS_MAX: i64 = 50;
const EPOCHS_MAX: i64 = 50;

impl Reader {
    pub(crate) async fn trust(&self, config: &Config, question: &TrustQuestion) -> Result<Trust, DatabaseError> {
        let key = config.checkpoint.key().ok().flatten().map(|key| key.verifier().clone());
        let kept = match question.checkpoint.as_deref().filter(|text| !text.trim().is_empty()) {
            Some(text) => Some(self.kept_checkpoint(text, key.as_ref()).await?),
            None => None,
        };
        let gaps = positions::gaps_of_stream(&self.0, &config.nats.stream, GAPS_SHOWN_MAX).await?;
        self.0
            .run("reading what can be trusted", async |connection| {
                Ok(Trust {
                    extent: extent(connection, &config.nats.stream).await?,
                    verifier_key: key.as_ref().map(ToString::to_string),
                    checkpoints: checkpoints::newest(connection).await?,
                    witnesses: config.checkpoint.witnesses.len(),
                    signatures: signatures(connection).await?,
                    runs: runs::newest(connection).await?,
                    gaps: gaps.into_iter().map(LostSequences::from).collect(),
                    removals: removals(connection).await?,
                    epochs: epochs(connection).await?,
                    kept,
                })
            })
            .await
    }
}

impl From<Gap> for LostSequences {
    fn from(gap: Gap) -> Self {
        let Gap { epoch, lane, first_sequence, last_sequence, noticed_at, why } = gap;
        Self { epoch, lane, first_sequence, last_sequence, noticed_at, why }
    }
}

/// For the end of each quarter, the first checkpoint that covers all leaves of its time.
async fn signatures(connection: &mut PgConnection) -> Result<Vec<SignedQuarter>, sqlx::Error> {
    sqlx::query_as(
        "with
        quarter as materialized (
            select date_bin('15 minutes', clock_timestamp(), 'epoch') + step * interval '15 minutes' as at
            from generate_series(-95, 0) as step
        ),
        oldest as materialized (select ledger.leaf_at(min(at)) as leaf from quarter)
        select to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as ends_at,
            greatest(extract(epoch from covering.signed_at - at), 0)::double precision as signed_after_seconds
        from quarter
        cross join oldest
        cross join lateral (select ledger.leaf_at(at, oldest.leaf) as size) as tree
        left join lateral (
            select signed_at from ledger.checkpoint where tree_size >= tree.size order by tree_size limit 1
        ) as covering on true
        where tree.size > 0
        order by at",
    )
    .fetch_all(connection)
    .await
}

async fn removals(connection: &mut PgConnection) -> Result<Vec<Removal>, sqlx::Error> {
    sqlx::query_as(
        "select kind, table_name, row_count, to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as at,
            authorized_by, event_id, location
        from (
            (
                select 'export' as kind, table_name, row_count, exported_at as at, null as authorized_by, event_id, location
                from ledger.export order by id desc limit $1
            )
            union all
            (
                select 'erasure', table_name, row_count, erased_at, authorized_by, event_id, null
                from ledger.erasure order by id desc limit $1
            )
        ) as removal
        order by removal.at desc
        limit $1",
    )
    .bind(REMOVALS_MAX)
    .fetch_all(connection)
    .await
}

async fn epochs(connection: &mut PgConnection) -> Result<Vec<StreamEpoch>, sqlx::Error> {
    sqlx::query_as(
        "select epoch, stream, regressions, to_char(opened_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as opened_at
        from ledger.epoch
        order by epoch desc
        limit $1",
    )
    .bind(EPOCHS_MAX)
    .fetch_all(connection)
    .await
}
