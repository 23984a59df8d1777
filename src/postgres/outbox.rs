//! Which rejects and alerts must still reach their subject? The queue is the part of their table without `published_at`.

use super::connections::Connections;
use super::remedy::DatabaseError;
use crate::domain::budget::Alert;
use crate::domain::dead_letter::{DeadLetter, epoch_key};
use crate::domain::message::{Headers, Incarnation, place};
use crate::outbox::Queue;
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
pub trait Stored: Sized + Send + Sync {
    /// What is being done, for an error.
    const DOING: &str;
    /// The numbers of those that wait, after $1, at most $2.
    const WAITING: &str;
    /// One of them, by its number.
    const READ: &str;
    /// Marks the letter of this number and this name: never as published before it was made, where the clock stepped back since.
    const MARK: &str;

    /// Reads what [`Self::READ`] found.
    fn of(row: &PgRow) -> Result<Self, sqlx::Error>;

    /// Its number.
    fn number(&self) -> i64;

    /// What tells it from another database's letter of this number.
    fn name(&self) -> String;
}

impl<L: Stored> Queue for LetterQueue<L> {
    type Letter = L;

    async fn waiting(&self, after: i64, limit: i64) -> Result<Vec<i64>, String> {
        let work = waiting::<L>(&self.connections, after, limit);
        self.connections.bounded(L::DOING, work).await.map_err(|error| error.to_string())
    }

    async fn read(&self, number: i64) -> Result<L, String> {
        read(&self.connections, number).await.map_err(|error| error.to_string())
    }

    async fn mark(&self, letter: &L) -> Result<(), String> {
        let work = mark(&self.connections, letter);
        self.connections.bounded(L::DOING, work).await.map_err(|error| error.to_string())
    }
}

async fn waiting<L: Stored>(connections: &Connections, after: i64, limit: i64) -> Result<Vec<i64>, DatabaseError> {
    let mut lease = connections.lease().await?;
    let asking = sqlx::query_scalar(L::WAITING).bind(after).bind(limit);
    let numbers = asking.fetch_all(&mut *lease).await.map_err(DatabaseError::new)?;
    lease.keep();
    Ok(numbers)
}

/// One letter, whole: it may be large, so they are read one at a time.
pub async fn read<L: Stored>(connections: &Connections, number: i64) -> Result<L, DatabaseError> {
    let work = async {
        let mut lease = connections.lease().await?;
        let row = sqlx::query(L::READ).bind(number).fetch_one(&mut *lease).await.map_err(DatabaseError::new)?;
        lease.keep();
        L::of(&row).map_err(DatabaseError::new)
    };
    connections.bounded(L::DOING, work).await
}

async fn mark<L: Stored>(connections: &Connections, letter: &L) -> Result<(), DatabaseError> {
    let mut lease = connections.lease().await?;
    let marking = sqlx::query(L::MARK).bind(letter.number()).bind(letter.name());
    marking.execute(&mut *lease).await.map_err(DatabaseError::new)?;
    lease.keep();
    Ok(())
}

impl Stored for DeadLetter {
    const DOING: &str = "handling dead letters";
    const WAITING: &str = "select leaf_index from ledger.dead_letter where published_at is null and leaf_index > $1
        order by leaf_index limit $2";
    const READ: &str = "
        select d.leaf_index, d.dlq_subject, d.reason, d.detail,
            (extract(epoch from d.rejected_at) * 1000000)::bigint * 1000 as rejected_at_ns,
            p.stream, p.stream_created_ns, p.regressions, e.sequence, e.subject, e.server_time_ns, e.headers, e.payload
        from ledger.dead_letter as d
        join ledger.entry as e using (leaf_index)
        join ledger.epoch as p using (epoch)
        where d.leaf_index = $1";
    const MARK: &str = "update ledger.dead_letter set published_at = greatest(current_timestamp, rejected_at)
        where leaf_index = $1 and dlq_subject = $2 and published_at is null";

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

    fn number(&self) -> i64 {
        self.leaf_index
    }

    fn name(&self) -> String {
        self.dlq_subject.clone()
    }
}

impl Stored for Alert {
    const DOING: &str = "handling budget alerts";
    const WAITING: &str =
        "select id from ledger.budget_alert where published_at is null and id > $1 order by id limit $2";
    const READ: &str = "
        select id, agent_name, date::text as date, old_status, new_status, trim_scale(spent_usd)::text as spent_usd,
            trim_scale(limit_usd)::text as limit_usd, limit_key, (extract(epoch from raised_at) * 1000000)::bigint as raised_at_us
        from ledger.budget_alert
        where id = $1";
    const MARK: &str = "update ledger.budget_alert set published_at = greatest(current_timestamp, raised_at)
        where id = $1 and (extract(epoch from raised_at) * 1000000)::bigint::text = $2 and published_at is null";

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

    fn number(&self) -> i64 {
        self.id
    }

    fn name(&self) -> String {
        self.raised_at_us.to_string()
    }
}
