-- The four roles. None of them logs in: an operator's own logins are made members.
--
-- Roles belong to the whole server. Another database may have made them, or be about to: so each step looks first, and
-- what comes about in between is as good as done.
do $$
declare
    wanted  text;
    granted text;
    member  text;
begin
    foreach wanted in array array['ledgerd_owner', 'ledgerd_daemon', 'ledgerd_reader', 'ledgerd_chairman'] loop
        continue when to_regrole(wanted) is not null;
        begin
            execute format('create role %I nologin', wanted);
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;

    for granted, member in
        -- The chairman reads what every reader reads, and tool_usage_ledger itself by way of its policy.
        values
            ('ledgerd_reader', 'ledgerd_chairman'),
            ('authenticated', 'ledgerd_chairman')
        union all
        -- Only a member can give something to a role, and alter later what it gave away; a superuser need not be one.
        select 'ledgerd_owner', current_user::text
        from pg_roles
        where rolname = current_user and not rolsuper
    loop
        continue when pg_has_role(member, granted, 'usage');
        begin
            execute format('grant %I to %I', granted, member);
        exception
            when unique_violation then null;
        end;
    end loop;

    -- Whoever turns a group into a login (`alter role ledgerd_reader login`) gets a session that cannot write. The members'
    -- sessions follow their own settings: PostgreSQL does not inherit these.
    if not exists (select from pg_db_role_setting where setrole = to_regrole('ledgerd_reader') and setdatabase = 0) then
        begin
            alter role ledgerd_reader set default_transaction_read_only = on;
        exception
            when unique_violation then null;
        end;
    end if;
end
$$;
