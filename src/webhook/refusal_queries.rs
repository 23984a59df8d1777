//! The statements on the table of refused webhook calls. The table serves `ledgerd status`, and is not evidence of
//! anything.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::webhook::refusals::{Address, RefusalCount, RefusedCall};
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

/// Rows of the table. The caller that was refused longest ago makes room for a new one.
const ROWS_MAX: i64 = 256;

/// A caller that was refused, and how often.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Of HTTP.
    pub status: i32,
    pub webhook: String,
    /// The caller's address, or `others`.
    pub address: String,
    /// Calls since `first_at`.
    pub calls: i64,
    /// ISO 8601 in UTC.
    pub first_at: String,
    /// ISO 8601 in UTC.
    pub last_at: String,
}

/// Adds these to what is known of each caller: all of them, or none.
pub async fn add(connections: &Connections, refusals: &[(RefusedCall, RefusalCount)]) -> Result<(), DatabaseError> {
    let column =
        |value: fn(&RefusedCall) -> String| refusals.iter().map(|(refusal, _)| value(refusal)).collect::<Vec<_>>();
    let age = |moment: fn(&RefusalCount) -> Instant| {
        refusals.iter().map(|(_, tally)| moment(tally).elapsed().as_secs_f64()).collect::<Vec<_>>()
    };
    let calls = refusals.iter().map(|(_, tally)| i64::try_from(tally.calls).unwrap_or(i64::MAX)).collect::<Vec<_>>();
    connections
        .run("writing refusals", async |connection| {
            sqlx::query(WRITE)
                .bind(refusals.iter().map(|(refusal, _)| i32::from(refusal.status)).collect::<Vec<_>>())
                .bind(column(|refusal| refusal.webhook.to_owned()))
                .bind(column(|refusal| Address(refusal.address).to_string()))
                .bind(calls)
                .bind(age(|tally| tally.first))
                .bind(age(|tally| tally.last))
                .bind(ROWS_MAX)
                .execute(connection)
                .await?;
            Ok(())
        })
        .await
}

/// No row is ever deleted, for the daemon may delete nothing: the oldest rows take in the new callers.
const WRITE: &str = "
    with refused as (
        select status, webhook, address, calls,
            now() - make_interval(secs => first_age) as first_at, now() - make_interval(secs => last_age) as last_at
        from unnest($1::integer[], $2::text[], $3::text[], $4::bigint[], $5::double precision[], $6::double precision[])
            as given (status, webhook, address, calls, first_age, last_age)
    ),
    known as (
        update ledger.refusal as kept
        set calls = kept.calls + refused.calls, last_at = greatest(kept.last_at, refused.last_at)
        from refused
        where (kept.status, kept.webhook, kept.address) = (refused.status, refused.webhook, refused.address)
        returning kept.slot
    ),
    new as (
        select refused.*, row_number() over (order by last_at, address, status, webhook) as place
        from refused
        where not exists (
            select from ledger.refusal as kept
            where (kept.status, kept.webhook, kept.address) = (refused.status, refused.webhook, refused.address)
        )
    ),
    free as (
        select slot, row_number() over (order by last_at nulls first, slot) as place
        from generate_series(1, $7) as slot
        left join ledger.refusal using (slot)
        where slot not in (select slot from known)
    )
    insert into ledger.refusal (slot, status, webhook, address, calls, first_at, last_at)
    select slot, status, webhook, address, calls, first_at, last_at
    from new join free using (place)
    on conflict (slot) do update
    set (status, webhook, address, calls, first_at, last_at) = (
        excluded.status, excluded.webhook, excluded.address, excluded.calls, excluded.first_at, excluded.last_at
    )";

/// Whoever was refused last.
pub async fn newest(connections: &Connections, rows_max: i64) -> Result<Vec<Refused>, DatabaseError> {
    connections
        .run("reading refusals", async |connection| {
            let rows = sqlx::query(
                "select status, webhook, address, calls,
            to_char(first_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as first_at,
            to_char(last_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as last_at
        from ledger.refusal
        order by ledger.refusal.last_at desc, slot
        limit $1",
            )
            .bind(rows_max)
            .fetch_all(connection)
            .await?;
            rows.iter().map(refused).collect()
        })
        .await
}

fn refused(row: &PgRow) -> Result<Refused, sqlx::Error> {
    Ok(Refused {
        status: row.try_get("status")?,
        webhook: row.try_get("webhook")?,
        address: row.try_get("address")?,
        calls: row.try_get("calls")?,
        first_at: row.try_get("first_at")?,
        last_at: row.try_get("last_at")?,
    })
}
