//! What has each agent spent today, and is it within its limit? The days of `public.token_ledger`, and the alerts.
//!
//! All of it is written under the lock on the tree's head: whoever holds it sees every usage and every limit that was
//! committed before, so no sum is lost between two writers, and an agent's status takes its whole group into account.

use crate::domain::budget::Budget;
use crate::domain::record::Record;
use sqlx::PgConnection;

/// What a commit changed in the agents' days.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New rows of `ledger.token_usage`, each with its agent's group.
    usages: Vec<(i64, Option<String>)>,
    /// Whom new limits bind.
    limited: Vec<String>,
}

impl Changes {
    /// Takes note of a new row.
    pub(super) fn note(&mut self, record: &Record, row_id: Option<i64>) {
        match record {
            Record::TokenUsage(usage) => {
                self.usages.push((row_id.expect("its table numbers its rows"), usage.budget_group.clone()));
            }
            Record::Metric(metric) => self.limited.extend(metric.limits.clone()),
            Record::Event(_) | Record::Trail(_) | Record::ToolUsage(_) => {}
        }
    }
}

/// Brings the days up to date. Gives the number of alerts that were raised.
pub(super) async fn settle(
    connection: &mut PgConnection,
    changes: &Changes,
    budget: &Budget,
) -> Result<u64, sqlx::Error> {
    if changes.usages.is_empty() && changes.limited.is_empty() {
        return Ok(0);
    }
    add_to_days(connection, changes).await?;
    judge_days(connection, changes, budget).await
}

async fn add_to_days(connection: &mut PgConnection, changes: &Changes) -> Result<(), sqlx::Error> {
    if changes.usages.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into public.token_ledger as day
            (agent_name, date, total_tokens_input, total_tokens_output, exact_cost, total_cost, budget_group, last_updated)
        select usage.agent_name, usage.date, sum(usage.tokens_input), sum(usage.tokens_output), sum(usage.cost_usd),
            round(sum(usage.cost_usd), 4), max(new.budget_group), current_timestamp at time zone 'UTC'
        from unnest($1::bigint[], $2::text[]) as new (id, budget_group)
        join ledger.token_usage as usage on usage.id = new.id
        group by usage.agent_name, usage.date
        on conflict (agent_name, date) do update set
            total_tokens_input = day.total_tokens_input + excluded.total_tokens_input,
            total_tokens_output = day.total_tokens_output + excluded.total_tokens_output,
            exact_cost = day.exact_cost + excluded.exact_cost,
            total_cost = round(day.exact_cost + excluded.exact_cost, 4),
            budget_group = excluded.budget_group,
            last_updated = excluded.last_updated",
    )
    .bind(changes.usages.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(changes.usages.iter().map(|(_, group)| group.as_deref()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Judges every day that the changes can have touched: the usages' own, those of the agents who share a limit with them,
/// and today's days of those whose limit is new. A day that is over keeps the judgement of its limit.
async fn judge_days(connection: &mut PgConnection, changes: &Changes, budget: &Budget) -> Result<u64, sqlx::Error> {
    let alerts = sqlx::query(
        "with
        used as (
            select distinct agent_name, date, budget_group
            from ledger.token_usage
            join unnest($1::bigint[], $2::text[]) as new (id, budget_group) using (id)
        ),
        touched as (
            select day.*
            from public.token_ledger as day
            where (day.agent_name, day.date) in (select agent_name, date from used)
                or day.budget_group = any($4) and (day.budget_group, day.date) in (select budget_group, date from used)
                or day.date = (current_timestamp at time zone 'UTC')::date
                    and (day.agent_name = any($3) or day.budget_group = any($3))
        ),
        limited as (
            select touched.*, in_force.metric_key as limit_key, in_force.metric_value as limit_usd
            from touched
            cross join lateral (
                select metric_key, metric_value
                from public.economic_metrics
                where metric_key in ('daily_limit_' || touched.agent_name, 'daily_limit_' || touched.budget_group)
                -- An agent's own limit goes before its group's.
                order by metric_key = 'daily_limit_' || touched.agent_name desc, created_at desc, id desc
                limit 1
            ) as in_force
        ),
        spent as (
            select limited.*,
                case when limit_key = 'daily_limit_' || budget_group and budget_group = any($4)
                    then (
                        select sum(member.exact_cost)
                        from public.token_ledger as member
                        where member.date = limited.date and member.budget_group = limited.budget_group
                            -- Who has a limit of its own does not use up the others'.
                            and not exists (
                                select from public.economic_metrics where metric_key = 'daily_limit_' || member.agent_name
                            )
                    )
                    else exact_cost
                end as spent_usd
            from limited
        ),
        judged as (
            select spent.*,
                case
                    when spent_usd * 100 > limit_usd * $7 then 'EXCEEDED'
                    when limit_usd > 0 and spent_usd * 100 >= limit_usd * $6 then 'RED'
                    when limit_usd > 0 and spent_usd * 100 >= limit_usd * $5 then 'YELLOW'
                    else 'GREEN'
                end as new_status
            from spent
        ),
        changed as (
            update public.token_ledger as day
            set budget_status = judged.new_status
            from judged
            where (day.agent_name, day.date) = (judged.agent_name, judged.date)
                and judged.budget_status is distinct from judged.new_status
            returning judged.*
        )
        insert into ledger.budget_alert
            (agent_name, date, old_status, new_status, spent_usd, limit_usd, limit_key, raised_at)
        -- A day begins green, and that is no news.
        select agent_name, date, coalesce(budget_status, 'GREEN'), new_status, spent_usd, limit_usd, limit_key, clock_timestamp()
        from changed
        where coalesce(budget_status, 'GREEN') <> new_status
        order by date, agent_name",
    )
    .bind(changes.usages.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(changes.usages.iter().map(|(_, group)| group.as_deref()).collect::<Vec<_>>())
    .bind(&changes.limited)
    .bind(&budget.shared_groups)
    .bind(budget.yellow_percent)
    .bind(budget.red_percent)
    .bind(budget.exceeded_percent)
    .execute(connection)
    .await?;
    Ok(alerts.rows_affected())
}
