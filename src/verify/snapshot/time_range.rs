//! Reads the events of a time range, with the fields that the specification's hash covers, in the order of time.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::verify::snapshot::{Snapshot, answer};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// The hash of an event, and all that it covers.
#[derive(Clone, Debug)]
pub struct HashedEvent {
    pub id: i64,
    pub event_id: String,
    pub actor: String,
    pub action: String,
    pub outcome: String,
    /// When, as it was published.
    pub timestamp_text: String,
    pub integrity_hash: String,
    /// When, as the column has it.
    pub timestamp: String,
}

const PAGE_ROWS: i64 = 4096;

/// Reads the events from one moment to before another, page by page. The moments are PostgreSQL's `timestamp`, in UTC.
pub async fn hashed_events(
    connections: &Connections,
    from: Option<&str>,
    to: Option<&str>,
    mut take: impl FnMut(Vec<HashedEvent>),
) -> Result<(), DatabaseError> {
    let snapshot = Snapshot::open(connections, 1).await?;
    let query = "select id, event_id, actor, action, outcome, timestamp_text, integrity_hash, timestamp::text
        from public.audit_events
        where (timestamp, id) > (coalesce($1::timestamp, '-infinity'), $2)
            and ($3::timestamp is null or timestamp < $3::timestamp)
        order by timestamp, id
        limit $4";
    let (mut after, mut after_id) = (from.map(str::to_owned), i64::MIN);
    loop {
        let reading = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query(query).bind(&after).bind(after_id).bind(to).bind(PAGE_ROWS).fetch_all(reader)).await
        };
        let rows = snapshot.with(reading).await?;
        let page = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(DatabaseError::new)?;
        let Some(last) = page.last() else { return Ok(()) };
        (after, after_id) = (Some(last.timestamp.clone()), last.id);
        take(page);
    }
}

fn read(row: &PgRow) -> Result<HashedEvent, sqlx::Error> {
    Ok(HashedEvent {
        id: row.try_get(0)?,
        event_id: row.try_get(1)?,
        actor: row.try_get(2)?,
        action: row.try_get(3)?,
        outcome: row.try_get(4)?,
        timestamp_text: row.try_get(5)?,
        integrity_hash: row.try_get(6)?,
        timestamp: row.try_get(7)?,
    })
}
