-- The guards: event triggers that refuse what no trigger on a table can see, changes of the tables themselves.
--
-- They stop accidents, and they stop the owner. They do not stop a superuser, who can drop them: that is what
-- `ledgerd check` reports, and what `ledgerd verify` shows from the rows. A change that must be is declared,
--
--     set ledgerd.migrating = on;
--
-- and the declaration counts only from those who could drop the guards as well: so it opens no door, it keeps hands off
-- the handle. `ledgerd migrate` declares its own changes.
--
-- A schema of their own: the owner of a schema may drop whatever is in it.
create schema if not exists ledger_guard;
alter schema ledger_guard owner to current_user;
grant usage on schema ledger_guard to public;

-- By name, for a name survives dump and restore; by oid, where the name has been taken away.
create table if not exists ledger_guard.relation (
    schema       name not null,
    name         name not null,
    relation_oid oid  not null,
    primary key (schema, name)
);
delete from ledger_guard.relation;
insert into ledger_guard.relation (schema, name, relation_oid)
select schema, name, oid
from (:relations) as relation
-- Where migrations are noted, by a program that others wrote.
where (schema, name) <> ('ledger', 'migration');

create or replace view ledger_guard.guarded as
select relation.schema, relation.name, class.oid, class.relnamespace, named.oid is null as is_renamed
from ledger_guard.relation
left join (pg_catalog.pg_class as named join pg_catalog.pg_namespace as namespace on namespace.oid = named.relnamespace)
    on (namespace.nspname, named.relname) = (relation.schema, relation.name)
join pg_catalog.pg_class as class on class.oid = coalesce(named.oid, relation.relation_oid);
grant select on ledger_guard.relation, ledger_guard.guarded to public;

create or replace function ledger_guard.is_declared() returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(current_setting('ledgerd.migrating', true) = 'on', false)
        and exists (
            select from pg_event_trigger
            where evtname = 'ledgerd_refuses_changes' and pg_has_role(evtowner, 'usage')
        )
$$;

create or replace function ledger_guard.refuse(what text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'the ledger is append-only: % is refused', what
        using errcode = 'insufficient_privilege',
            hint = 'A superuser who means it declares it: set ledgerd.migrating = on';
end
$$;

-- A new type of a column, computed by any expression, writes every row anew and fires no row's trigger.
create or replace function ledger_guard.refuse_rewrite() returns event_trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    target constant oid := pg_event_trigger_table_rewrite_oid();
begin
    if target in (select oid from ledger_guard.guarded) and not ledger_guard.is_declared() then
        perform ledger_guard.refuse(format('writing %s anew', target::regclass));
    end if;
end
$$;

-- Tables, and what hangs on them: triggers, columns, constraints, policies.
create or replace function ledger_guard.refuse_drop() returns event_trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    dropped text;
begin
    select format('dropping %s %s', object_type, object_identity) into dropped
    from pg_event_trigger_dropped_objects()
    where schema_name in ('ledger', 'ledger_guard')
        or object_type = 'schema' and object_name in ('ledger', 'ledger_guard')
        -- What is gone cannot be looked up any more: its table's name is what is left.
        or (address_names[1], address_names[2]) in (select schema::text, name::text from ledger_guard.relation)
    limit 1;
    if dropped is not null and not ledger_guard.is_declared() then
        perform ledger_guard.refuse(dropped);
    end if;
end
$$;

-- Everything else: a disabled trigger, a rule, a policy, a new name, a replaced function, a child whose rows would be read
-- as the ledger's. Only what a command has done can be seen, and that is enough: the refusal undoes it.
create or replace function ledger_guard.refuse_change() returns event_trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    changed text;
begin
    select format('%s %s', command_tag, object_identity) into changed
    from pg_event_trigger_ddl_commands()
    where command_tag <> 'COMMENT'
        and case classid
            when 'pg_class'::regclass then
                objid in (select oid from ledger_guard.guarded)
                or exists (select from pg_inherits where inhrelid = objid and inhparent in (select oid from ledger_guard.guarded))
            when 'pg_trigger'::regclass then
                (select tgrelid from pg_trigger where oid = objid) in (select oid from ledger_guard.guarded)
            when 'pg_rewrite'::regclass then
                (select ev_class from pg_rewrite where oid = objid) in (select oid from ledger_guard.guarded)
            when 'pg_policy'::regclass then
                (select polrelid from pg_policy where oid = objid) in (select oid from ledger_guard.guarded)
            when 'pg_proc'::regclass then
                schema_name in ('ledger', 'ledger_guard')
                or objid in (select tgfoid from pg_trigger where tgrelid in (select oid from ledger_guard.guarded))
            when 'pg_namespace'::regclass then
                objid in (select relnamespace from ledger_guard.guarded where is_renamed)
        end
    limit 1;
    if changed is not null and not ledger_guard.is_declared() then
        perform ledger_guard.refuse(changed);
    end if;
end
$$;

drop event trigger if exists ledgerd_refuses_rewrites;
drop event trigger if exists ledgerd_refuses_drops;
drop event trigger if exists ledgerd_refuses_changes;
create event trigger ledgerd_refuses_rewrites on table_rewrite execute function ledger_guard.refuse_rewrite();
create event trigger ledgerd_refuses_drops on sql_drop execute function ledger_guard.refuse_drop();
create event trigger ledgerd_refuses_changes on ddl_command_end execute function ledger_guard.refuse_change();
-- An ordinary one sleeps while session_replication_role is `replica`.
alter event trigger ledgerd_refuses_rewrites enable always;
alter event trigger ledgerd_refuses_drops enable always;
alter event trigger ledgerd_refuses_changes enable always;
