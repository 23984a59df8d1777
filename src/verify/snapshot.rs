//! A consistent snapshot of the whole ledger. Long reads use several sessions that share one PostgreSQL snapshot, so
//! that the daemon can continue to write.

mod batches;
mod checkpoints;
mod custody;
mod pages;
mod repair;
mod resolutions;
mod single;
mod table_checks;
mod time_range;

pub use repair::{RepairContext, repair};
pub use single::{SingleEntry, single_entry};
pub use table_checks::ClaimedRows;
pub use time_range::{HashedEvent, hashed_events};

use self::pages::PAGE_BATCHES;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::message::Incarnation;
use crate::record::own_streams::{ERASURES, EXPORTS};
use crate::record::table::Table;
use crate::verify::checkpoint::Signer;
use crate::verify::entry::Background;
use crate::verify::fingerprint::Key;
use crate::verify::rates::{Rate, Rates};
use crate::verify::removal::{Authorities, Named, RemovalEvent};
use crate::verify::stored::{EpochRow, Epochs, HeadRow};
use parking_lot::Mutex;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tlog::cosignature::WitnessVerifierKey;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// One answer of the server: much longer than any takes, and short enough to notice one that is frozen.
const ANSWER_MAX: Duration = Duration::from_mins(30);

/// The ledger at one moment.
#[derive(Debug)]
pub struct Snapshot {
    readers: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
    jobs: usize,
    /// How many batches the next page may have.
    page_batches: AtomicUsize,
    shape: Shape,
    /// Whose signature a checkpoint must have.
    signer: Signer,
    /// Whose cosignatures can be verified.
    witnesses: Vec<WitnessVerifierKey>,
}

/// What this database has beyond the plainest.
#[derive(Clone, Copy, Debug)]
struct Shape {
    retention: bool,
    checkpoints: bool,
    /// Decisions about dead letters.
    resolutions: bool,
    /// The table itself, or the daemon's view of it where the role may not look past its policies.
    tool_usage: &'static str,
}

impl Shape {
    /// Where the rows of a table's records are read.
    fn stored_in(&self, table: Table) -> &'static str {
        if table == Table::ToolUsageLedger { self.tool_usage } else { table.rows().stored_in }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub entries: u64,
    /// One more than the last leaf that is not far beyond all others.
    pub end: i64,
}

/// The tables without which there is no ledger to look at.
const NEEDED: [&str; 13] = [
    "ledger.epoch",
    "ledger.batch",
    "ledger.erased",
    "ledger.dead_letter",
    "ledger.subtree",
    "ledger.tree_head",
    "ledger.token_usage",
    "ledger.tool_usage",
    "ledger.known_venture",
    "public.audit_events",
    "public.token_ledger",
    "public.decision_trails",
    "public.economic_metrics",
];

/// Which of the tables that every ledger has are not there.
pub async fn missing_tables(connections: &Connections) -> Result<Vec<String>, DatabaseError> {
    connections
        .run("looking for the tables", async |connection| {
            let query = "select name from unnest($1::text[]) as name where to_regclass(name) is null";
            sqlx::query_scalar(query).bind(&NEEDED[..]).fetch_all(connection).await
        })
        .await
}

impl Snapshot {
    /// Opens at most so many sessions on one snapshot. A standby exports none, and has one session.
    pub async fn open(connections: &Connections, jobs: usize) -> Result<Self, DatabaseError> {
        let mut first = begin(connections, None).await?;
        let exported = "select case when not pg_is_in_recovery() then pg_export_snapshot() end";
        let name: Option<String> =
            if jobs > 1 { answer(sqlx::query_scalar(exported).fetch_one(&mut first)).await? } else { None };
        let shape = shape(&mut first).await?;
        let mut readers = vec![first];
        if let Some(name) = name {
            while readers.len() < jobs {
                readers.push(begin(connections, Some(&name)).await?);
            }
        }
        let jobs = readers.len();
        let (permits, page_batches) = (Semaphore::new(jobs), AtomicUsize::new(PAGE_BATCHES));
        let (signer, witnesses) = (Signer::UNKNOWN, Vec::new());
        Ok(Self { readers: Mutex::new(readers), permits, jobs, page_batches, shape, signer, witnesses })
    }

    /// From now on, checkpoints and cosignatures must be by these keys.
    #[must_use]
    pub fn with_keys(self, signer: Signer, witnesses: Vec<WitnessVerifierKey>) -> Self {
        Self { signer, witnesses, ..self }
    }

    /// How many sessions there are.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Lends a session. One whose conversation broke off is not given back.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let reader = self.readers.lock().pop();
        let mut reader = reader.ok_or_else(|| DatabaseError::of_the_world("the session broke off".to_owned()))?;
        let result = work(&mut reader).await?;
        self.readers.lock().push(reader);
        Ok(result)
    }

    /// The tree's head; nothing where its row is gone.
    pub async fn head(&self) -> Result<Option<HeadRow>, DatabaseError> {
        let query = "select size, root, frontier from ledger.tree_head order by only_row desc limit 1";
        let row = self.with(async |reader| answer(sqlx::query(query).fetch_optional(reader)).await).await?;
        let read = |row: PgRow| Ok(HeadRow { size: row.try_get(0)?, root: row.try_get(1)?, frontier: row.try_get(2)? });
        row.map(read).transpose().map_err(DatabaseError::new)
    }

    /// Where the leaves are. One that is far beyond all others would make the way to it endless.
    pub async fn extent(&self) -> Result<Extent, DatabaseError> {
        let query = "select coalesce(sum(leaves), 0)::bigint,
                least(coalesce(max(first_leaf + leaves), 0), 2 * coalesce(sum(leaves), 0)::bigint + 100000)
            from ledger.batch";
        let (entries, end): (i64, i64) =
            self.with(async |reader| answer(sqlx::query_as(query).fetch_one(reader)).await).await?;
        Ok(Extent { entries: u64::try_from(entries).unwrap_or(0), end })
    }

    /// What every entry is looked at with.
    pub async fn background(&self) -> Result<Background, DatabaseError> {
        Ok(Background {
            epochs: self.epochs().await?,
            rates: self.with(rates).await?,
            authorities: self.authorities().await?,
            key: Key::default(),
        })
    }

    async fn epochs(&self) -> Result<Epochs, DatabaseError> {
        let query = "select epoch, stream, stream_created_ns, regressions from ledger.epoch";
        let rows: Vec<(i32, String, i64, i32)> =
            self.with(async |reader| answer(sqlx::query_as(query).fetch_all(reader)).await).await?;
        let epoch = |(number, stream, created_ns, regressions): (i32, String, i64, i32)| {
            (number, EpochRow { incarnation: Incarnation { stream: Arc::from(stream), created_ns }, regressions })
        };
        Ok(rows.into_iter().map(epoch).collect())
    }

    async fn authorities(&self) -> Result<Authorities, DatabaseError> {
        if !self.shape.retention {
            return Ok(Authorities::default());
        }
        let exports = named("export", EXPORTS, "null::text");
        let erasures = named("erasure", ERASURES, "it.authorized_by");
        let read = async |query: String| {
            let rows =
                self.with(async |reader| answer(sqlx::query(AssertSqlSafe(query)).fetch_all(reader)).await).await?;
            rows.iter().map(read_named).collect::<Result<Vec<_>, _>>().map_err(DatabaseError::new)
        };
        Ok(Authorities::new(read(exports).await?, read(erasures).await?))
    }
}

/// All rates that usage may have been charged by.
async fn rates(reader: &mut PgConnection) -> Result<Rates, DatabaseError> {
    Ok(read_rates(answer(sqlx::query_as(RATES).fetch_all(reader)).await?))
}

/// Id, key, value, moment of storing, moment of publication.
type FoundRate = (i64, String, String, Option<i64>, Option<i64>);

fn read_rates(rows: Vec<FoundRate>) -> Rates {
    let rate = |(id, key, value, created_at_us, published_ns): FoundRate| {
        let created_at_us = created_at_us.unwrap_or(i64::MAX);
        // As ledger.metric_moment has it.
        let published_ns = published_ns.unwrap_or_else(|| created_at_us.saturating_mul(1000));
        (id, Rate { key, value, published_ns, created_at_us })
    };
    rows.into_iter().map(rate).collect()
}

const RATES: &str = "
    select id, metric_key, metric_value::text,
        case when isfinite(created_at) then (extract(epoch from created_at) * 1000000)::bigint end,
        published_ns
    from public.economic_metrics
    where starts_with(metric_key, 'token_rate_')";

/// Exports or erasures with the events that they name, where custody has them, and how many rows they removed. Only an audit event
/// authorises: records of other tables may bear its id, which any agent can give to its usage.
fn named(table: &str, stream: &str, authorized_by: &str) -> String {
    format!(
        "select it.id, it.table_name, (select count(*) from ledger.removal where removal.{table}_id = it.id),
            record.subject, record.payload, authority.subject, authority.payload, to_jsonb(it)::text
        from ledger.{table} as it
        left join ledger.epoch as record_epoch on record_epoch.stream = '{stream}'
        left join lateral ledger.entry_by_sequence(record_epoch.epoch, it.id) as record
            on record.disposition = 'recorded' and record.payload is not null
        left join lateral (
            select subject, payload, disposition from ledger.entries_by_record({authorized_by})
            union all
            -- Where its row is damaged, which would have led to it, all of custody is searched.
            select subject, payload, disposition
            from ledger.entry
            where record_id = {authorized_by}
                and not exists (
                    select from ledger.entries_by_record({authorized_by}) as entry
                    where entry.disposition = 'recorded' and ledger.table_of(entry.subject) = 'audit_events'
                )
                and {authorized_by} is not null
        ) as authority
            on authority.disposition = 'recorded' and authority.payload is not null
                and ledger.table_of(authority.subject) = 'audit_events'"
    )
}

fn read_named(row: &PgRow) -> Result<Named, sqlx::Error> {
    let event = |first: usize| {
        let subject: Option<String> = row.try_get(first)?;
        subject
            .map(|subject| Ok::<_, sqlx::Error>(RemovalEvent { subject, payload: row.try_get(first + 1)? }))
            .transpose()
    };
    Ok(Named {
        id: row.try_get(0)?,
        table: row.try_get(1)?,
        removals: row.try_get(2)?,
        row: serde_json::from_str(&row.try_get::<String, _>(7)?).unwrap_or_default(),
        record: event(3)?,
        authorisation: event(5)?,
    })
}

/// A session on a snapshot of its own, or on one that another exported. No timeout ends a long read, and no policy hides a row.
async fn begin(connections: &Connections, snapshot: Option<&str>) -> Result<PgConnection, DatabaseError> {
    let mut session = connections.open().await?;
    let mut statements =
        "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set row_security = off;
        set jit = off; begin isolation level repeatable read read only"
            .to_owned();
    if let Some(name) = snapshot {
        statements.extend(["; set transaction snapshot '", name, "'"]);
    }
    answer(sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut session)).await?;
    Ok(session)
}

async fn shape(reader: &mut PgConnection) -> Result<Shape, DatabaseError> {
    let query = "select to_regclass('ledger.removal') is not null, to_regclass('ledger.checkpoint') is not null,
            to_regclass('ledger.resolution') is not null,
            to_regclass('public.tool_usage_ledger') is not null
            and has_table_privilege('public.tool_usage_ledger', 'select')
            and has_schema_privilege('public', 'usage')
            and (not row_security_active('public.tool_usage_ledger'))";
    let (retention, checkpoints, resolutions, sees_all): (bool, bool, bool, bool) =
        answer(sqlx::query_as(query).fetch_one(reader)).await?;
    let tool_usage = if sees_all { "public.tool_usage_ledger" } else { "ledger.tool_usage" };
    Ok(Shape { retention, checkpoints, resolutions, tool_usage })
}

/// Waits for the server, but not for ever.
async fn answer<T>(asking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DatabaseError> {
    match timeout(ANSWER_MAX, asking).await {
        Ok(answer) => answer.map_err(DatabaseError::new),
        Err(_) => Err(DatabaseError::silent("reading the ledger", ANSWER_MAX)),
    }
}
