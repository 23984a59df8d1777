-- What has each agent spent today (UTC), and what may it spend? Who is nearest to the limit comes first.
--
--     psql -f docs/reports/spend_today.sql
--     psql -v shared=WORKERS,SUBAGENTS -f docs/reports/spend_today.sql      -- where budget.shared_groups is not its default
--
-- The limit is the agent's own, or else its group's. Who shares a limit is judged by what all of them spent: `counted_usd`.
-- Without a limit nothing is assumed: `limit_usd` and `budget_status` are null.

\if :{?shared} \else \set shared WORKERS \endif

with today as (
    select
        day.*,
        own.metric_key is null and day.budget_group = any(string_to_array(:'shared', ',')) as shares,
        coalesce(own.metric_value, of_group.metric_value) as limit_usd,
        coalesce(own.metric_key, of_group.metric_key) as limit_key
    from public.token_ledger as day
    left join ledger.metric_in_force as own on own.metric_key = 'daily_limit_' || day.agent_name
    left join ledger.metric_in_force as of_group on of_group.metric_key = 'daily_limit_' || day.budget_group
    where day.date = (current_timestamp at time zone 'UTC')::date
),
counted as (
    select
        today.*,
        case when shares then sum(exact_cost) filter (where shares) over (partition by budget_group) else exact_cost end as counted
    from today
)
select agent_name, total_cost as spent_usd, round(counted, 4) as counted_usd, limit_usd,
    round(100 * counted / nullif(limit_usd, 0), 1) as percent, budget_status, limit_key
from counted
order by percent desc nulls last, counted desc, agent_name;
