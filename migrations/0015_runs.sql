-- What the console and `ledgerd status` say of the ledger's own state: when it was last checked, and how much was committed when.

-- One row for each run of `ledgerd verify` and `ledgerd reconcile` that came to an end. It tells people when somebody looked, and
-- what was found; it is no evidence, for whoever may write here may invent a run.
create table ledger.run (
    id              bigint      generated always as identity primary key,
    what            text        not null check (what in ('verify', 'reconcile')),
    -- whole: everything; new: what no earlier run had proven; range: the specification's hash over a time range.
    scope           text        not null check (scope in ('whole', 'new', 'range')),
    started_at      timestamptz not null,
    ended_at        timestamptz not null default clock_timestamp(),
    -- How many were looked at: leaves, sequences, or rows of the time range.
    entries         bigint      not null check (entries >= 0),
    -- How many differences there were. The summary names the first of them.
    findings        bigint      not null check (findings >= 0),
    summary         jsonb       not null check (octet_length(summary::text) <= 16384),
    program_version text        not null,
    -- The login that the database saw, whatever the run says of itself.
    by_role         text        not null default session_user,
    constraint run_in_order check (ended_at >= started_at)
);

-- "When was it last checked as a whole?"
create index run_newest on ledger.run (what, scope, id);

create trigger append_only before update or delete on ledger.run
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.run
    for each statement execute function ledger.refuse_change();
alter table ledger.run enable always trigger append_only;
alter table ledger.run enable always trigger never_truncated;

-- The first leaf that was committed at this moment or later; the tree's size where there is none. Commits take their leaves in the
-- order of time, so a search by halves finds it without an index on the time, which every commit would have to keep. Where the
-- database's clock went back, it is right to within that step. `from_leaf` narrows the search: the answer is known to lie there
-- or later.
create function ledger.leaf_at(moment timestamptz, from_leaf bigint default 0) returns bigint
    language plpgsql
    stable
    set search_path = pg_catalog
as $$
declare
    low    bigint := from_leaf;
    high   bigint;
    middle record;
begin
    select first_leaf + leaves into high from ledger.batch order by first_leaf desc limit 1;
    while low < high loop
        select first_leaf, leaves, committed_at into middle
        from ledger.batch
        where first_leaf <= (low + high) / 2
        order by first_leaf desc
        limit 1;
        if middle.committed_at >= moment then
            high := middle.first_leaf;
        else
            low := middle.first_leaf + middle.leaves;
        end if;
    end loop;
    return low;
end
$$;

-- "Since when is this agent over its limit?"
create index budget_alert_day on ledger.budget_alert (agent_name, date, id);

-- "What was lost lately?"
create index gap_noticed on ledger.gap (noticed_at);

-- "What did this agent's day consist of?"
create index token_usage_day on ledger.token_usage (agent_name, date, id);
