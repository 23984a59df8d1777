//! Today's spending against the limits: one line for each agent, and one for those who share a limit.

use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Today, of an agent or of a group that shares its limit.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct Spending {
    /// The agent, or the group in capitals.
    pub name: String,
    /// How many of a group have spent something; null: it is one agent.
    pub members: Option<i64>,
    pub spent_usd: String,
    pub limit_usd: Option<String>,
    /// Of the limit; null where there is none, or one of 0.
    pub percent: Option<f64>,
    /// GREEN, YELLOW, RED or EXCEEDED; null: there is no limit.
    pub status: Option<String>,
    pub limit_key: Option<String>,
    pub set_by: Option<String>,
    /// ISO 8601 in UTC.
    pub set_at: Option<String>,
    /// Since when the day has this status, ISO 8601 in UTC; null: since its beginning.
    pub since: Option<String>,
}

const LINES_MAX: i64 = 100;

/// The days that are nearest to their limits come first.
pub(crate) async fn today(
    connection: &mut PgConnection,
    shared_groups: &[String],
) -> Result<Vec<Spending>, sqlx::Error> {
    sqlx::query_as(
        "with
        day as materialized (
            select agent_name, day.date, budget_group, exact_cost, budget_status, newest.*
            from (select (clock_timestamp() at time zone 'UTC')::date as date offset 0) as today
            cross join lateral (select * from public.token_ledger as its where its.date = today.date offset 0) as day
            left join lateral (
                select metric_key, metric_value, set_by, created_at, metric_key = 'daily_limit_' || day.agent_name as is_own
                from public.economic_metrics as metric
                where metric_key in ('daily_limit_' || day.agent_name, 'daily_limit_' || day.budget_group)
                order by is_own desc, ledger.metric_moment(metric) desc, id desc
                limit 1
            ) as newest on true
        ),
        line as (
            select
                case when is_shared then budget_group else agent_name end as name,
                case when is_shared then count(*) end as members,
                sum(exact_cost) as spent_usd, max(metric_value) as limit_usd, max(budget_status) as status,
                max(metric_key) as limit_key, max(set_by) as set_by, max(created_at) as set_at,
                min(agent_name) as agent_name, max(date) as date
            from day
            cross join lateral (select coalesce(not is_own and budget_group = any($1), false) as is_shared) as pool
            group by name, is_shared
        )
        select name, members, trim_scale(spent_usd)::text as spent_usd, trim_scale(limit_usd)::text as limit_usd,
            (spent_usd * 100 / nullif(limit_usd, 0))::double precision as percent, status, limit_key, set_by,
            to_char(set_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as set_at,
            (
                select to_char(raised_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                from ledger.budget_alert as alert
                where alert.agent_name = line.agent_name and alert.date = line.date
                order by alert.id desc
                limit 1
            ) as since
        from line
        order by percent desc nulls last, line.spent_usd desc, name
        limit $2",
    )
    .bind(shared_groups)
    .bind(LINES_MAX)
    .fetch_all(connection)
    .await
}
