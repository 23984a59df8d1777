//! The statements on `ledger.export`, `ledger.removal` and the two tables whose rows expire. The database itself checks
//! that a removal is permitted (migration 7).

use crate::postgres::connections::{Connections, Lease};
use crate::postgres::remedy::DatabaseError;
use crate::record::digest::sha256;
use crate::retention::file::{Contents, Intact, Packed, Packer, Perishable, ROWS_MAX};
use crate::retention::removal::{ArchivedFiles, Export, ExportRecords, FailureCause, RetentionError};
use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{Executor as _, PgConnection, Row as _};
use std::time::Duration;
use tokio::time::timeout;

/// What the role of `ledgerd retention` may do beyond the daemon's role, whose grants it needs too: it records events.
pub const GRANTS: &str = "
    grant insert on ledger.export, ledger.erasure, ledger.removal, ledger.erased to {role};
    grant update (settled_at, rows_removed) on ledger.export to {role};
    grant update (payloads, headers, erased) on ledger.batch to {role};
    grant delete on public.token_ledger, public.economic_metrics, public.audit_events, public.decision_trails to {role};
";

/// Reading a large table takes longer than a statement of the daemon.
const STATEMENT: Duration = Duration::from_mins(10);
/// As the client sees it: a server that does not answer at all.
const CONVERSATION: Duration = Duration::from_mins(11);
/// Rows that one statement removes.
const PAGE: usize = 1000;
/// "ledgerd", and a number of its own: whoever holds this lock is the one who removes.
const LOCK: (i32, i32) = (0x6c65_6467, 7);

impl From<DatabaseError> for RetentionError {
    fn from(error: DatabaseError) -> Self {
        let cause = match (error.is_refusal(), error.is_absence()) {
            (true, _) => FailureCause::Refused,
            (_, true) => FailureCause::Away,
            _ => FailureCause::Failed,
        };
        RetentionError::new(cause, format!("PostgreSQL: {error}"))
    }
}

/// A connection that alone removes rows, for as long as it is open.
#[derive(Debug)]
pub struct RetentionSession<'a> {
    lease: Lease<'a>,
}

/// What stands to be exported from a table.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Rows that may leave.
    pub rows: i64,
    /// Bytes of their lines.
    pub bytes: i64,
    /// The earliest day or moment.
    pub oldest: Option<String>,
    pub newest: Option<String>,
}

pub(crate) async fn bounded<T>(
    doing: &str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, RetentionError> {
    match timeout(CONVERSATION, work).await {
        Ok(done) => done.map_err(|error| DatabaseError::new(error).into()),
        Err(_) => Err(DatabaseError::silent(doing, CONVERSATION).into()),
    }
}

impl<'a> RetentionSession<'a> {
    /// Opens a session for looking.
    pub async fn look(connections: &'a Connections) -> Result<Self, RetentionError> {
        let mut lease = connections.lease().await?;
        let longer = format!("{}ms", STATEMENT.as_millis());
        let set = sqlx::query(
            // Compiling these statements would take longer than running them.
            "select set_config('statement_timeout', $1, false), set_config('idle_in_transaction_session_timeout', $1, false),
                set_config('jit', 'off', false)",
        );
        bounded("preparing a session", set.bind(longer).execute(&mut *lease)).await?;
        Ok(Self { lease })
    }

    /// Opens the session that removes. There is one at a time.
    pub async fn open(connections: &'a Connections) -> Result<Self, RetentionError> {
        let mut session = Self::look(connections).await?;
        let locking = sqlx::query_scalar("select pg_try_advisory_lock($1, $2)").bind(LOCK.0).bind(LOCK.1);
        let is_alone: bool = bounded("taking the lock", locking.fetch_one(session.connection())).await?;
        if is_alone {
            return Ok(session);
        }
        Err(RetentionError::new(FailureCause::Failed, "another `ledgerd retention` is at work on this database"))
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.lease
    }

    /// What tells this ledger from others, for ever: the beginning of its first leaf's hash.
    pub async fn ledger(&mut self) -> Result<String, RetentionError> {
        let first =
            sqlx::query_scalar("select left(encode(leaf_hashes[1], 'hex'), 16) from ledger.batch where first_leaf = 0");
        let found: Option<String> = bounded("reading the first leaf", first.fetch_optional(self.connection())).await?;
        found.ok_or_else(|| RetentionError::new(FailureCause::Refused, "the ledger is empty: run `ledgerd migrate`"))
    }

    /// The UTC day, `YYYY-MM-DD`, that is so many days ago.
    pub async fn cutoff(&mut self, days: i32) -> Result<String, RetentionError> {
        let asking = sqlx::query_scalar("select ((current_timestamp at time zone 'UTC')::date - $1)::text").bind(days);
        bounded("asking for the day", asking.fetch_one(self.connection())).await
    }

    /// Looks at what is from before the day, and may leave.
    pub async fn survey(&mut self, table: Perishable, cutoff: &str) -> Result<Survey, RetentionError> {
        let question = match table {
            Perishable::TokenLedger => {
                "select count(*), coalesce(sum(octet_length(row_to_json(day)::text) + 1), 0)::bigint,
                    min(day.date)::text, max(day.date)::text
                from public.token_ledger as day
                where day.date < $1::date"
            }
            Perishable::EconomicMetrics => {
                "select count(*), coalesce(sum(octet_length(row_to_json(metric)::text) + 1), 0)::bigint,
                    min(metric.created_at)::text, max(metric.created_at)::text
                from ledger.removable_metrics($1::date) as metric"
            }
        };
        let asking = sqlx::query_as(question).bind(cutoff).fetch_one(self.connection());
        let (rows, bytes, oldest, newest) = bounded("looking at what is past its time", asking).await?;
        Ok(Survey { rows, bytes, oldest, newest })
    }

    /// Packs rows from before the day, as many as fit into one file. They stream by: memory holds the file alone.
    pub async fn pack(
        &mut self,
        table: Perishable,
        cutoff: &str,
        mut tell: impl FnMut(i64),
    ) -> Result<Option<Packed>, RetentionError> {
        let question = match table {
            Perishable::TokenLedger => {
                "select agent_name || '/' || date as key, date::text as time, row_to_json(day)::text as line
                from public.token_ledger as day
                where date < $1::date
                order by date, agent_name
                limit $2"
            }
            Perishable::EconomicMetrics => {
                "select id::text as key, created_at::text as time, row_to_json(metric)::text as line
                from ledger.removable_metrics($1::date) as metric
                order by id
                limit $2"
            }
        };
        let mut packer = Packer::new(table, cutoff);
        let packing = async {
            let asking = sqlx::query_as::<_, (String, String, String)>(question).bind(cutoff).bind(ROWS_MAX);
            let mut rows = asking.fetch(self.connection());
            let mut number = 0;
            while let Some((key, time, line)) = rows.try_next().await? {
                packer.push(key, time, &line);
                number += 1;
                tell(number);
                if packer.is_full() {
                    break;
                }
            }
            Ok(())
        };
        bounded("reading what is past its time", packing).await?;
        Ok(packer.finish())
    }

    /// The exports that are not settled, in their order.
    pub async fn unsettled(&mut self) -> Result<Vec<Export>, RetentionError> {
        let asking = sqlx::query(
            "select id, table_name, cutoff::text as cutoff, row_count, first_key, last_key, oldest, newest, location, file,
                file_bytes, file_sha256, lines_bytes, lines_sha256, manifest, manifest_sha256, event_id,
                (extract(epoch from exported_at) * 1000000)::bigint as exported_at_us
            from ledger.export
            where settled_at is null
            order by id",
        );
        let rows = bounded("looking for unsettled exports", asking.fetch_all(self.connection())).await?;
        let entered: Result<Vec<_>, sqlx::Error> = rows.iter().map(entered).collect();
        entered.map_err(|error| DatabaseError::new(error).into())
    }
}

fn entered(row: &PgRow) -> Result<Export, sqlx::Error> {
    let hash = |column: &str| {
        let bytes: Vec<u8> = row.try_get(column)?;
        bytes.try_into().map_err(|_| sqlx::Error::ColumnDecode { index: column.to_owned(), source: "32 bytes".into() })
    };
    let table: String = row.try_get("table_name")?;
    Ok(Export {
        id: row.try_get("id")?,
        place: ArchivedFiles {
            location: row.try_get("location")?,
            file: row.try_get("file")?,
            manifest: row.try_get("manifest")?,
            manifest_sha256: hash("manifest_sha256")?,
        },
        contents: Contents {
            table: Perishable::named(&table)
                .ok_or_else(|| sqlx::Error::ColumnDecode { index: "table_name".to_owned(), source: table.into() })?,
            cutoff: row.try_get("cutoff")?,
            rows: row.try_get("row_count")?,
            first: row.try_get("first_key")?,
            last: row.try_get("last_key")?,
            oldest: row.try_get("oldest")?,
            newest: row.try_get("newest")?,
            lines_bytes: row.try_get("lines_bytes")?,
            lines_sha256: hash("lines_sha256")?,
            file_bytes: row.try_get("file_bytes")?,
            file_sha256: hash("file_sha256")?,
        },
        event_id: row.try_get("event_id")?,
        exported_at_us: row.try_get("exported_at_us")?,
    })
}

impl ExportRecords for RetentionSession<'_> {
    async fn enter(&mut self, place: &ArchivedFiles, contents: &Contents) -> Result<Export, RetentionError> {
        let entering = sqlx::query_as(
            "insert into ledger.export
                (table_name, cutoff, row_count, first_key, last_key, oldest, newest, location, file, file_bytes, file_sha256,
                lines_bytes, lines_sha256, manifest, manifest_sha256, event_id)
            values ($1, $2::date, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, ledger.unused_event_id())
            returning id, event_id, (extract(epoch from exported_at) * 1000000)::bigint",
        )
        .bind(contents.table.name())
        .bind(&contents.cutoff)
        .bind(contents.rows)
        .bind(&contents.first)
        .bind(&contents.last)
        .bind(&contents.oldest)
        .bind(&contents.newest)
        .bind(&place.location)
        .bind(&place.file)
        .bind(contents.file_bytes)
        .bind(&contents.file_sha256[..])
        .bind(contents.lines_bytes)
        .bind(&contents.lines_sha256[..])
        .bind(&place.manifest)
        .bind(&place.manifest_sha256[..])
        .fetch_one(self.connection());
        let (id, event_id, exported_at_us) = bounded("entering an export", entering).await?;
        Ok(Export { id, place: place.clone(), contents: contents.clone(), event_id, exported_at_us })
    }

    async fn remove(&mut self, entered: &Export, rows: &Intact) -> Result<i64, RetentionError> {
        let failed = |what: &dyn std::fmt::Display| {
            RetentionError::new(FailureCause::Failed, format!("export {}: {what}", entered.id))
        };
        begin(self.connection()).await?;
        let mut lines = rows.lines();
        let mut expected = 0;
        loop {
            let page: Result<Vec<String>, _> = lines.by_ref().take(PAGE).collect();
            let page = page.map_err(|error| failed(&error))?;
            if page.is_empty() {
                break;
            }
            let entering = enter_removals(self.connection(), entered, &page);
            expected += bounded("entering removals", entering).await?;
        }
        let table = entered.contents.table;
        let deleting = sqlx::query(delete_entered(table)).bind(entered.id).execute(self.connection());
        let removed = bounded("removing rows", deleting).await?.rows_affected();
        if removed != expected {
            let what = format!("{removed} rows of {} left instead of {expected}: nothing is removed", table.name());
            bounded("rolling back", self.connection().execute("rollback")).await?;
            return Err(failed(&what));
        }
        let removed = i64::try_from(removed).unwrap_or(i64::MAX);
        settle(self.connection(), entered.id, removed).await?;
        commit(self.connection()).await?;
        Ok(removed)
    }

    async fn is_recorded(&mut self, entered: &Export) -> Result<bool, RetentionError> {
        let asking = sqlx::query_scalar("select ledger.is_recorded($1)").bind(entered.id);
        bounded("looking for the audit event", asking.fetch_one(self.connection())).await
    }

    async fn give_up(&mut self, entered: &Export) -> Result<(), RetentionError> {
        settle(self.connection(), entered.id, 0).await
    }
}

pub(crate) async fn begin(connection: &mut PgConnection) -> Result<(), RetentionError> {
    bounded("beginning", connection.execute("begin isolation level read committed")).await.map(drop)
}

/// A timeout would end the wait for a synchronous standby and let the commit pass as if it had been there.
pub(crate) async fn commit(connection: &mut PgConnection) -> Result<(), RetentionError> {
    bounded("committing", sqlx::raw_sql("set local statement_timeout to 0; commit").execute(connection)).await.map(drop)
}

async fn settle(connection: &mut PgConnection, id: i64, removed: i64) -> Result<(), RetentionError> {
    let settling =
        sqlx::query("update ledger.export set settled_at = clock_timestamp(), rows_removed = $2 where id = $1")
            .bind(id)
            .bind(removed);
    bounded("settling an export", settling.execute(connection)).await.map(drop)
}

/// Enters the removal of those rows that are still exactly as their lines say. A row that usage has changed since, or that is
/// not there, is left out. Locked, so that none changes until the end of the transaction; metrics never change.
async fn enter_removals(connection: &mut PgConnection, entered: &Export, lines: &[String]) -> Result<u64, sqlx::Error> {
    let statement = match entered.contents.table {
        Perishable::TokenLedger => {
            "with unchanged as (
                select day.*, archived.line_sha256
                from unnest($2::text[], $3::bytea[]) as archived (line, line_sha256)
                join public.token_ledger as day
                    on day.agent_name = archived.line::json ->> 'agent_name' and day.date = (archived.line::json ->> 'date')::date
                where row_to_json(day)::text = archived.line
                for update of day
            )
            insert into ledger.removal (table_name, row_key, export_id, line_sha256, tokens_input, tokens_output, exact_cost)
            select 'token_ledger', agent_name || '/' || date, $1, line_sha256, coalesce(total_tokens_input, 0),
                coalesce(total_tokens_output, 0), exact_cost
            from unchanged"
        }
        Perishable::EconomicMetrics => {
            "insert into ledger.removal (table_name, row_key, export_id, line_sha256)
            select 'economic_metrics', metric.id, $1, archived.line_sha256
            from unnest($2::text[], $3::bytea[]) as archived (line, line_sha256)
            join public.economic_metrics as metric on metric.id = (archived.line::json ->> 'id')::bigint
            where row_to_json(metric)::text = archived.line"
        }
    };
    let hashes: Vec<Vec<u8>> = lines.iter().map(|line| sha256(line.as_bytes()).to_vec()).collect();
    let done = sqlx::query(statement).bind(entered.id).bind(lines).bind(hashes).execute(connection).await?;
    Ok(done.rows_affected())
}

fn delete_entered(table: Perishable) -> &'static str {
    match table {
        Perishable::TokenLedger => {
            "delete from public.token_ledger as day
            using ledger.removal
            where removal.export_id = $1 and removal.table_name = 'token_ledger' and removal.removed_at = current_timestamp
                and day.agent_name = left(removal.row_key, -11) and day.date = right(removal.row_key, 10)::date"
        }
        Perishable::EconomicMetrics => {
            "delete from public.economic_metrics as metric
            using ledger.removal
            where removal.export_id = $1 and removal.table_name = 'economic_metrics'
                and removal.removed_at = current_timestamp
                and metric.id = removal.row_key::bigint"
        }
    }
}
