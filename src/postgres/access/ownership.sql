-- What is ours in this database belongs to ledgerd_owner, whom nobody is by accident; and readers read it.
-- Nothing is touched that is right already: a change of owner locks the table, and the daemon may be writing.
do $$
declare
    found    record;
    migrator constant oid := (select relowner from pg_class where oid = 'ledger.batch'::regclass);
begin
    -- A new owner must be allowed to create in the schema, unless a superuser says so.
    if not (select rolsuper from pg_roles where rolname = current_user) then
        grant create on schema public to ledgerd_owner;
    end if;

    if (select nspowner from pg_namespace where nspname = 'ledger') <> 'ledgerd_owner'::regrole then
        alter schema ledger owner to ledgerd_owner;
    end if;

    for found in
        select oid::regprocedure as routine
        from pg_proc
        where pronamespace = 'ledger'::regnamespace and proowner <> 'ledgerd_owner'::regrole
    loop
        execute format('alter routine %s owner to ledgerd_owner', found.routine);
    end loop;

    -- Ours whatever they look like: what this program's migrations alone make.
    for found in
        select oid, format('%I.%I', schema, name) as relation
        from (:relations) as relation
        where relowner <> 'ledgerd_owner'::regrole
            and (schema, name) <> ('public', 'tool_usage_ledger')
            and not (schema = 'ledger' and name in (
                'tool_usage', 'tool_usage_for_chairman', 'known_agent', 'known_tool', 'known_venture'
            ))
    loop
        execute format('alter table %s owner to ledgerd_owner', found.relation);
    end loop;

    -- The registries, and the table that refers to them, are ours where they are as our migration makes them in a database
    -- that has none: in the hands of whoever migrated, with nothing but an id. Elsewhere they keep their owner.
    for found in
        select format('%I', relname) as relation
        from pg_class
        where relnamespace = 'public'::regnamespace
            and relname in ('agent_registry', 'tool_registry', 'ventures')
            and relowner in (migrator, current_user::regrole)
            and relowner <> 'ledgerd_owner'::regrole
            and relnatts = 1
    loop
        execute format('alter table public.%s owner to ledgerd_owner', found.relation);
    end loop;
    if (select relowner from pg_class where oid = 'public.tool_usage_ledger'::regclass) <> 'ledgerd_owner'::regrole
        and not exists (
            select
            from pg_class
            where oid in ('public.agent_registry'::regclass, 'public.tool_registry'::regclass, 'public.ventures'::regclass)
                and relowner <> 'ledgerd_owner'::regrole
        )
    then
        alter table public.tool_usage_ledger owner to ledgerd_owner;
    end if;

    -- A view acts with its owner's rights, and only the owner of a table is free of its policies: so each of the daemon's
    -- doors belongs to the owner of what is behind it; and the ledger's own functions may look through it.
    for found in
        select format('%I', view.relname) as door, behind.relowner::regrole as owner
        from pg_class as view
        join (
            values
                ('tool_usage', 'tool_usage_ledger'),
                ('tool_usage_for_chairman', 'tool_usage_ledger'),
                ('known_agent', 'agent_registry'),
                ('known_tool', 'tool_registry'),
                ('known_venture', 'ventures')
        ) as pair (door, name) on pair.door = view.relname
        join pg_class as behind on behind.relnamespace = 'public'::regnamespace and behind.relname = pair.name
        where view.relnamespace = 'ledger'::regnamespace and view.relowner <> behind.relowner
    loop
        execute format(
            'alter view ledger.%s owner to %s; grant select on ledger.%1$s to ledgerd_owner',
            found.door,
            found.owner
        );
    end loop;

    if not (select rolsuper from pg_roles where rolname = current_user) then
        revoke create on schema public from ledgerd_owner;
    end if;

    grant usage on schema ledger, public to ledgerd_reader;
    for found in
        select format('%I.%I', schema, name) as relation
        from (:relations) as relation
        where (schema, name) <> ('public', 'tool_usage_ledger')
    loop
        execute format('revoke all on %s from ledgerd_reader; grant select on %1$s to ledgerd_reader', found.relation);
    end loop;
end
$$;
