-- LDG-002, table 4: limits and rates are history, so the newest row of a key is the one in force, and older ones stay.
-- Departures: `id` is BIGINT, as in audit_events; `metric_value` has no fixed scale, for the reference rate 0.00025 would
-- be kept as 0.0003 in four places; `published_ns` says when the stream's server stored the message, for the order in which
-- metrics were published is what tells the newest: commits may overtake each other.
create table public.economic_metrics (
    id           bigint      generated always as identity primary key,
    metric_key   text        not null,
    metric_value numeric     not null,
    period       varchar(20),
    set_by       varchar(50),
    created_at   timestamp   default (current_timestamp at time zone 'UTC'),
    published_ns bigint
);

create index idx_metric_key on public.economic_metrics (metric_key);

create trigger append_only before update or delete on public.economic_metrics
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on public.economic_metrics
    for each statement execute function ledger.refuse_change();
alter table public.economic_metrics enable always trigger append_only;
alter table public.economic_metrics enable always trigger never_truncated;

-- When a metric was published, in nanoseconds since 1970; for a row that came from no message, when it was made.
create function ledger.metric_moment(metric public.economic_metrics) returns bigint
    language sql
    immutable
    parallel safe
return coalesce(metric.published_ns, (extract(epoch from metric.created_at) * 1000000000)::bigint);

-- What is in force: the newest row of each key.
create view ledger.metric_in_force as
select distinct on (metric_key) metric_key, metric_value, period, set_by, created_at, id
from public.economic_metrics as metric
order by metric_key, ledger.metric_moment(metric) desc, id desc;
