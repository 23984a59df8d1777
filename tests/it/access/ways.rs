//! Every way around append-only that is known, tried as every role.
//!
//! What an INSERT can forge is not stopped here: the daemon, the owner and a superuser may add rows that nobody published.
//! Such a row has no entry, or an entry that the tree's head does not cover: `ledgerd verify` finds it.

use super::{
    Authenticated, Chairman, Claimant, Daemon, EVERYBODY, Installed, Owner, Reader, ServiceRole, Superuser, attempt,
    text,
};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};
use std::collections::BTreeSet;

/// A change of each table; none of them may pass, whoever tries.
const CHANGES: [(&str, &str); 33] = [
    ("ledger.budget_alert", "published_at = null"),
    ("ledger.budget_alert", "spent_usd = 0"),
    ("ledger.checkpoint", "note = 'forged'"),
    ("ledger.cosignature", "line = 'forged'"),
    ("ledger.counted", "through = 0"),
    ("ledger.dead_letter", "published_at = null"),
    ("ledger.dead_letter", "reason = 'forged'"),
    ("ledger.batch", "payloads[1] = 'forged'"),
    ("ledger.batch", "payloads[1] = null, erased = 1"),
    ("ledger.batch", "payloads = payloads"),
    ("ledger.epoch", "stream = 'forged'"),
    ("ledger.erased", "payload_sha256 = sha256('forged')"),
    ("ledger.erasure", "authorized_by = 'forged'"),
    ("ledger.export", "location = 'forged'"),
    ("ledger.gap", "why = 'forged'"),
    ("ledger.identity", "id = gen_random_uuid()"),
    ("ledger.notice", "type = 'forged'"),
    ("ledger.position", "sequence = 0"),
    ("ledger.reconciled", "proven_at = now() - interval '1 day'"),
    ("ledger.removal", "row_key = 'forged'"),
    ("ledger.resolution", "settled_at = now()"),
    ("ledger.resolution", "decided_by = 'forged'"),
    ("ledger.run", "findings = 0"),
    ("ledger.subtree", "hash = sha256('forged')"),
    ("ledger.token_usage", "cost_usd = 0"),
    ("ledger.tree_head", "size = 0"),
    ("public.audit_events", "actor = 'forged'"),
    ("public.decision_trails", "outcome = 'forged'"),
    ("public.economic_metrics", "metric_value = 0"),
    ("public.token_ledger", "exact_cost = 0"),
    ("public.token_ledger", "total_cost = 0"),
    ("public.token_ledger", "agent_name = 'forged'"),
    ("public.tool_usage_ledger", "venture_id = null"),
];

/// What is refused to everybody, a superuser who has not declared it included.
const WAYS: [&str; 52] = [
    // Writing under another name.
    "insert into public.audit_events (event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text)
        select event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text from public.audit_events
        on conflict (event_id) do update set actor = 'forged'",
    "insert into public.decision_trails (trail_id, council_vote, proposal, outcome) values ('D', '{}', '{}', 'forged')
        on conflict (trail_id) do update set outcome = excluded.outcome",
    "merge into public.audit_events using (select 1) as one on true when matched then update set actor = 'forged'",
    "merge into public.audit_events using (select 1) as one on true when matched then delete",
    "with gone as (delete from ledger.batch returning *) select count(*) from gone",
    "do $$ begin delete from public.economic_metrics; end $$",
    "update ledger.tool_usage set cost_usd = 0",
    "delete from ledger.tool_usage",
    "update ledger.entry set payload = 'forged'",
    "delete from ledger.entry",
    "update ledger.journal set record_id = 'forged'",
    "delete from public.audit_events_integrity",
    "delete from ledger.metric_in_force",
    // The triggers' sleep.
    "alter table public.audit_events disable trigger all",
    "alter table public.audit_events disable trigger append_only",
    "alter table public.audit_events enable trigger append_only",
    "alter table ledger.tree_head disable trigger user",
    "do $$ begin execute 'alter table ledger.batch disable trigger all'; end $$",
    "alter trigger append_only on ledger.batch rename to another",
    "create or replace trigger append_only before update on ledger.batch
        for each row when (false) execute function ledger.refuse_change()",
    "drop trigger append_only on public.audit_events",
    "drop trigger never_truncated on ledger.batch",
    // The triggers' functions.
    "create or replace function ledger.refuse_change() returns trigger language plpgsql as 'begin return new; end'",
    "create or replace function ledger.allow_growth_only() returns trigger language plpgsql as 'begin return new; end'",
    "alter function ledger.refuse_change() set search_path = public",
    "alter function ledger.refuse_change() set schema public",
    "alter function ledger.refuse_change() rename to another",
    "drop function ledger.refuse_change() cascade",
    "create temporary table ventures (id uuid);
        create function pg_temp.to_jsonb(anyelement) returns jsonb language sql as $$ select '{}'::jsonb $$;
        set local search_path = pg_temp, public;
        update public.tool_usage_ledger set cost_usd = 0",
    // The tables themselves.
    "drop table public.audit_events cascade",
    "drop table ledger.batch cascade",
    "drop schema ledger cascade",
    "drop owned by ledgerd_owner cascade",
    "drop view ledger.tool_usage",
    "alter table public.audit_events alter column task_id type text using 'forged'",
    "alter table ledger.dead_letter alter column rejected_at type text using 'forged'",
    "alter table public.decision_trails alter column outcome type text using 'forged'",
    "alter table public.audit_events add column another double precision default random()",
    "alter table public.audit_events drop column task_id",
    "alter table public.audit_events drop constraint audit_events_event_id_key",
    "alter table public.audit_events rename to another",
    "alter table ledger.batch set schema public",
    "alter schema ledger rename to another",
    "alter schema public rename to another",
    // Another table, rule or view in its place.
    "create rule forged as on insert to public.audit_events do instead nothing",
    "create rule forged as on update to ledger.journal do instead delete from ledger.batch",
    "create table public.child () inherits (public.audit_events)",
    "create table public.child (like public.audit_events); alter table public.child inherit public.audit_events",
    "create or replace view ledger.metric_in_force as
        select metric_key, 0::numeric as metric_value, period, set_by, created_at, id from public.economic_metrics",
    // What tool_usage_ledger refers to.
    "truncate public.agent_registry cascade",
    "drop table public.ventures cascade",
    "drop policy ledger_no_update on public.tool_usage_ledger",
];

/// What only a superuser can do. From there on nothing in the database stops anybody: `ledgerd check` says what is missing,
/// and `ledgerd verify` compares every row with the tree, and the tree with the checkpoints that were released.
const OF_A_SUPERUSER: [&str; 11] = [
    "set local ledgerd.migrating = on; alter table public.audit_events disable trigger all",
    "set local ledgerd.migrating = on; drop table ledger.batch cascade",
    "drop event trigger ledgerd_refuses_changes",
    "alter event trigger ledgerd_refuses_drops disable",
    "create or replace function ledger_guard.is_declared() returns boolean language sql as 'select true'",
    "delete from ledger_guard.relation",
    "drop schema ledger_guard cascade",
    "update pg_catalog.pg_trigger set tgenabled = 'D'",
    "set local session_replication_role = replica",
    "alter role ledgerd_daemon superuser",
    "set session authorization postgres",
];

/// Every table of the ledger; those of later versions too. Left out are what `sqlx` keeps, and what is no evidence.
async fn tables(installed: &Installed) -> BTreeSet<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%s.%s', nspname, relname)
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relkind in ('r', 'p') and (
            nspname = 'ledger' and relname not in ('migration', 'refusal', 'notify_target', 'notify_position', 'notification')
            or nspname = 'public' and relname not in ('agent_registry', 'tool_registry', 'ventures')
        )",
    )
    .fetch_all(&mut installed.database.connect().await)
    .await
    .expect("the catalog");
    tables.into_iter().collect()
}

/// The content of all tables, and how their triggers stand.
async fn fingerprint(installed: &Installed) -> Vec<String> {
    let mut fingerprint = Vec::new();
    for table in tables(installed).await {
        let rows = format!("select string_agg(t::text, '|' order by t::text) from {table} as t");
        fingerprint.push(format!("{table}: {}", text(&installed.database, &rows).await));
    }
    let triggers =
        "select string_agg(format('%s %s %s', tgrelid::regclass, tgname, tgenabled), '|' order by tgrelid, tgname)
        from pg_trigger where not tgisinternal";
    fingerprint.push(text(&installed.database, triggers).await);
    fingerprint
}

async fn must_be_refused(connection: &mut PgConnection, who: super::Who, sql: &str, faults: &mut Vec<String>) {
    match attempt(connection, sql).await {
        Err(refusal) if refusal.is_of_access() => {}
        other => faults.push(format!("{who:?}: {sql}: {other:?}")),
    }
}

#[tokio::test]
async fn nobody_changes_deletes_or_truncates_a_row_of_any_table() {
    let installed = Installed::with_rows().await;
    let tables = tables(&installed).await;
    let named: BTreeSet<String> = CHANGES.iter().map(|(table, _)| (*table).to_owned()).collect();
    assert_eq!(named, tables, "each table has its line in CHANGES");
    let before = fingerprint(&installed).await;
    assert!(before.iter().all(|line| !line.ends_with(": ")), "a row in each table, or no trigger is met: {before:#?}");

    let mut statements: Vec<String> = CHANGES.map(|(table, change)| format!("update {table} set {change}")).into();
    for table in &tables {
        let deed = [format!("delete from {table}"), format!("truncate {table}"), format!("truncate {table} cascade")];
        statements.extend(deed);
    }
    let asleep: Vec<String> = statements
        .iter()
        .map(|statement| format!("set local session_replication_role = replica; {statement}"))
        .collect();
    let as_owner: Vec<String> =
        statements.iter().map(|statement| format!("set local role ledgerd_owner; {statement}")).collect();
    statements.extend(asleep);
    statements.extend(as_owner);

    let mut faults = Vec::new();
    for who in EVERYBODY {
        let mut connection = installed.connect(who).await;
        for statement in &statements {
            must_be_refused(&mut connection, who, statement, &mut faults).await;
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(fingerprint(&installed).await, before);
}

#[tokio::test]
async fn no_other_way_around_append_only_is_open_to_any_role() {
    let installed = Installed::with_rows().await;
    let before = fingerprint(&installed).await;
    let mut faults = Vec::new();
    for who in EVERYBODY {
        let mut connection = installed.connect(who).await;
        for way in WAYS {
            must_be_refused(&mut connection, who, way, &mut faults).await;
        }
        for way in OF_A_SUPERUSER {
            if who == Superuser {
                attempt(&mut connection, way).await.unwrap_or_else(|refusal| panic!("{way}: {refusal:?}"));
            } else {
                must_be_refused(&mut connection, who, way, &mut faults).await;
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(fingerprint(&installed).await, before);
}

/// An id that a writer chose could take the place of one to come, and halt the lane.
#[tokio::test]
async fn ids_are_the_databases_to_give() {
    let installed = Installed::with_rows().await;
    let columns_and_values = [
        (
            "public.audit_events",
            "event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text",
            "'F', 'a', 'a', 'o', now(), 'h', 't'",
        ),
        ("public.decision_trails", "trail_id, council_vote, proposal, outcome", "'F', '{}', '{}', 'o'"),
        ("public.economic_metrics", "metric_key, metric_value", "'F', 1"),
        (
            "ledger.token_usage",
            "agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given",
            "'F', 'F', true, now(), 1, 1, 1, true",
        ),
        (
            "ledger.resolution",
            "leaf_index, round, action, decided_by, why, event_id",
            "1, 1, 'DISCARDED', 'F', 'w', 'F'",
        ),
        (
            "ledger.budget_alert",
            "agent_name, date, old_status, new_status, spent_usd, limit_usd, limit_key, raised_at",
            "'F', now(), 'a', 'b', 1, 1, 'k', now()",
        ),
    ];
    // The owner and a superuser may: a row without an entry is what `ledgerd verify` finds.
    for who in [Daemon, Reader, Chairman, Authenticated, Claimant, ServiceRole] {
        let mut connection = installed.connect(who).await;
        let mut faults = Vec::new();
        for (table, columns, values) in columns_and_values {
            let insert = format!("insert into {table} (id, {columns}) overriding system value values (1000, {values})");
            must_be_refused(&mut connection, who, &insert, &mut faults).await;
            let copy = connection.copy_in_raw(&format!("copy {table} (id, {columns}) from stdin")).await.map(|_| ());
            let code = copy.err().and_then(|error| error.as_database_error()?.code().map(std::borrow::Cow::into_owned));
            if code.as_deref() != Some("42501") {
                faults.push(format!("{who:?}: copy {table}: {code:?}"));
            }
        }
        let epoch =
            "insert into ledger.epoch (epoch, stream, stream_created_ns) overriding system value values (1000, 'F', 1)";
        must_be_refused(&mut connection, who, epoch, &mut faults).await;
        let published = "insert into ledger.dead_letter values (1000, 'r', 'd', 'F', now(), now())";
        must_be_refused(&mut connection, who, published, &mut faults).await;
        assert!(faults.is_empty(), "{faults:#?}");
    }
    // Without an id, each of them is a row.
    let mut daemon = installed.connect(Daemon).await;
    for (table, columns, values) in columns_and_values {
        let insert = format!("insert into {table} ({columns}) values ({values})");
        assert_eq!(attempt(&mut daemon, &insert).await.map_err(|refusal| refusal.what), Ok(1), "{insert}");
    }
}

#[tokio::test]
async fn the_guards_leave_alone_what_is_not_the_ledgers() {
    let installed = Installed::with_rows().await;
    for harmless in [
        "create table public.fine (x int); alter table public.fine add y int; alter table public.fine alter x type text;
            create index on public.fine (y); drop table public.fine",
        "create temporary table entry (x int); alter table entry add y int; drop table entry",
        "create schema fine; alter schema fine rename to finer; create function finer.refuse_change() returns int
            language sql as 'select 1'; drop schema finer cascade",
        "create index on public.audit_events (created_at)",
        "comment on table ledger.batch is 'custody'",
        "create table public.fine (event_id varchar(255) references public.audit_events (event_id))",
        "alter table public.ventures add column name text",
        "grant select on public.audit_events to service_role",
    ] {
        let done = installed.attempt(Superuser, harmless).await;
        assert!(done.is_ok(), "{harmless}: {done:?}");
    }
    // Nor does it take a role of ours to change what is one's own.
    let mut connection = installed.connect(Reader).await;
    let own = "create temporary table own (x int); alter table own add y int; drop table own";
    (&mut connection).execute(AssertSqlSafe(own.to_owned())).await.expect("a table of its own");
    assert!(installed.attempt(Owner, own).await.is_ok());
}
