//! The newest runs of `ledgerd verify` and `ledgerd reconcile`: when the ledger was last checked, and what was found.

use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;

/// A run that came to an end.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct CheckRun {
    /// `whole`: everything; `new`: what no earlier run had proven.
    pub scope: String,
    /// ISO 8601 in UTC.
    pub ended_at: String,
    /// Since then, in seconds.
    pub ago_seconds: f64,
    pub took_seconds: f64,
    /// Leaves or sequences that were looked at.
    pub entries: i64,
    /// How many differences there were.
    pub findings: i64,
    /// What was found, in short.
    pub summary: Value,
    pub program_version: String,
    /// The login that the database saw.
    pub by_role: String,
}

/// The newest run of each kind.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct CheckRuns {
    /// Of `ledgerd verify`, of the whole ledger.
    pub verify: Option<CheckRun>,
    /// Of `ledgerd reconcile`, of whatever scope.
    pub reconcile: Option<CheckRun>,
}

#[derive(sqlx::FromRow)]
struct Row {
    scope: String,
    ended_at: String,
    ago_seconds: f64,
    took_seconds: f64,
    entries: i64,
    findings: i64,
    summary: Json<Value>,
    program_version: String,
    by_role: String,
}

/// Reads them.
pub(crate) async fn newest(connection: &mut PgConnection) -> Result<CheckRuns, sqlx::Error> {
    let verify = newest_of(connection, "verify", &["whole"]).await?;
    let reconcile = newest_of(connection, "reconcile", &["whole", "new"]).await?;
    Ok(CheckRuns { verify, reconcile })
}

async fn newest_of(
    connection: &mut PgConnection,
    what: &str,
    scopes: &[&str],
) -> Result<Option<CheckRun>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "select newest.scope, to_char(ended_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as ended_at,
            extract(epoch from clock_timestamp() - newest.ended_at)::double precision as ago_seconds,
            extract(epoch from newest.ended_at - started_at)::double precision as took_seconds,
            entries, findings, summary, program_version, by_role
        from unnest($2::text[]) as wanted (scope)
        cross join lateral (
            select *
            from ledger.run
            where what = $1 and run.scope = wanted.scope
            order by id desc
            limit 1
        ) as newest
        order by newest.id desc
        limit 1",
    )
    .bind(what)
    .bind(scopes)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| CheckRun {
        scope: row.scope,
        ended_at: row.ended_at,
        ago_seconds: row.ago_seconds,
        took_seconds: row.took_seconds,
        entries: row.entries,
        findings: row.findings,
        summary: row.summary.0,
        program_version: row.program_version,
        by_role: row.by_role,
    }))
}
