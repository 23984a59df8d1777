//! The outbox queue of unpublished budget alerts: the statements that read and mark them.

use crate::budget::status::Alert;
use crate::outbox::Numbered;
use crate::outbox::queue::QueuedLetter;
use sqlx::Row;
use sqlx::postgres::PgRow;

impl QueuedLetter for Alert {
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
