//! A database that has a life of its own: its registries belong to its platform, its roles are there, each new table is given
//! to all of them, and `tool_usage_ledger` stands already.

use super::{Authenticated, Chairman, Claimant, Installed, REGISTERED, Reader, ServiceRole, Superuser, text};
use crate::support::postgres::Database;

/// As a platform makes it, after its document; `{platform}` owns it.
const PLATFORM: &str = r"
    do $$
    declare wanted text;
    begin
        foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
            begin
                execute format('create role %I nologin', wanted);
            exception when duplicate_object or unique_violation then null;
            end;
        end loop;
    end $$;
    grant create, usage on schema public to {platform};
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
    set role {platform};
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
    create function public.fn_is_chairman() returns boolean language sql stable as $$
        select coalesce(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'role' = 'chairman', false)
    $$;
    create table public.agent_registry (id uuid primary key, name text, tier text);
    create table public.tool_registry (id uuid primary key, name text);
    create table public.ventures (id uuid primary key, name text, stage int);
    alter table public.agent_registry enable row level security;
    alter table public.tool_registry enable row level security;
    alter table public.ventures enable row level security;
    create table public.tool_usage_ledger (
        id uuid primary key default gen_random_uuid(),
        agent_id uuid not null references public.agent_registry (id) on delete restrict,
        venture_id uuid references public.ventures (id) on delete set null,
        tool_id uuid not null references public.tool_registry (id) on delete restrict,
        tokens_consumed integer default 0,
        cost_usd numeric(10,6) default 0,
        execution_ms integer,
        created_at timestamptz not null default now()
    );
    alter table public.tool_usage_ledger enable row level security;
    create policy chairman_read_ledger on public.tool_usage_ledger for select to authenticated using (public.fn_is_chairman());
    create policy ledger_no_delete on public.tool_usage_ledger for delete to authenticated using (false);
    create policy ledger_no_update on public.tool_usage_ledger for update to authenticated using (false);
    create policy service_role_all_ledger on public.tool_usage_ledger for all to service_role using (true) with check (true);
";

/// Everything about the platform's own tables but the ledger's triggers.
const SHAPE: &str = "
    select string_agg(line, e'\n' order by line)
    from (
        select format('%s belongs to %s', oid::regclass, relowner::regrole) as line
        from pg_class
        where oid = any (array['public.agent_registry', 'public.tool_registry', 'public.ventures', 'public.tool_usage_ledger']::regclass[])
        union all
        select format('%s.%s %s', attrelid::regclass, attname, atttypid::regtype)
        from pg_attribute
        where attrelid = any (array['public.agent_registry', 'public.ventures', 'public.tool_usage_ledger']::regclass[]) and attnum > 0
        union all
        select format('%s: %s %s', polname, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) from pg_policy
        union all
        select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'public.tool_usage_ledger'::regclass
    ) as lines";

#[tokio::test]
async fn a_platforms_own_tables_stay_its_own_and_the_daemon_works_beside_them() {
    let database = Database::fresh().await;
    let platform = database.create_role("platform").await;
    database.execute(&PLATFORM.replace("{platform}", &platform)).await;
    let before = text(&database, SHAPE).await;
    assert!(before.contains(&format!("tool_usage_ledger belongs to {platform}")), "{before}");

    let installed = Installed::into(database).await;
    assert_eq!(text(&installed.database, SHAPE).await, before, "not a column, policy or owner has changed");
    installed.migrate(&[]).await;
    assert_eq!(text(&installed.database, SHAPE).await, before);

    // The registries hide their rows from everybody but their owner; the daemon's doors lead there all the same.
    installed.database.execute(REGISTERED).await;
    installed.write_as_the_daemon().await;
    for (who, rows) in [(Reader, true), (Chairman, true), (Authenticated, false), (ServiceRole, false)] {
        assert_eq!(installed.attempt(who, "select * from ledger.tool_usage").await.is_ok(), rows, "{who:?}");
    }

    // What was given away with each new table is taken back from ours.
    for table in ["public.audit_events", "public.token_ledger", "public.decision_trails", "public.economic_metrics"] {
        for who in [Authenticated, Claimant, ServiceRole] {
            for attempt in ["select * from", "delete from", "truncate"] {
                let refusal = installed.attempt(who, &format!("{attempt} {table}")).await;
                assert_eq!(
                    refusal.map_err(|refusal| refusal.code),
                    Err("42501".to_owned()),
                    "{who:?}: {attempt} {table}"
                );
            }
        }
    }
    // The platform's table took the triggers, and its owner's rights end there.
    for (change, passes) in [
        ("update public.tool_usage_ledger set cost_usd = 0", false),
        ("delete from public.tool_usage_ledger", false),
        ("alter table public.tool_usage_ledger disable trigger all", false),
        ("alter table public.tool_usage_ledger alter column cost_usd type numeric using 0", false),
        ("delete from public.ventures", true),
        ("alter table public.ventures add column closed boolean", true),
    ] {
        let statement = format!("set local role {platform}; {change}");
        let done = installed.attempt(Superuser, &statement).await;
        assert_eq!(done.is_ok(), passes, "{change}: {done:?}");
    }
}
