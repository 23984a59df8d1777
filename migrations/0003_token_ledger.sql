-- LDG-002, table 2. Departures from the specification's text, each for a reason it gives itself:
-- * the sums are wider: a day's sum that overflowed would stop the lane for everybody;
-- * `exact_cost` is the sum: a thousand calls at 0.00003 must not add up to 0. `total_cost` shows it to four places;
-- * `budget_group` names whose limit binds the agent when it has none of its own.
create table public.token_ledger (
    agent_name          varchar(50)   not null,
    date                date          not null,
    total_tokens_input  bigint        default 0,
    total_tokens_output bigint        default 0,
    total_cost          numeric(38,4) default 0,
    last_updated        timestamp,
    budget_status       varchar(20),
    exact_cost          numeric       not null default 0 check (exact_cost >= 0 and exact_cost < 'Infinity'),
    budget_group        varchar(50),
    primary key (agent_name, date)
);

-- The days of those who share a limit.
create index token_ledger_group on public.token_ledger (date, budget_group);

-- Each usage that was added to a day: what makes "exactly once" checkable, and a sum explainable.
create table ledger.token_usage (
    id             bigint      generated always as identity primary key,
    agent_name     varchar(50) not null,
    -- The publisher's own id; where it gave none, the message's place in its stream.
    usage_id       text        not null,
    usage_id_given boolean     not null,
    date           date        not null,
    tokens_input   bigint      not null check (tokens_input >= 0),
    tokens_output  bigint      not null check (tokens_output >= 0),
    cost_usd       numeric     not null check (cost_usd >= 0 and cost_usd < 'Infinity'),
    -- False: computed from the rates in force, the two rows of economic_metrics that are named here.
    cost_given     boolean     not null,
    input_rate_id  bigint,
    output_rate_id bigint,
    model_tier     text,
    model_used     text,
    task_id        text,
    operation_type text,
    timestamp_text text,
    -- In this order it finds a usage whose agent is not known, too.
    constraint token_usage_key unique (usage_id, agent_name, usage_id_given),
    constraint token_usage_cost_explained check (cost_given = (input_rate_id is null) and cost_given = (output_rate_id is null))
);

-- A change of a day's status, on its way to `alert.budget.<AGENT>`. Only `published_at` is set later, once.
create table ledger.budget_alert (
    id           bigint      generated always as identity primary key,
    agent_name   varchar(50) not null,
    date         date        not null,
    old_status   varchar(20) not null,
    new_status   varchar(20) not null,
    spent_usd    numeric     not null,
    limit_usd    numeric     not null,
    -- The metric that set the limit: the agent's own, or its pool's.
    limit_key    text        not null,
    raised_at    timestamptz not null,
    published_at timestamptz
);

-- The outbox's queue.
create index budget_alert_unpublished on ledger.budget_alert (id) where published_at is null;

create function ledger.allow_only_publishing_once() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if old.published_at is null and new.published_at is not null
        and to_jsonb(new) - 'published_at' = to_jsonb(old) - 'published_at'
    then
        return new;
    end if;
    raise exception '%.% is marked published once, and is never changed otherwise', tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create function ledger.allow_only_larger_sums() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if (new.agent_name, new.date) = (old.agent_name, old.date)
        and new.total_tokens_input >= old.total_tokens_input
        and new.total_tokens_output >= old.total_tokens_output
        and new.exact_cost >= old.exact_cost
        and new.total_cost >= old.total_cost
    then
        return new;
    end if;
    raise exception 'the ledger is append-only: the sums of a day of %.% only grow', tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create trigger grows_only before update on public.token_ledger
    for each row execute function ledger.allow_only_larger_sums();
create trigger append_only before delete on public.token_ledger
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on public.token_ledger
    for each statement execute function ledger.refuse_change();
alter table public.token_ledger enable always trigger grows_only;
alter table public.token_ledger enable always trigger append_only;
alter table public.token_ledger enable always trigger never_truncated;

create trigger append_only before update or delete on ledger.token_usage
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.token_usage
    for each statement execute function ledger.refuse_change();
alter table ledger.token_usage enable always trigger append_only;
alter table ledger.token_usage enable always trigger never_truncated;

create trigger published_once before update on ledger.budget_alert
    for each row execute function ledger.allow_only_publishing_once();
create trigger append_only before delete on ledger.budget_alert
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.budget_alert
    for each statement execute function ledger.refuse_change();
alter table ledger.budget_alert enable always trigger published_once;
alter table ledger.budget_alert enable always trigger append_only;
alter table ledger.budget_alert enable always trigger never_truncated;
