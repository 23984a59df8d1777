//! Which budget alerts must still reach their subject? The queue is the part of `ledger.budget_alert` without `published_at`.

use super::connections::Connections;
use super::remedy::DatabaseError;
use crate::domain::budget::Alert;
use crate::outbox::Queue;
use sqlx::Row;
use sqlx::postgres::PgRow;

/// The alerts that wait, over connections of their own.
#[derive(Debug)]
pub struct AlertQueue(pub Connections);

impl Queue for AlertQueue {
    type Letter = Alert;

    async fn waiting(&self, after: i64, limit: i64) -> Result<Vec<i64>, String> {
        self.0.bounded("reading the alerts", waiting(&self.0, after, limit)).await.map_err(|error| error.to_string())
    }

    async fn read(&self, id: i64) -> Result<Alert, String> {
        self.0.bounded("reading an alert", read(&self.0, id)).await.map_err(|error| error.to_string())
    }

    async fn mark(&self, alert: &Alert) -> Result<(), String> {
        self.0.bounded("marking an alert", mark_published(&self.0, alert)).await.map_err(|error| error.to_string())
    }
}

async fn waiting(connections: &Connections, after: i64, limit: i64) -> Result<Vec<i64>, DatabaseError> {
    let mut lease = connections.lease().await?;
    let ids = sqlx::query_scalar(
        "select id from ledger.budget_alert where published_at is null and id > $1 order by id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *lease)
    .await
    .map_err(DatabaseError::new)?;
    lease.keep();
    Ok(ids)
}

async fn read(connections: &Connections, id: i64) -> Result<Alert, DatabaseError> {
    let mut lease = connections.lease().await?;
    let row = sqlx::query(
        "select id, agent_name, date::text as date, old_status, new_status, trim_scale(spent_usd)::text as spent_usd,
            trim_scale(limit_usd)::text as limit_usd, limit_key, (extract(epoch from raised_at) * 1000000)::bigint as raised_at_us
        from ledger.budget_alert
        where id = $1",
    )
    .bind(id)
    .fetch_one(&mut *lease)
    .await
    .map_err(DatabaseError::new)?;
    lease.keep();
    alert(&row).map_err(DatabaseError::new)
}

fn alert(row: &PgRow) -> Result<Alert, sqlx::Error> {
    Ok(Alert {
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

/// Another instance may have marked it already. Its moment tells it from an alert of another database, to which a reload has
/// moved the connections in the meantime.
async fn mark_published(connections: &Connections, alert: &Alert) -> Result<(), DatabaseError> {
    let mut lease = connections.lease().await?;
    sqlx::query(
        "update ledger.budget_alert set published_at = current_timestamp
        where id = $1 and (extract(epoch from raised_at) * 1000000)::bigint = $2 and published_at is null",
    )
    .bind(alert.id)
    .bind(alert.raised_at_us)
    .execute(&mut *lease)
    .await
    .map_err(DatabaseError::new)?;
    lease.keep();
    Ok(())
}
