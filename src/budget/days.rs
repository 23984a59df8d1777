//! Maintains the days of `public.token_ledger`: each agent's spending, its status against the limit, and the alerts.
//!
//! Everything is written under the lock on the tree head. Its holder sees every usage and every limit that was
//! committed before, so no sum is lost between two writers. An agent's status takes its whole group into account.

use crate::budget::status::Budget;
use crate::postgres::failure::CommitFailure;
use crate::postgres::remedy::DatabaseError;
use crate::record::kinds::Record;
use sqlx::PgConnection;

/// What a commit changed in the agents' days.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New rows of `ledger.token_usage`, each with its agent's group.
    usages: Vec<(i64, Option<String>)>,
    /// Whom new limits bind.
    limited: Vec<String>,
}

impl Changes {
    /// Whether no budget is concerned.
    pub(crate) fn is_empty(&self) -> bool {
        self.usages.is_empty() && self.limited.is_empty()
    }

    /// Takes note of a new row.
    pub(crate) fn note(&mut self, record: &Record, row_id: Option<i64>) {
        match record {
            Record::TokenUsage(usage) => {
                self.usages.push((row_id.expect("its table numbers its rows"), usage.budget_group.clone()));
            }
            Record::Metric(metric) => self.limited.extend(metric.limits.clone()),
            Record::Event(_) | Record::Trail(_) | Record::ToolUsage(_) => {}
        }
    }

    fn usage_ids(&self) -> Vec<i64> {
        self.usages.iter().map(|(id, _)| *id).collect()
    }

    fn usage_groups(&self) -> Vec<Option<&str>> {
        self.usages.iter().map(|(_, group)| group.as_deref()).collect()
    }
}

/// Which changes of a day's status are news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    EveryDay,
    /// Those of days that are not over. What is replayed was told in its time.
    DaysThatAreNotOver,
}

/// Brings the days up to date. Gives the number of alerts that were raised.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    changes: &Changes,
    budget: &Budget,
    news: News,
) -> Result<u64, CommitFailure> {
    if changes.is_empty() {
        return Ok(0);
    }
    let left = groups_that_are_left(connection, changes).await?;
    add_to_days(connection, changes).await?;
    Ok(judge_days(connection, changes, &left, (budget, news)).await?)
}

/// The groups of the days before their agents moved to another: those who stay behind share their limit with fewer.
struct GroupsLeft {
    dates: Vec<String>,
    groups: Vec<String>,
}

async fn groups_that_are_left(connection: &mut PgConnection, changes: &Changes) -> Result<GroupsLeft, sqlx::Error> {
    let left: Vec<(String, String)> = sqlx::query_as(
        "select distinct day.date::text, day.budget_group
        from unnest($1::bigint[], $2::text[]) as new (id, budget_group)
        join ledger.token_usage as usage on usage.id = new.id
        join public.token_ledger as day on (day.agent_name, day.date) = (usage.agent_name, usage.date)
        where day.budget_group is not null and day.budget_group is distinct from new.budget_group",
    )
    .bind(changes.usage_ids())
    .bind(changes.usage_groups())
    .fetch_all(connection)
    .await?;
    let (dates, groups) = left.into_iter().unzip();
    Ok(GroupsLeft { dates, groups })
}

async fn add_to_days(connection: &mut PgConnection, changes: &Changes) -> Result<(), CommitFailure> {
    if changes.usages.is_empty() {
        return Ok(());
    }
    let (expected, written): (i64, i64) = sqlx::query_as(
        "with
        sums as (
            select usage.agent_name, usage.date, sum(usage.tokens_input) as input, sum(usage.tokens_output) as output,
                sum(usage.cost_usd) as cost, max(new.budget_group) as budget_group
            from unnest($1::bigint[], $2::text[]) as new (id, budget_group)
            join ledger.token_usage as usage on usage.id = new.id
            group by usage.agent_name, usage.date
        ),
        written as (
            insert into public.token_ledger as day
                (agent_name, date, total_tokens_input, total_tokens_output, exact_cost, total_cost, budget_group, last_updated)
            select agent_name, date, input, output, cost, round(cost, 4), budget_group, current_timestamp at time zone 'UTC'
            from sums
            on conflict (agent_name, date) do update set
                total_tokens_input = day.total_tokens_input + excluded.total_tokens_input,
                total_tokens_output = day.total_tokens_output + excluded.total_tokens_output,
                exact_cost = day.exact_cost + excluded.exact_cost,
                total_cost = round(day.exact_cost + excluded.exact_cost, 4),
                budget_group = excluded.budget_group,
                last_updated = excluded.last_updated
            returning 1
        )
        select (select count(*) from sums), (select count(*) from written)",
    )
    .bind(changes.usage_ids())
    .bind(changes.usage_groups())
    .fetch_one(connection)
    .await?;
    if expected == written {
        return Ok(());
    }
    // A trigger of the operator's can turn rows away without a word.
    let what = format!("public.token_ledger took {written} of {expected} days: look at its triggers");
    Err(CommitFailure::of_custody(DatabaseError::of_the_operator(what)))
}

/// Judges every day that the changes can have touched: the usages' own, those of the agents who share a limit with them or did,
/// and today's (and later) days of those whose limit is new, and of those who share one with them. A day that is over keeps the
/// judgement of its limit.
async fn judge_days(
    connection: &mut PgConnection,
    changes: &Changes,
    left: &GroupsLeft,
    (budget, news): (&Budget, News),
) -> Result<u64, sqlx::Error> {
    let alerts = sqlx::query(
        "with
        used as materialized (
            select distinct usage.agent_name, usage.date, new.budget_group
            from unnest($1::bigint[], $2::text[]) as new (id, budget_group)
            join ledger.token_usage as usage on usage.id = new.id
        ),
        -- Days to come are those of publishers whose clocks are ahead.
        limited as materialized (
            select agent_name, date, budget_group
            from public.token_ledger
            where date >= (clock_timestamp() at time zone 'UTC')::date
                and (agent_name = any($3) or budget_group = any($3))
        ),
        pool as materialized (
            select date, budget_group from used where budget_group = any($4)
            union
            select date, budget_group from limited where budget_group = any($4)
            union
            select date, budget_group
            from unnest($8::text[]::date[], $9::text[]) as departed (date, budget_group)
            where budget_group = any($4)
        ),
        -- Who has a limit of its own does not use up the others'.
        pooled as materialized (
            select member.agent_name, member.date, member.budget_group, member.exact_cost,
                exists (
                    select from public.economic_metrics where metric_key = 'daily_limit_' || member.agent_name
                ) as has_own_limit
            from pool
            join public.token_ledger as member using (date, budget_group)
        ),
        pool_spent as materialized (
            select date, budget_group, sum(exact_cost) filter (where not has_own_limit) as spent_usd
            from pooled group by date, budget_group
        ),
        touched as (
            select agent_name, date from used
            union
            select agent_name, date from limited
            union
            select agent_name, date from pooled
        ),
        judged as materialized (
            select day.agent_name, day.date, day.budget_status as old_status, limit_in_force.metric_key as limit_key,
                limit_in_force.metric_value as limit_usd,
                case when limit_in_force.is_own then day.exact_cost else coalesce(pool_spent.spent_usd, day.exact_cost) end
                    as spent_usd
            from touched
            join public.token_ledger as day using (agent_name, date)
            left join pool_spent on (pool_spent.date, pool_spent.budget_group) = (day.date, day.budget_group)
            cross join lateral (
                select metric_key, metric_value, metric_key = 'daily_limit_' || day.agent_name as is_own
                from public.economic_metrics as metric
                where metric_key in ('daily_limit_' || day.agent_name, 'daily_limit_' || day.budget_group)
                -- An agent's own limit goes before its group's.
                order by is_own desc, ledger.metric_moment(metric) desc, id desc
                limit 1
            ) as limit_in_force
        ),
        changed as (
            update public.token_ledger as day
            set budget_status = status.new_status
            from judged
            cross join lateral (
                select
                    case
                        when spent_usd * 100 > limit_usd * $7 then 'EXCEEDED'
                        when limit_usd > 0 and spent_usd * 100 >= limit_usd * $6 then 'RED'
                        when limit_usd > 0 and spent_usd * 100 >= limit_usd * $5 then 'YELLOW'
                        else 'GREEN'
                    end as new_status
            ) as status
            where (day.agent_name, day.date) = (judged.agent_name, judged.date)
                and judged.old_status is distinct from status.new_status
            returning judged.*, status.new_status
        )
        insert into ledger.budget_alert
            (agent_name, date, old_status, new_status, spent_usd, limit_usd, limit_key, raised_at)
        -- A day begins green, and that is no news.
        select agent_name, date, coalesce(old_status, 'GREEN'), new_status, spent_usd, limit_usd, limit_key, clock_timestamp()
        from changed
        where coalesce(old_status, 'GREEN') <> new_status and ($10 or date >= (clock_timestamp() at time zone 'UTC')::date)
        order by date, agent_name",
    )
    .bind(changes.usage_ids())
    .bind(changes.usage_groups())
    .bind(&changes.limited)
    .bind(&budget.shared_groups)
    .bind(budget.yellow_percent)
    .bind(budget.red_percent)
    .bind(budget.exceeded_percent)
    .bind(&left.dates)
    .bind(&left.groups)
    .bind(news == News::EveryDay)
    .execute(connection)
    .await?;
    Ok(alerts.rows_affected())
}
