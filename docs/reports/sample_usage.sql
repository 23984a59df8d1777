-- 100,000 uses of tools for a measurement, in an empty database: 30 days, 50 ventures of which a few have most of the usage, one use in
-- twelve for no venture. The rows come in the order of their time, as the daemon writes them, so the indexes have the holes of real ones.

select setseed(0.42);
insert into public.agent_registry select from generate_series(1, 32);
insert into public.tool_registry select from generate_series(1, 25);
insert into public.ventures select from generate_series(1, 50);

insert into public.tool_usage_ledger (agent_id, tool_id, venture_id, tokens_consumed, cost_usd, execution_ms, created_at)
select
    agents.ids[1 + floor(random() * 32)],
    tools.ids[1 + floor(random() * 25)],
    case when random() >= 1 / 12.0 then ventures.ids[1 + floor(power(random(), 2) * 50)] end,
    floor(exp(5 + 3 * random())),
    round((0.00003 * exp(7 * random()))::numeric, 6),
    floor(exp(3 + 6 * random())),
    timestamptz '2026-02-01 00:00Z' + (number + random()) * interval '30 days' / 100000
from (select array_agg(id) as ids from public.agent_registry) as agents
cross join (select array_agg(id) as ids from public.tool_registry) as tools
cross join (select array_agg(id) as ids from public.ventures) as ventures
cross join generate_series(0, 99999) as number
order by number;
