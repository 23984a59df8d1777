//! The statement that writes the table of runs: when the ledger was checked, and what was found.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use serde_json::Value;
use std::time::Duration;

/// A run of `ledgerd verify` or `ledgerd reconcile` that came to an end.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command.
    pub what: &'static str,
    pub scope: Scope,
    pub took: Duration,
    /// Leaves, sequences or rows that were looked at.
    pub entries: u64,
    pub findings: u64,
    /// What was found, in short: the database takes 16 KiB.
    pub summary: Value,
}

/// How much a run looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Whole,
    /// What no earlier run had proven.
    New,
    /// The specification's hash over a time range.
    Range,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::New => "new",
            Self::Range => "range",
        }
    }
}

/// Writes the run down. The database's clock says when it was.
pub async fn record(connections: &Connections, run: &Run) -> Result<(), DatabaseError> {
    connections
        .run("recording the run", async |connection| {
            sqlx::query(
                "insert into ledger.run (what, scope, started_at, ended_at, entries, findings, summary, program_version)
                select $1, $2, now - make_interval(secs => $3), now, $4, $5, $6::text::jsonb, $7
                from clock_timestamp() as now",
            )
            .bind(run.what)
            .bind(run.scope.name())
            .bind(run.took.as_secs_f64())
            .bind(i64::try_from(run.entries).unwrap_or(i64::MAX))
            .bind(i64::try_from(run.findings).unwrap_or(i64::MAX))
            .bind(run.summary.to_string())
            .bind(env!("CARGO_PKG_VERSION"))
            .execute(connection)
            .await
            .map(drop)
        })
        .await
}
