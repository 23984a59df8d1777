//! Erases records of a permanent table that an audit event of the Architect names. One transaction covers the row, its
//! bytes in custody, and what is entered about both. The database itself checks the authorisation (migration 7).

use crate::retention::queries::{RetentionSession, begin, bounded, commit};
use crate::retention::removal::{FailureCause, RetentionError};
use serde::Deserialize;
use sqlx::PgConnection;

/// The word of the Architect: these records may go.
#[derive(Clone, Debug)]
pub struct Authorization {
    pub event_id: String,
    /// `audit_events` or `decision_trails`.
    pub table: Permanent,
    /// The `event_id` or `trail_id` of each.
    pub ids: Vec<String>,
    pub reason: String,
}

/// The tables that nothing leaves otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permanent {
    /// LDG-002, table 1.
    AuditEvents,
    /// LDG-002, table 3.
    DecisionTrails,
}

impl Permanent {
    /// Its name in the schema `public`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuditEvents => "audit_events",
            Self::DecisionTrails => "decision_trails",
        }
    }
}

#[derive(Deserialize)]
struct Details {
    table: Permanent,
    ids: Vec<String>,
    reason: String,
}

/// An authorisation that was carried out.
#[derive(Clone, Debug)]
pub struct Erasure {
    pub id: i64,
    pub table: String,
    pub authorized_by: String,
    pub rows: i64,
    /// The event that records it.
    pub event_id: String,
    /// When, in microseconds since 1970.
    pub erased_at_us: i64,
}

type ErasedRow = (i64, String, String, i64, String, i64);

impl From<ErasedRow> for Erasure {
    fn from((id, table, authorized_by, rows, event_id, erased_at_us): ErasedRow) -> Self {
        Self { id, table, authorized_by, rows, event_id, erased_at_us }
    }
}

impl RetentionSession<'_> {
    /// Finds the Architect's word, and reads what it says.
    pub async fn authorization(&mut self, event_id: &str) -> Result<Authorization, RetentionError> {
        let asking = sqlx::query_as::<_, (String, String, String, Option<String>)>(
            "select actor, action, outcome, details::text from public.audit_events where event_id = $1",
        );
        let asking = asking.bind(event_id).fetch_optional(self.connection());
        let found = bounded("looking for the authorising event", asking).await?;
        let no =
            |what: &str| RetentionError::new(FailureCause::Failed, format!("{event_id} authorises nothing: {what}"));
        let (actor, action, outcome, details) = found.ok_or_else(|| no("there is no such audit event"))?;
        if (actor.as_str(), action.as_str(), outcome.as_str()) != ("ARCHITECT", "DELETION_AUTHORIZED", "APPROVED") {
            return Err(no(&format!(
                "it is {action} with {outcome} by {actor}, and not DELETION_AUTHORIZED with APPROVED by ARCHITECT"
            )));
        }
        let details: Details = serde_json::from_str(details.as_deref().unwrap_or("{}"))
            .map_err(|error| no(&format!("its details must name table, ids and reason ({error})")))?;
        let Details { table, ids, reason } = details;
        Ok(Authorization { event_id: event_id.to_owned(), table, ids, reason })
    }

    /// Of the ids that are named, those that are not there.
    pub async fn missing(&mut self, authorization: &Authorization) -> Result<Vec<String>, RetentionError> {
        let question = match authorization.table {
            Permanent::AuditEvents => {
                "select id from unnest($1::text[]) as named (id)
                where not exists (select from public.audit_events where event_id = named.id)"
            }
            Permanent::DecisionTrails => {
                "select id from unnest($1::text[]) as named (id)
                where not exists (select from public.decision_trails where trail_id = named.id)"
            }
        };
        let asking = sqlx::query_scalar(question).bind(&authorization.ids);
        bounded("looking for the named records", asking.fetch_all(self.connection())).await
    }

    /// Whether an authorisation was carried out already.
    pub async fn erased(&mut self, authorized_by: &str) -> Result<Option<Erasure>, RetentionError> {
        let asking = sqlx::query_as::<_, ErasedRow>(
            "select id, table_name, authorized_by, row_count, event_id, (extract(epoch from erased_at) * 1000000)::bigint
            from ledger.erasure
            where authorized_by = $1",
        );
        let found =
            bounded("looking for an erasure", asking.bind(authorized_by).fetch_optional(self.connection())).await?;
        Ok(found.map(Erasure::from))
    }

    /// The erasures that no audit event records yet.
    pub async fn unrecorded_erasures(&mut self) -> Result<Vec<Erasure>, RetentionError> {
        let asking = sqlx::query_as::<_, ErasedRow>(
            "select id, table_name, authorized_by, row_count, event_id, (extract(epoch from erased_at) * 1000000)::bigint
            from ledger.erasure
            where not exists (select from public.audit_events as event where event.event_id = erasure.event_id)
            order by id",
        );
        let found = bounded("looking for erasures", asking.fetch_all(self.connection())).await?;
        Ok(found.into_iter().map(Erasure::from).collect())
    }

    /// Erases exactly what is named, all of it or nothing.
    pub async fn erase(&mut self, authorization: &Authorization) -> Result<Erasure, RetentionError> {
        begin(self.connection()).await?;
        let erased = bounded("erasing", erase(self.connection(), authorization)).await?;
        let rows = usize::try_from(erased.rows);
        if rows != Ok(authorization.ids.len()) {
            let what = format!("{} of {} records were there: nothing is erased", erased.rows, authorization.ids.len());
            return Err(RetentionError::new(FailureCause::Failed, what));
        }
        commit(self.connection()).await?;
        Ok(erased)
    }
}

/// Waits for the commits that have inserted into the table, and keeps others out until this transaction ends. A commit that has
/// found its record stored already, and not entered it in custody yet, would enter bytes that no erasure reaches any more.
/// Commits take their tables first, and so does this, which wants nothing else of theirs: nobody waits in a circle, and nobody for
/// longer than the session's `lock_timeout`.
async fn keep_writers_out(connection: &mut PgConnection, table: Permanent) -> Result<(), sqlx::Error> {
    let lock = match table {
        Permanent::AuditEvents => "lock table public.audit_events in share row exclusive mode",
        Permanent::DecisionTrails => "lock table public.decision_trails in share row exclusive mode",
    };
    sqlx::raw_sql(lock).execute(connection).await.map(drop)
}

async fn erase(connection: &mut PgConnection, authorization: &Authorization) -> Result<Erasure, sqlx::Error> {
    keep_writers_out(&mut *connection, authorization.table).await?;
    let erased: ErasedRow = sqlx::query_as(
        "insert into ledger.erasure (table_name, authorized_by, row_count, event_id)
        values ($1, $2, $3, ledger.unused_event_id())
        returning id, table_name, authorized_by, row_count, event_id, (extract(epoch from erased_at) * 1000000)::bigint",
    )
    .bind(authorization.table.name())
    .bind(&authorization.event_id)
    .bind(i64::try_from(authorization.ids.len()).unwrap_or(i64::MAX))
    .fetch_one(&mut *connection)
    .await?;
    let mut erased = Erasure::from(erased);
    let (entering, deleting) = match authorization.table {
        Permanent::AuditEvents => (
            "insert into ledger.removal (table_name, row_key, erasure_id, leaf_index)
            select 'audit_events', event.event_id, $1, entry.leaf_index
            from public.audit_events as event
            left join lateral ledger.entry_of_row('audit_events', event.id) as entry
                on entry.record_id = event.event_id and entry.disposition = 'recorded'
            where event.event_id = any($2)",
            "delete from public.audit_events where event_id = any($1)",
        ),
        Permanent::DecisionTrails => (
            "insert into ledger.removal (table_name, row_key, erasure_id, leaf_index)
            select 'decision_trails', trail.trail_id, $1, entry.leaf_index
            from public.decision_trails as trail
            left join lateral ledger.entry_of_row('decision_trails', trail.id) as entry
                on entry.record_id = trail.trail_id and entry.disposition = 'recorded'
            where trail.trail_id = any($2)",
            "delete from public.decision_trails where trail_id = any($1)",
        ),
    };
    sqlx::query(entering).bind(erased.id).bind(&authorization.ids).execute(&mut *connection).await?;
    keep_hashes(&mut *connection, &erased, authorization).await?;
    erased.rows = sqlx::query(deleting)
        .bind(&authorization.ids)
        .execute(&mut *connection)
        .await?
        .rows_affected()
        .try_into()
        .unwrap_or(i64::MAX);
    give_bytes_up(connection, &erased).await?;
    Ok(erased)
}

/// Enters what the leaves of the records and of their duplicates need once their bytes are gone.
async fn keep_hashes(
    connection: &mut PgConnection,
    erased: &Erasure,
    authorization: &Authorization,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into ledger.erased (leaf_index, erasure_id, payload_sha256, headers_sha256)
        select entry.leaf_index, $1, entry.payload_sha256, sha256(entry.headers)
        from (select distinct id from unnest($2::text[]) as id) as named
        cross join lateral ledger.entries_by_record(named.id) as entry
        where entry.disposition in ('recorded', 'duplicate')
            and entry.erasure_id is null
            and ledger.table_of(entry.subject) = $3",
    )
    .bind(erased.id)
    .bind(&authorization.ids)
    .bind(authorization.table.name())
    .execute(connection)
    .await
    .map(drop)
}

/// Takes the bytes out of the batches, and leaves their neighbours as they are.
async fn give_bytes_up(connection: &mut PgConnection, erased: &Erasure) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update ledger.batch
        set payloads = ledger.without(payloads, gone.places), headers = ledger.without(headers, gone.places),
            erased = erased + cardinality(gone.places)
        from (
            select holding.first_leaf, array_agg((erased.leaf_index - holding.first_leaf + 1)::integer) as places
            from ledger.erased
            cross join lateral (select max(first_leaf) as first_leaf from ledger.batch where first_leaf <= erased.leaf_index) as holding
            where erased.erasure_id = $1
            group by holding.first_leaf
        ) as gone
        where batch.first_leaf = gone.first_leaf",
    )
    .bind(erased.id)
    .execute(connection)
    .await
    .map(drop)
}
