-- The document "tool_usage_ledger": to the letter, and also into a database that has it, or what is around it, already.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['authenticated', 'service_role'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception
                -- Another database of this server was migrated at the same time.
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then
                    raise exception 'the role % is missing, and % may not create it', wanted, current_user
                        using errcode = 'insufficient_privilege',
                            hint = format('let a superuser run: create role %I nologin', wanted);
            end;
        end if;
    end loop;
end
$$;

do $create$
begin
    if to_regprocedure('public.fn_is_chairman()') is null then
        -- True for the chairman's claims, and false where they are absent or no JSON.
        create function public.fn_is_chairman() returns boolean
            language plpgsql
            stable
            set search_path = pg_catalog, pg_temp
        as $$
        declare
            claims jsonb;
        begin
            claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
            return coalesce(
                claims ->> 'role' = 'chairman' or claims ->> 'sub' = '00000000-0000-0000-0000-000000000001',
                false
            );
        exception
            -- No JSON, or JSON that jsonb cannot hold.
            when data_exception then return false;
        end
        $$;
    end if;
end
$create$;

-- What usage refers to. Minimal, where the database does not have them.
create table if not exists public.agent_registry (id uuid primary key default gen_random_uuid());
create table if not exists public.tool_registry (id uuid primary key default gen_random_uuid());
create table if not exists public.ventures (id uuid primary key default gen_random_uuid());

create table if not exists public.tool_usage_ledger (
    id              uuid          not null default gen_random_uuid(),
    agent_id        uuid          not null,
    venture_id      uuid,
    tool_id         uuid          not null,
    tokens_consumed integer       default 0,
    cost_usd        numeric(10,6) default 0,
    execution_ms    integer,
    created_at      timestamptz   not null default now(),
    constraint tool_usage_ledger_pkey primary key (id),
    constraint tool_usage_ledger_agent_id_fkey foreign key (agent_id) references public.agent_registry (id) on delete restrict,
    constraint tool_usage_ledger_tool_id_fkey foreign key (tool_id) references public.tool_registry (id) on delete restrict,
    constraint tool_usage_ledger_venture_id_fkey foreign key (venture_id) references public.ventures (id) on delete set null
);

create index if not exists idx_ledger_agent on public.tool_usage_ledger using btree (agent_id, created_at desc);
create index if not exists idx_ledger_venture_cost on public.tool_usage_ledger using btree (venture_id, created_at desc, cost_usd);

alter table public.tool_usage_ledger enable row level security;

do $$
declare
    has constant name[] := array(
        select polname from pg_catalog.pg_policy where polrelid = 'public.tool_usage_ledger'::regclass
    );
begin
    if 'chairman_read_ledger' <> all (has) then
        create policy chairman_read_ledger on public.tool_usage_ledger
            for select to authenticated using (public.fn_is_chairman());
    end if;
    if 'ledger_no_delete' <> all (has) then
        create policy ledger_no_delete on public.tool_usage_ledger for delete to authenticated using (false);
    end if;
    if 'ledger_no_update' <> all (has) then
        create policy ledger_no_update on public.tool_usage_ledger for update to authenticated using (false);
    end if;
    if 'service_role_all_ledger' <> all (has) then
        create policy service_role_all_ledger on public.tool_usage_ledger
            for all to service_role using (true) with check (true);
    end if;
end
$$;

grant usage on schema public to authenticated, service_role;
grant select on public.tool_usage_ledger to authenticated;
grant select, insert on public.tool_usage_ledger to service_role;

-- The daemon's doors: a view acts with its owner's rights, so the daemon needs neither a fifth policy nor a share in
-- service_role, and sees of the registries only which ids there are.
--
-- Who reported a use: the last token of the subject, which the credentials decide. It reads custody with the rights of whoever asks.
create function ledger.tool_usage_author(usage_id uuid) returns text
    language plpgsql
    stable
    set search_path = pg_catalog
as $$
begin
    return (
        select split_part(entry.subject, '.', 3)
        from ledger.entries_by_record(usage_id::text) as entry
        where entry.disposition = 'recorded' and split_part(entry.subject, '.', 2) = 'USAGE'
        order by entry.leaf_index
        limit 1
    );
end
$$;
create view ledger.tool_usage as
select id, agent_id, venture_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at,
    ledger.tool_usage_author(id) as author
from public.tool_usage_ledger;
create view ledger.known_agent as select id from public.agent_registry;
create view ledger.known_tool as select id from public.tool_registry;
create view ledger.known_venture as select id from public.ventures;

-- The chairman's door: the policy's question is put once, and not to each row. A report over 100,000 rows takes a
-- tenth of the time.
create view ledger.tool_usage_for_chairman with (security_barrier) as
select id, agent_id, venture_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at
from public.tool_usage_ledger
where (select public.fn_is_chairman());

grant usage on schema ledger to authenticated;
grant select on ledger.tool_usage_for_chairman to authenticated;

-- Append-only, for the roles that no policy binds too. One change is the specification's own: a venture that is deleted
-- leaves its usage behind (ON DELETE SET NULL).
-- It looks with its owner's eyes: whoever deletes a venture need not see all of them.
create function ledger.allow_only_a_deleted_venture() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if old.venture_id is not null and new.venture_id is null
        and to_jsonb(new) - 'venture_id' = to_jsonb(old) - 'venture_id'
        and not exists (select from ledger.known_venture where id = old.venture_id)
    then
        return new;
    end if;
    raise exception 'the ledger is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create trigger append_only_but_ventures before update on public.tool_usage_ledger
    for each row execute function ledger.allow_only_a_deleted_venture();
create trigger append_only before delete on public.tool_usage_ledger
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on public.tool_usage_ledger
    for each statement execute function ledger.refuse_change();
alter table public.tool_usage_ledger enable always trigger append_only_but_ventures;
alter table public.tool_usage_ledger enable always trigger append_only;
alter table public.tool_usage_ledger enable always trigger never_truncated;
