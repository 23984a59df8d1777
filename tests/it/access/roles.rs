//! The four roles: what each may do, how they come about, and what `ledgerd check` says of them.

use super::{
    Authenticated, Chairman, DAEMON_WRITES, Daemon, Installed, Owner, REGISTERED, Reader, ServiceRole, Superuser,
    attempt, migrate, text,
};
use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::events::{bad_events, good_events};
use crate::support::ledger::check_ledger;
use crate::support::postgres::{Cluster, Database};
use crate::support::published::Published;
use crate::support::world::World;
use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::sync::Arc;

const OWNED: &str = "
    select string_agg(distinct owner, ', ')
    from (
        select relowner::regrole::text as owner from pg_class where relnamespace = 'ledger'::regnamespace
        union all
        select proowner::regrole::text from pg_proc where pronamespace = 'ledger'::regnamespace
        union all
        select nspowner::regrole::text from pg_namespace where nspname = 'ledger'
        union all
        select relowner::regrole::text from pg_class where relnamespace = 'public'::regnamespace
    ) as owners";

#[tokio::test]
async fn the_whole_daemon_works_as_a_mere_member_of_ledgerd_daemon() {
    let world = World::builder().group_roles().start().await;
    assert_eq!(text(&world.database, OWNED).await, "ledgerd_owner");
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(50)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (50, published.bad()));
}

#[tokio::test]
async fn a_reader_and_the_chairman_read_everything_and_write_nothing() {
    let installed = Installed::with_rows().await;
    let relations = "select string_agg(format('%s.%s', nspname, relname), ' ')
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relkind in ('r', 'v') and (
            nspname = 'ledger' or nspname = 'public' and relname not in ('agent_registry', 'tool_registry', 'ventures', 'tool_usage_ledger')
        )";
    let relations = text(&installed.database, relations).await;
    assert!(relations.split(' ').count() > 15, "{relations}");
    for who in [Reader, Chairman] {
        let mut connection = installed.connect(who).await;
        for relation in relations.split(' ') {
            let read = attempt(&mut connection, &format!("select * from {relation}")).await;
            assert!(read.is_ok(), "{who:?}: {relation}: {read:?}");
        }
        for statement in DAEMON_WRITES {
            let refusal = attempt(&mut connection, statement).await.expect_err(statement);
            assert_eq!(refusal.code, "42501", "{who:?}: {statement}");
        }
        // Where the tables are, and elsewhere.
        let table = attempt(&mut connection, "create table public.own (x int)").await;
        assert_eq!(table.map_err(|refusal| refusal.code), Err("42501".to_owned()), "{who:?}");
    }
    let setting =
        "select array_to_string(setconfig, ' ') from pg_db_role_setting where setrole = 'ledgerd_reader'::regrole";
    assert_eq!(text(&installed.database, setting).await, "default_transaction_read_only=on");
    for who in [Authenticated, ServiceRole] {
        assert!(installed.attempt(who, "select * from public.audit_events").await.is_err(), "{who:?}");
    }
}

#[tokio::test]
async fn a_migration_refreshes_the_grants_of_groups_and_of_logins() {
    let installed = Installed::start().await;
    let login = installed.database.create_role("login").await;
    installed.migrate(&["--grant", &login]).await;
    // What an earlier version knew, and what a later one brings.
    installed
        .database
        .execute(&format!(
            "revoke all on public.decision_trails, ledger.token_usage from ledgerd_daemon, ledgerd_reader, {login};
            grant insert on public.audit_events to {login};
            create table ledger.later (x int)"
        ))
        .await;
    let said = installed.migrate(&[]).await;
    assert!(said.contains(&login) && said.contains("ledgerd_daemon"), "{said}");
    assert_eq!(text(&installed.database, OWNED).await, "ledgerd_owner");
    for who in [Daemon, Reader, Chairman] {
        let read = "select * from public.decision_trails; select * from ledger.later";
        assert!(installed.attempt(who, read).await.is_ok(), "{who:?}");
    }
    let as_login = format!("set local role {login}; ");
    let insert = format!("{as_login} {}", DAEMON_WRITES[7]);
    assert_eq!(installed.attempt(Superuser, &insert).await.map_err(|refusal| refusal.what), Ok(1));
    let whole = format!("{as_login} insert into public.audit_events (id) overriding system value values (1)");
    assert_eq!(installed.attempt(Superuser, &whole).await.expect_err("not the whole row").code, "42501");
    // The guards know the new table.
    assert!(installed.attempt(Owner, "drop table ledger.later").await.is_err());
}

#[tokio::test]
async fn a_later_migration_passes_the_guards() {
    let installed = Installed::start().await;
    installed
        .database
        .execute(
            "drop view ledger.tool_usage, ledger.tool_usage_for_chairman, ledger.known_agent, ledger.known_tool, ledger.known_venture;
            drop table public.tool_usage_ledger;
            drop function ledger.tool_usage_author;
            drop function ledger.allow_only_a_deleted_venture;
            drop function public.fn_is_chairman;
            delete from ledger.migration where version = 6",
        )
        .await;
    installed.migrate(&[]).await;
    assert_eq!(text(&installed.database, OWNED).await, "ledgerd_owner");
    assert!(installed.attempt(Daemon, "select * from ledger.tool_usage").await.is_ok());
    assert!(installed.attempt(Owner, "alter table public.tool_usage_ledger disable trigger all").await.is_err());
    // As somebody who may not declare it: an error that says who may.
    installed.database.execute("delete from ledger.migration where version = 6").await;
    let database = installed.database.name().to_owned();
    installed.database.execute(&format!("grant create on database {database} to {}", installed.login(Owner))).await;
    let url = installed.database.cluster().url_as(&database, &installed.login(Owner));
    let output = migrate(&url, &[]).await;
    assert!(
        !output.status.success() && text_of(&output).contains("run `ledgerd migrate` as a superuser"),
        "{}",
        text_of(&output)
    );
}

/// A database that is its owner's alone, on a server where nobody has made the roles.
async fn provided() -> (Database, String) {
    let cluster = Cluster::start().await;
    let database = Database::on(Arc::clone(&cluster)).await;
    let owner = database.create_role("provided").await;
    database.execute(&format!("alter database {} owner to {owner}", database.name())).await;
    (database, owner)
}

#[tokio::test]
async fn who_may_not_make_a_role_is_told_what_to_run() {
    let (database, owner) = provided().await;
    let url = database.cluster().url_as(database.name(), &owner);
    let refused = migrate(&url, &[]).await;
    assert!(text_of(&refused).contains("may not create it"), "{}", text_of(&refused));
    database.execute("create role authenticated nologin; create role service_role nologin").await;
    let refused = migrate(&url, &["--roles"]).await;
    let says = format!(
        "{owner} may not create the roles ledgerd_owner, ledgerd_daemon, ledgerd_reader, ledgerd_chairman: \
         run `ledgerd migrate --roles` as a superuser"
    );
    assert!(!refused.status.success() && text_of(&refused).contains(&says), "{}", text_of(&refused));
}

#[tokio::test]
async fn a_databases_owner_with_createrole_makes_the_roles_and_can_migrate_again() {
    let (database, owner) = provided().await;
    database.execute(&format!("alter role {owner} createrole")).await;
    let url = database.cluster().url_as(database.name(), &owner);
    for arguments in [&["--roles"][..], &[], &["--roles"]] {
        let output = migrate(&url, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", text_of(&output));
        let says = "a superuser puts the guards up";
        assert!(text_of(&output).contains(says), "{}", text_of(&output));
    }
    assert_eq!(text(&database, OWNED).await, "ledgerd_owner");
    assert_eq!(
        text(&database, "select has_schema_privilege('ledgerd_owner', 'public', 'create')::text").await,
        "false"
    );
    let daemon = database.create_role("daemon").await;
    database.execute(&format!("grant ledgerd_daemon to {daemon}; {REGISTERED}")).await;
    let mut connection =
        PgConnection::connect(&database.cluster().url_as(database.name(), &daemon)).await.expect("a login");
    for statement in DAEMON_WRITES {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

#[tokio::test]
async fn an_owner_is_not_granted_the_daemons_privileges() {
    let database = Database::fresh().await;
    let output = migrate(&database.url(), &["--grant", "postgres"]).await;
    assert!(text_of(&output).contains("postgres owns the ledger's tables"), "{}", text_of(&output));
    let output = migrate(&database.url(), &["--grant", "nobody_of_this_name"]).await;
    assert!(!output.status.success());
}

/// What `ledgerd check` says about the database; nobody listens for NATS.
async fn check(database: &Database, login: &str) -> Vec<(String, String)> {
    let url = database.cluster().url_as(database.name(), login);
    let settings = [("LEDGERD__DATABASE__URL", url.as_str()), ("LEDGERD__NATS__URL", "nats://127.0.0.1:1")];
    let environment: Environment = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let output = ledgerd(&["check", "--json"], &environment).await;
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text_of(&output)));
    let lines = lines.as_array().expect("lines").iter();
    lines
        .map(|line| (line["result"].as_str().unwrap_or("").to_owned(), line["text"].as_str().unwrap_or("").to_owned()))
        .collect()
}

#[tokio::test]
async fn check_says_what_is_missing_what_is_too_much_and_what_was_disarmed() {
    let installed = Installed::start().await;
    let (database, login) = (&installed.database, installed.login(Daemon));
    let access = |lines: Vec<(String, String)>| -> Vec<(String, String)> {
        let of_access = |text: &str| ["grants:", "append-only:", "guards:"].iter().any(|start| text.starts_with(start));
        lines.into_iter().filter(|(_, text)| of_access(text)).collect()
    };
    let good = access(check(database, &login).await);
    assert!(good.len() == 3 && good.iter().all(|(result, _)| result == "ok"), "{good:?}");

    for (damage, result, says) in [
        ("revoke insert on ledger.token_usage from ledgerd_daemon", "bad", "lacks INSERT (agent_name, usage_id"),
        (
            "revoke select on public.decision_trails from ledgerd_daemon",
            "bad",
            "lacks SELECT on public.decision_trails",
        ),
        ("grant insert on public.audit_events to {login}", "warning", "INSERT (id) on public.audit_events"),
        (
            "grant update (cost_usd) on ledger.token_usage to {login}",
            "warning",
            "UPDATE (cost_usd) on ledger.token_usage",
        ),
        ("grant truncate on ledger.batch to {login}", "warning", "TRUNCATE on ledger.batch"),
        ("grant ledgerd_owner to {login}", "warning", "is an owner, whom no grant binds"),
        ("grant delete on ledger.batch to service_role", "warning", "service_role may DELETE on ledger.batch"),
        ("grant insert on public.audit_events to public", "warning", "PUBLIC may INSERT on public.audit_events"),
        (
            "alter table public.token_ledger disable trigger grows_only",
            "bad",
            "nothing refuses UPDATE on public.token_ledger",
        ),
        ("alter table ledger.batch enable trigger append_only", "bad", "nothing refuses DELETE on ledger.batch"),
        (
            "alter table ledger.epoch enable replica trigger never_truncated",
            "bad",
            "nothing refuses TRUNCATE on ledger.epoch",
        ),
        (
            "drop trigger append_only on public.tool_usage_ledger",
            "bad",
            "nothing refuses DELETE on public.tool_usage_ledger",
        ),
        (
            "create or replace trigger append_only before update or delete on ledger.batch
                for each row when (false) execute function ledger.refuse_change();
            alter table ledger.batch enable always trigger append_only",
            "bad",
            "nothing refuses DELETE on ledger.batch",
        ),
        (
            "update pg_trigger set tgenabled = 'D' where tgname = 'published_once'",
            "bad",
            "nothing refuses UPDATE on ledger.dead_letter",
        ),
        (
            "create or replace function ledger.refuse_change() returns trigger language plpgsql as 'begin return new; end'",
            "bad",
            "the function ledger.refuse_change() is not of ledgerd's making",
        ),
        (
            "create rule forged as on insert to public.audit_events do instead nothing",
            "bad",
            "the rule forged on public.audit_events",
        ),
        (
            "create table public.child () inherits (public.audit_events)",
            "bad",
            "public.child, a child of public.audit_events",
        ),
        ("drop event trigger ledgerd_refuses_drops", "warning", "missing or disabled: ledgerd_refuses_drops"),
        (
            "alter event trigger ledgerd_refuses_changes enable",
            "warning",
            "missing or disabled: ledgerd_refuses_changes",
        ),
        ("create table ledger.later (x int)", "warning", "missing or disabled: ledger.later"),
    ] {
        let copy = Installed { database: database.copy().await };
        copy.database.execute(&damage.replace("{login}", &login)).await;
        let said = check(&copy.database, &login).await;
        let found = said.iter().any(|(found, text)| found == result && text.contains(says));
        assert!(found, "{damage}: {said:#?}");
        // A membership outlives its copy of the database.
        copy.database.execute(&format!("revoke ledgerd_owner from {login}")).await;
    }
}
