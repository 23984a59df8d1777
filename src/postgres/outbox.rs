//! Rejects and alerts that must still reach their subject. The queue is the part of their table without `published_at`.

use super::connections::Connections;
use super::remedy::DatabaseError;
use crate::domain::budget::Alert;
use crate::domain::dead_letter::{DeadLetter, epoch_key};
use crate::domain::message::{Headers, Incarnation, place};
use crate::outbox::{Numbered, Queue};
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::marker::PhantomData;
use std::sync::Arc;

/// The letters of a kind that wait, over connections of their own.
#[derive(Debug)]
pub struct LetterQueue<L> {
    connections: Connections,
    kind: PhantomData<fn() -> L>,
}

impl<L> LetterQueue<L> {
    /// Asks over these connections.
    pub fn over(connections: Connections) -> Self {
        Self { connections, kind: PhantomData }
    }

    /// The connections, for a reload of their credentials.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }
}

/// How a kind of letters is stored. Another instance may have marked one already; and a reload may have moved the connections
/// to another database, which is what a letter's name is for.
pub trait Stored: Numbered + Sized + Send + Sync {
    /// What is being done, for an error.
    const DOING: &str;
    /// Those that wait, after the number $1, at most $2, and no more than $3 bytes after the first.
    const WAITING: &str;
    /// How many wait.
    const BACKLOG: &str;
    /// One of them, by its number.
    const READ: &str;
    /// Marks the letters of these numbers and these names: never as published before it was made, where the clock stepped back since.
    const MARK: &str;

    /// Reads what [`Self::READ`] or [`Self::WAITING`] found.
    fn of(row: &PgRow) -> Result<Self, sqlx::Error>;

    /// What tells it from another database's letter of this number.
    fn name(&self) -> String;
}

/// Letters of one page at most,
const PAGE_MAX: i64 = 1_024;
/// and their bytes.
const PAGE_BYTES_MAX: i64 = 4 * 1024 * 1024;

impl<L: Stored> Queue for LetterQueue<L> {
    type Letter = L;

    async fn waiting(&self, after: i64) -> Result<Vec<L>, String> {
        let work = waiting::<L>(&self.connections, after);
        self.connections.bounded(L::DOING, work).await.map_err(|error| error.to_string())
    }

    async fn backlog(&self) -> Result<i64, String> {
        let work = async {
            let mut lease = self.connections.lease().await?;
            let count = sqlx::query_scalar(L::BACKLOG).fetch_one(&mut *lease).await.map_err(DatabaseError::new)?;
            lease.keep();
            Ok(count)
        };
        self.connections.bounded(L::DOING, work).await.map_err(|error| error.to_string())
    }

    async fn mark(&self, letters: &[&L]) -> Result<(), String> {
        let work = mark(&self.connections, letters);
        self.connections.bounded(L::DOING, work).await.map_err(|error| error.to_string())
    }
}

async fn waiting<L: Stored>(connections: &Connections, after: i64) -> Result<Vec<L>, DatabaseError> {
    let mut lease = connections.lease().await?;
    let asking = sqlx::query(L::WAITING).bind(after).bind(PAGE_MAX).bind(PAGE_BYTES_MAX);
    let rows = asking.fetch_all(&mut *lease).await.map_err(DatabaseError::new)?;
    lease.keep();
    rows.iter().map(L::of).collect::<Result<_, _>>().map_err(DatabaseError::new)
}

/// One letter, whole.
pub async fn read<L: Stored>(connections: &Connections, number: i64) -> Result<L, DatabaseError> {
    let work = async {
        let mut lease = connections.lease().await?;
        let row = sqlx::query(L::READ).bind(number).fetch_one(&mut *lease).await.map_err(DatabaseError::new)?;
        lease.keep();
        L::of(&row).map_err(DatabaseError::new)
    };
    connections.bounded(L::DOING, work).await
}

async fn mark<L: Stored>(connections: &Connections, letters: &[&L]) -> Result<(), DatabaseError> {
    let mut lease = connections.lease().await?;
    sqlx::query(L::MARK)
        .bind(letters.iter().map(|letter| letter.number()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.name()).collect::<Vec<_>>())
        .execute(&mut *lease)
        .await
        .map_err(DatabaseError::new)?;
    lease.keep();
    Ok(())
}

impl Stored for DeadLetter {
    const DOING: &str = "handling dead letters";
    // Each batch is unfolded once, however many letters of a page it holds.
    const WAITING: &str = "
        with
        letter as (
            select * from ledger.dead_letter where published_at is null and leaf_index > $1 order by leaf_index limit $2
        ),
        place as (
            select distinct (select max(b.first_leaf) from ledger.batch as b where b.first_leaf <= letter.leaf_index) as first_leaf
            from letter
        ),
        whole as (
            select d.leaf_index, d.dlq_subject, d.reason, d.detail,
                (extract(epoch from d.rejected_at) * 1000000)::bigint * 1000 as rejected_at_ns,
                p.stream, p.stream_created_ns, p.regressions, e.sequence, e.subject, e.server_time_ns, e.headers, e.payload,
                sum(coalesce(octet_length(e.payload), 0) + coalesce(octet_length(e.headers), 0)) over (
                    order by d.leaf_index rows between unbounded preceding and 1 preceding
                ) as bytes_before
            from place
            cross join lateral (select * from ledger.entry as held where held.first_leaf = place.first_leaf offset 0) as e
            join letter as d using (leaf_index)
            join ledger.epoch as p using (epoch)
        )
        select * from whole where coalesce(bytes_before, 0) < $3 order by leaf_index";
    const BACKLOG: &str = "select count(*) from ledger.dead_letter where published_at is null";
    const READ: &str = "
        select d.leaf_index, d.dlq_subject, d.reason, d.detail,
            (extract(epoch from d.rejected_at) * 1000000)::bigint * 1000 as rejected_at_ns,
            p.stream, p.stream_created_ns, p.regressions, e.sequence, e.subject, e.server_time_ns, e.headers, e.payload
        from ledger.dead_letter as d
        cross join lateral ledger.entry_at(d.leaf_index) as e
        join ledger.epoch as p using (epoch)
        where d.leaf_index = $1";
    const MARK: &str = "
        update ledger.dead_letter as d set published_at = greatest(current_timestamp, rejected_at)
        from unnest($1::bigint[], $2::text[]) as published (number, name)
        where d.leaf_index = published.number and d.dlq_subject = published.name and d.published_at is null";

    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let stream: String = row.try_get("stream")?;
        let created_ns = row.try_get("stream_created_ns")?;
        let incarnation = Incarnation { stream: Arc::from(stream.as_str()), created_ns };
        let (sequence, server_time_ns) = (row.try_get("sequence")?, row.try_get("server_time_ns")?);
        let headers = Headers::from_stored(row.try_get("headers")?);
        Ok(Self {
            leaf_index: row.try_get("leaf_index")?,
            dlq_subject: row.try_get("dlq_subject")?,
            reason: row.try_get("reason")?,
            detail: row.try_get("detail")?,
            stream,
            epoch: epoch_key(&incarnation, row.try_get("regressions")?),
            sequence,
            place: place(created_ns, sequence, server_time_ns, &headers),
            subject: row.try_get("subject")?,
            server_time_ns,
            rejected_at_ns: row.try_get("rejected_at_ns")?,
            headers,
            payload: row.try_get::<Option<Vec<u8>>, _>("payload")?.unwrap_or_default(),
        })
    }

    fn name(&self) -> String {
        self.dlq_subject.clone()
    }
}

impl Numbered for DeadLetter {
    fn number(&self) -> i64 {
        self.leaf_index
    }
}

impl Stored for Alert {
    const DOING: &str = "handling budget alerts";
    const WAITING: &str = "
        select id, agent_name, date::text as date, old_status, new_status, trim_scale(spent_usd)::text as spent_usd,
            trim_scale(limit_usd)::text as limit_usd, limit_key, (extract(epoch from raised_at) * 1000000)::bigint as raised_at_us
        from ledger.budget_alert
        where published_at is null and id > $1 and $3 > 0
        order by id
        limit $2";
    const BACKLOG: &str = "select count(*) from ledger.budget_alert where published_at is null";
    const READ: &str = "
        select id, agent_name, date::text as date, old_status, new_status, trim_scale(spent_usd)::text as spent_usd,
            trim_scale(limit_usd)::text as limit_usd, limit_key, (extract(epoch from raised_at) * 1000000)::bigint as raised_at_us
        from ledger.budget_alert
        where id = $1";
    const MARK: &str = "
        update ledger.budget_alert as a set published_at = greatest(current_timestamp, raised_at)
        from unnest($1::bigint[], $2::text[]) as published (number, name)
        where a.id = published.number
            and (extract(epoch from a.raised_at) * 1000000)::bigint::text = published.name
            and a.published_at is null";

    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            agent_name: row.try_get("agent_name")?,
            date: row.try_get("date")?,
            old_status: row.try_get("old_status")?,
            new_status: row.try_get("new_status")?,
            spent_usd: row.try_get("spent_usd")?,
            limit_usd: row.try_get("limit_usd")?,
            limit_key: row.try_get("limit_key")?,
            raised_at_us: row.try_get("raised_at_us")?,
        })
    }

    fn name(&self) -> String {
        self.raised_at_us.to_string()
    }
}

impl Numbered for Alert {
    fn number(&self) -> i64 {
        self.id
    }
}
