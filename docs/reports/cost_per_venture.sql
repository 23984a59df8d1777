-- What did each venture's use of tools cost? One row for each venture with usage, the dearest first; the row without a
-- venture_id is what was done for none, or for one that was deleted.
--
--     psql -f docs/reports/cost_per_venture.sql                                            -- everything
--     psql -v from=2026-11-01 -v to=2026-12-01 -f docs/reports/cost_per_venture.sql        -- from midnight UTC to midnight UTC
--
-- For each venture it reads that venture's part of idx_ledger_venture_cost, of this the period, and nothing of the table itself.

\if :{?from} \else \set from -infinity \endif
\if :{?to} \else \set to infinity \endif

select venture_id, calls, cost_usd
from (
    select venture.id as venture_id, used.calls, used.cost_usd
    from public.ventures as venture
    cross join lateral (
        select count(*) as calls, sum(cost_usd) as cost_usd
        from public.tool_usage_ledger
        where venture_id = venture.id
            and created_at >= :'from'::timestamp at time zone 'UTC' and created_at < :'to'::timestamp at time zone 'UTC'
    ) as used
    union all
    select null, count(*), sum(cost_usd)
    from public.tool_usage_ledger
    where venture_id is null
        and created_at >= :'from'::timestamp at time zone 'UTC' and created_at < :'to'::timestamp at time zone 'UTC'
) as report
where calls > 0
order by cost_usd desc, venture_id;
