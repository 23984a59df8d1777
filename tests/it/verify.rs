//! `ledgerd verify`: a good ledger passes, and any tampering is found and named.

use crate::support::daemon::{ledgerd, text_of};
use crate::support::events::{bad_events, good_events, next_event};
use crate::support::forge;
use crate::support::ledger::check_ledger;
use crate::support::postgres::Database;
use crate::support::published::Published;
use crate::support::records::metric;
use crate::support::requeued::{newest_letter, note, requeued_from};
use crate::support::world::World;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// More than one full tile of leaves.
const GOOD: usize = 300;

/// What `verify` said about a database.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) text: String,
}

impl Said {
    /// The differences as `table id: field`.
    pub(crate) fn differences(&self) -> Vec<String> {
        let differences = self.report["differences"].as_array().into_iter().flatten();
        let text = |difference: &Value, key: &str| difference[key].as_str().unwrap_or_default().to_owned();
        differences.map(|it| format!("{} {}: {}", text(it, "table"), text(it, "id"), text(it, "field"))).collect()
    }
}

/// Verifies a database with these further words.
pub(crate) async fn verify(world: &World, database: &Database, words: &[&str]) -> Said {
    let mut environment = world.operator.clone();
    environment.insert("LEDGERD__DATABASE__URL".to_owned(), database.url());
    let output = ledgerd(&[&["--json", "verify"], words].concat(), &environment).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Said { code: output.status.code(), report, text: text_of(&output) }
}

/// A ledger with something of everything, and the daemon gone.
pub(crate) async fn settled_world() -> World {
    let world = World::builder().limited_role().env("LEDGERD__RETENTION__TOKEN_LEDGER_DAYS", "1500").start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(GOOD)).await;
    let twice = next_event("EXEC").with("details", serde_json::json!({"cost": 1.10})).hashed();
    published.publish_all(&world.publisher, vec![twice.good(), twice.again()]).await;
    published.publish_with_headers(&world.publisher, &[("Trace", "again")], twice.again()).await;
    let mut written_differently = twice.again();
    let text = String::from_utf8(written_differently.payload).expect("JSON").replace("\"cost\":1.1", "\"cost\":11e-1");
    written_differently.payload = text.into_bytes();
    published.publish_all(&world.publisher, vec![written_differently]).await;
    check_ledger(&world, &published).await;
    published.publish(&world.publisher, twice.with("task_id", "another").bad("conflict")).await;
    published.publish_all(&world.publisher, bad_events()).await;
    published.publish_with_headers(&world.publisher, &[("Trace", "a: b")], next_event("SEC").good()).await;
    // Usage that was charged by rates, of which one was replaced; usage without an id; a limit, so that a day has a status.
    for rate in [9.0, 0.000_25] {
        published.publish(&world.publisher, metric("VRA-CFO", "token_rate_ECONOMY_input", rate).good()).await;
        check_ledger(&world, &published).await;
    }
    published.publish(&world.publisher, metric("VRA-CFO", "token_rate_ECONOMY_output", 0.001_25).good()).await;
    published.publish(&world.publisher, metric("VRA-CFO", "daily_limit_RXY-CEO", 0.01).good()).await;
    check_ledger(&world, &published).await;
    let priced = next_event("TOKENS").without("cost_usd").without("usage_id").with("model_tier", "ECONOMY");
    published.publish(&world.publisher, priced.good()).await;
    let spent = crate::support::records::spend("RXY-CEO", 5.0, "2026-02-20").with("task_id", "T").good();
    published.publish(&world.publisher, spent).await;
    published.publish(&world.publisher, next_event("USAGE").without("id").without("created_at").good()).await;
    published
        .publish(&world.publisher, next_event("TRAIL").with("ledger_ref", "VOTE-RXY-CEO-1999999999999").good())
        .await;
    check_ledger(&world, &published).await;
    resolve_some(&world, &mut published).await;
    remove_some(&world, &mut published).await;
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    world
}

/// One dead letter becomes a record by other bytes, and one rests.
async fn resolve_some(world: &World, published: &mut Published) {
    let folder = crate::support::process::scratch_folder("payload");
    let file = folder.path().join("payload");
    let corrected = next_event("EXEC");
    std::fs::write(&file, corrected.payload()).expect("the folder is ours");
    let bad = || next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    published.publish(&world.publisher, bad()).await;
    check_ledger(world, published).await;
    let reference = newest_letter(world).await;
    let file = file.to_str().expect("UTF-8");
    world.ledgerd_ok(&["dlq", "requeue", &reference, "--by", "Ops", "--payload", file, "--why", "a typo"]).await;
    let message = &requeued_from(world, &reference).await[0];
    note(published, message, crate::support::events::Expectation::Good);
    published.publish(&world.publisher, bad()).await;
    check_ledger(world, published).await;
    world.ledgerd_ok(&["dlq", "discard", &newest_letter(world).await, "--by", "Ops", "--why", "a test"]).await;
}

/// An event leaves by the word of the Architect, and a day that is past its time.
async fn remove_some(world: &World, published: &mut Published) {
    let old = crate::support::records::spend("WRK-001", 0.5, "2020-02-20").with("usage_id", "old");
    let secret = next_event("SEC");
    published.publish_all(&world.publisher, vec![old.good(), secret.good()]).await;
    check_ledger(world, published).await;
    published.publish(&world.publisher, secret.again()).await;
    let details =
        serde_json::json!({"table": "audit_events", "ids": [secret.event_id()], "reason": "it holds a password"});
    let approval = crate::support::events::event("SYS", "ARCHITECT", 1).with("action", "DELETION_AUTHORIZED");
    let approval = approval.with("outcome", "APPROVED").with("details", details);
    published.publish(&world.publisher, approval.good()).await;
    check_ledger(world, published).await;
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    let archive = crate::support::process::scratch_folder("archive");
    world.ledgerd_ok(&["retention", "--to", archive.path().to_str().expect("UTF-8")]).await;
    // Usage of a day that is gone begins it anew.
    let late = crate::support::records::spend("WRK-001", 0.25, "2020-02-20").with("usage_id", "late");
    let before = world.database.count("select count(*) from ledger.token_usage").await;
    world.publisher.publish(&late.subject(), late.payload()).await;
    crate::support::eventually("it is added up", crate::support::SOON, async || {
        let now = world.database.count("select count(*) from ledger.token_usage").await;
        crate::support::when(now == before + 1, || now.to_string())
    })
    .await;
}

/// A copy of the database in which every trigger sleeps, and entries can be changed one by one.
pub(crate) async fn unguarded(database: &Database) -> Database {
    let copy = database.copy().await;
    copy.execute(
        "do $$ declare it regclass; begin
            for it in select c.oid from pg_class c join pg_namespace n on n.oid = relnamespace
                where relkind = 'r' and nspname in ('public', 'ledger')
            loop execute format('alter table %s disable trigger all', it); end loop;
        end $$",
    )
    .await;
    forge::arm(&copy).await;
    copy
}

pub(crate) async fn strings(database: &Database, query: &str) -> Vec<String> {
    let mut connection = database.connect().await;
    let rows = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await;
    rows.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// The checkpoint note of the ledger as it is.
pub(crate) async fn checkpoint(database: &Database) -> String {
    let mut connection = database.connect().await;
    let query = "select size, root from ledger.tree_head";
    let (size, root): (i64, Vec<u8>) = sqlx::query_as(query).fetch_one(&mut connection).await.expect("one row");
    format!("example.com/ledger\n{size}\n{}\n\n— example.com/ledger AAAA\n", BASE64.encode(root))
}

#[tokio::test]
async fn a_good_ledger_passes_as_any_role_and_says_what_dangles() {
    let world = settled_world().await;
    let said = verify(&world, &world.database, &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    let rows = |table: &str| said.report["rows"][table].as_i64().expect("a number");
    let count = async |query: &str| world.database.count(query).await;
    assert_eq!(said.report["leaves"].as_i64(), Some(count("select size from ledger.tree_head").await));
    for (table, name) in [
        ("public.audit_events", "audit_events"),
        ("public.decision_trails", "decision_trails"),
        ("public.economic_metrics", "economic_metrics"),
        ("public.tool_usage_ledger", "tool_usage_ledger"),
        ("public.token_ledger", "token_ledger"),
        ("ledger.token_usage", "ledger.token_usage"),
        ("ledger.dead_letter", "ledger.dead_letter"),
    ] {
        assert_eq!(rows(name), count(&format!("select count(*) from {table}")).await, "{name}");
    }
    assert_eq!((said.report["duplicates"].as_i64(), said.report["dangling_total"].as_i64()), (Some(4), Some(1)));
    let removed = serde_json::json!({"audit_events": 1, "ledger.entry": 2, "token_ledger": 1});
    assert_eq!(said.report["explained_removals"], removed);
    // As the daemon's own role, in one session, and in words.
    let plain = ledgerd(&["verify", "--jobs", "1"], &world.environment).await;
    let words = text_of(&plain);
    assert_eq!(plain.status.code(), Some(0), "{words}");
    assert!(words.contains("verified: nothing differs") && words.contains("dangling: decision_trails id"), "{words}");
    // A venture that is gone leaves its usage behind.
    let copy = world.database.copy().await;
    copy.execute("delete from ventures").await;
    assert_eq!(verify(&world, &copy, &[]).await.code, Some(0));
}

#[tokio::test]
async fn a_ledger_passes_while_the_daemon_goes_on_writing() {
    let world = World::builder().start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    for _ in 0..5 {
        published.publish_all(&world.publisher, good_events(600)).await;
        let said = verify(&world, &world.database, &["--jobs", "2"]).await;
        assert_eq!(said.code, Some(0), "{}", said.text);
    }
    check_ledger(&world, &published).await;
    let said = verify(&world, &world.database, &[]).await;
    assert_eq!((said.code, said.report["leaves"].as_i64() >= Some(3000)), (Some(0), true), "{}", said.text);
}

/// More bytes than a page has, and more than two pages of them: what the server sent beyond a page's end is read again.
#[tokio::test]
async fn large_records_are_read_in_several_pages() {
    let world = World::builder().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    let large = || next_event("EXEC").with("details", serde_json::json!({"note": "x".repeat(200_000)})).good();
    published.publish_all(&world.publisher, (0..100).map(|_| large()).collect()).await;
    check_ledger(&world, &published).await;
    let said = verify(&world, &world.database, &["--jobs", "1"]).await;
    let size = world.database.count("select size from ledger.tree_head").await;
    assert_eq!((said.code, said.report["leaves"].as_i64()), (Some(0), Some(size)), "{}", said.text);
    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    let copy = unguarded(&world.database).await;
    copy.execute("update audit_events set details = details || '{\"note\": \"y\"}' where id in (30, 60, 90)").await;
    let said = verify(&world, &copy, &["--jobs", "1"]).await;
    assert_eq!(said.differences(), ["30", "60", "90"].map(|id| format!("audit_events {id}: details")));
}

#[tokio::test]
async fn what_is_no_ledger_and_what_is_away_have_codes_of_their_own() {
    let world = World::builder().without_migrations().without_streams().start().await;
    assert_eq!(verify(&world, &world.database, &[]).await.code, Some(78));
    assert_eq!(verify(&world, &world.database, &["--checkpoint", "/nonexistent"]).await.code, Some(78));
    let mut away = world.operator.clone();
    away.insert("LEDGERD__DATABASE__URL".to_owned(), "postgres://x@127.0.0.1:1/x".to_owned());
    assert_eq!(ledgerd(&["verify"], &away).await.status.code(), Some(69));
    assert_eq!(ledgerd(&["verify", "--from", "yesterday"], &world.operator).await.status.code(), Some(78));
}

/// Columns that follow neither from custody nor from the tree: a plausible change of them is not found, each for a reason.
const OUTSIDE: [(&str, &str, &str); 33] = [
    ("ledger.epoch", "opened_at", "a note for people; no leaf has it"),
    ("ledger.dead_letter", "published_at", "set after the commit, by the outbox"),
    ("public.token_ledger", "last_updated", "a note for people: when the sum grew"),
    (
        "public.token_ledger",
        "budget_status",
        "follows from limits and settings of its time; only its words are checked",
    ),
    ("public.token_ledger", "budget_group", "follows from the agent registry of its time"),
    ("ledger.budget_alert", "id", "an alert is a message about a day, and no record"),
    ("ledger.budget_alert", "agent_name", "an alert is a message about a day, and no record"),
    ("ledger.budget_alert", "date", "an alert is a message about a day, and no record"),
    ("ledger.budget_alert", "old_status", "an alert is a message about a day; only its words are checked"),
    ("ledger.budget_alert", "new_status", "an alert is a message about a day; only its words are checked"),
    ("ledger.budget_alert", "spent_usd", "an alert is a message about a day, and no record"),
    ("ledger.budget_alert", "limit_usd", "an alert is a message about a day, and no record"),
    ("ledger.budget_alert", "raised_at", "an alert is a message about a day, and no record"),
    ("ledger.budget_alert", "published_at", "set after the commit, by the outbox"),
    ("ledger.checkpoint", "signed_at", "a note for people; no signature has it"),
    ("ledger.tree_head", "only_row", "no content: it keeps the table at one row"),
    ("ledger.migration", "execution_time", "a note for people"),
    ("ledger.export", "lines_bytes", "its event has the hash of these bytes instead"),
    ("ledger.export", "settled_at", "set after the removal"),
    ("ledger.resolution", "settled_at", "set after the publication"),
    ("ledger.run", "id", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "what", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "scope", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "started_at", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "ended_at", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "entries", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "findings", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "summary", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "program_version", "a note of who looked and when; nothing follows from it"),
    ("ledger.run", "by_role", "a note of who looked and when; nothing follows from it"),
    ("ledger.removal", "id", "a number for order, which nothing names"),
    ("ledger.removal", "removed_at", "a note for people: when it was carried out"),
    ("ledger.removal", "line_sha256", "of the archive, which has the lines"),
];

/// Another value of a column, by its type.
fn other_value(column: &str, data_type: &str) -> String {
    match data_type {
        _ if column.ends_with("_status\"") => format!("case {column} when 'RED' then 'YELLOW' else 'RED' end"),
        "bigint" | "integer" | "smallint" | "numeric" => format!("coalesce({column}, 0) + 1000"),
        "text" | "character varying" => format!("coalesce('X' || substr({column}, 2), 'X')"),
        "bytea" => format!("coalesce({column}, '') || '\\x00'"),
        // An array, of which the first element is changed.
        "ARRAY" if column == "\"dispositions\"" => format!("array['z']::\"char\"[] || {column}[2:]"),
        "ARRAY" if ["\"sequences\"", "\"server_times_ns\"", "\"row_ids\""].contains(&column) => {
            format!("array[coalesce({column}[1], 0) + 1000] || {column}[2:]")
        }
        "ARRAY" if ["\"subjects\"", "\"record_ids\""].contains(&column) => {
            format!("array['X' || {column}[1]] || {column}[2:]")
        }
        "ARRAY" => format!("array[coalesce({column}[1], '') || '\\x00'] || {column}[2:]"),
        "boolean" => format!("not {column}"),
        "jsonb" => format!("coalesce({column}, '{{}}') || '{{\"forged\": 1}}'"),
        "uuid" => "'11111111-2222-4333-8444-555555555555'".to_owned(),
        "date" => format!("{column} + 1"),
        "timestamp without time zone" | "timestamp with time zone" => format!("{column} + interval '1 microsecond'"),
        other => panic!("{column} has the type {other}"),
    }
}

/// How a changed column is named: by itself, or, where nothing says which of several it was, by what covers them.
fn names(table: &str, column: &str, id: &str, differences: &[String]) -> bool {
    let short = table.strip_prefix("public.").unwrap_or(table);
    let covered_by: &[&str] = match (table, column) {
        // The row is gone from its place, and stands in another.
        (_, "id" | "leaf_index" | "level" | "index" | "date" | "agent_name" | "event_id" | "version") => {
            &["id", "leaf_index", "hash", "index", "agent_name", "version"]
        }
        ("ledger.epoch", _) => &["stream, stream_created_ns, regressions", "epoch"],
        ("ledger.dead_letter", _) => &["reason, detail"],
        ("ledger.migration", _) => &["version"],
        ("ledger.resolution", "new_created_ns" | "new_sequence") => &["new_created_ns, new_sequence"],
        // The note says whose tree it is, in its first line.
        ("ledger.checkpoint", "note") => &["origin"],
        _ => &[],
    };
    let named = |field: &str| {
        differences
            .iter()
            .any(|it| it.starts_with(&format!("{short} ")) && it.contains(id) && it.ends_with(&format!(": {field}")))
    };
    // Entries name the epoch that is not there; the sums of a day its usages.
    let any = |starts: &[&str]| differences.iter().any(|it| starts.iter().any(|start| it.starts_with(start)));
    let elsewhere = match table {
        // Its entries name what a batch's own columns do not. What is kept of bytes that are gone: the leaf has the hashes, and
        // the removal the authority.
        "ledger.batch" | "ledger.erased" => any(&[&format!("ledger.entry {id}: ")]),
        "ledger.epoch" => differences.iter().any(|it| it.starts_with("ledger.entry") && it.ends_with(": epoch")),
        // What they explained is named, which now nothing explains.
        "ledger.erasure" => any(&["audit_events ", "ledger.entry "]),
        "ledger.export" => any(&["token_ledger ", "ledger.removal "]),
        "ledger.removal" => any(&["audit_events ", "ledger.entry ", "token_ledger "]),
        _ => false,
    };
    named(column) || covered_by.iter().any(|field| named(field)) || elsewhere
}

/// Which row is changed: one in whose column there is something, where there is one.
fn key_of(table: &str) -> &'static str {
    match table {
        "ledger.dead_letter" | "ledger.erased" => "leaf_index::text",
        "ledger.batch" => "first_leaf::text",
        "ledger.epoch" => "epoch::text",
        "ledger.subtree" => "level || '/' || index",
        "ledger.tree_head" => "'the one row'",
        "ledger.migration" => "version::text",
        "ledger.checkpoint" => "tree_size::text",
        "public.token_ledger" => "agent_name || '/' || date",
        _ => "id::text",
    }
}

/// Drops what the database itself would hold against a forger.
const NO_CONSTRAINTS: &str = "do $$ declare it record; begin
    for it in select conrelid::regclass as tab, conname from pg_constraint
        where contype in ('c', 'f') and connamespace in ('ledger'::regnamespace, 'public'::regnamespace) and conrelid <> 0
    loop execute format('alter table %s drop constraint %I', it.tab, it.conname); end loop;
    for it in select attrelid::regclass as tab, attname from pg_attribute join pg_class c on c.oid = attrelid
        where attidentity = 'a' and relnamespace in ('ledger'::regnamespace, 'public'::regnamespace)
    loop execute format('alter table %s alter %I set generated by default', it.tab, it.attname); end loop;
end $$";

#[tokio::test]
async fn a_change_of_any_column_of_any_table_is_found_and_named() {
    let world = settled_world().await;
    let spoiled = unguarded(&world.database).await;
    spoiled.execute(NO_CONSTRAINTS).await;
    let note = checkpoint(&spoiled).await;
    let keep = format!(
        "insert into ledger.checkpoint (origin, tree_size, root, note) select 'example.com/ledger', size, root, '{note}' from ledger.tree_head"
    );
    spoiled.execute(&keep).await;
    assert_eq!(verify(&world, &spoiled, &[]).await.code, Some(0));
    let columns = strings(
        &spoiled,
        "select table_schema || '.' || table_name || ' ' || column_name || ' ' || data_type
        from information_schema.columns join information_schema.tables using (table_schema, table_name)
        where table_schema in ('ledger', 'public') and table_type = 'BASE TABLE'
            -- Not ours; what a witness says, for those who trust it; what `reconcile --all` proves anew; and what is no evidence.
            and table_name not in ('agent_registry', 'tool_registry', 'ventures', 'cosignature', 'reconciled', 'refusal',
                -- Where the daemon goes on.
                'position', 'gap', 'counted', 'identity',
                -- What was told to others.
                'notice', 'notify_target', 'notify_position', 'notification')
        order by table_schema, table_name, ordinal_position",
    )
    .await;
    assert!(columns.len() > 90, "{columns:?}");
    spoiled.execute(PRISTINE).await;
    let mut unseen = Vec::new();
    let mut wrong = String::new();
    for line in &columns {
        let mut words = line.splitn(3, ' ');
        let [table, column, data_type] =
            [words.next(), words.next(), words.next()].map(|word| word.expect("three words"));
        let (key, other) = (key_of(table), other_value(&format!("\"{column}\""), data_type));
        // A row that has something there, the newest of them: so neither the tree nor an epoch is all that differs.
        let newest = format!("select {key} from {table} order by \"{column}\" is null, ctid desc limit 1");
        let id = strings(&spoiled, &newest).await;
        let [id] = &id[..] else { panic!("{table} has no row") };
        let change = format!("update {table} set \"{column}\" = {other} where {key} = '{id}'");
        spoiled.execute(&change).await;
        let said = verify(&world, &spoiled, &[]).await;
        let pristine = table.replace('.', "_");
        spoiled.execute(&format!("delete from {table}; insert into {table} select * from pristine.{pristine}")).await;
        match said.code {
            Some(0) => unseen.push((table, column)),
            Some(3) if names(table, column, id, &said.differences()) => {}
            code => writeln!(wrong, "{change}: {code:?}, and not named: {:?}", said.differences()).expect("a string"),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let mut outside: Vec<_> = OUTSIDE.iter().map(|(table, column, _)| (*table, *column)).collect();
    outside.sort_unstable();
    unseen.sort_unstable();
    assert_eq!(unseen, outside, "changed, and nobody saw it");
    assert_eq!(verify(&world, &spoiled, &[]).await.code, Some(0), "everything was changed back");
}

/// A copy of each table.
const PRISTINE: &str = "create schema pristine; do $$ declare it record; begin
    for it in select nspname, relname from pg_class c join pg_namespace n on n.oid = relnamespace
        where relkind = 'r' and nspname in ('public', 'ledger')
    loop execute format('create table pristine.%I as table %I.%I', it.nspname || '_' || it.relname, it.nspname, it.relname); end loop;
end $$";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of damages, each with what is said of it")]
async fn rows_that_are_deleted_inserted_swapped_or_truncated_are_named() {
    let world = settled_world().await;
    let original = unguarded(&world.database).await;
    original.execute(NO_CONSTRAINTS).await;
    let ids: BTreeMap<&str, i64> = BTreeMap::from([
        ("event", original.count("select row_id from ledger.entry where subject like 'ledger.EXEC.%' and disposition = 'recorded' order by 1 limit 1").await),
        ("rejected", original.count("select min(leaf_index) from ledger.dead_letter").await),
        ("usage", original.count("select min(id) from ledger.token_usage").await),
        ("metric", original.count("select min(id) from economic_metrics").await),
        ("trail", original.count("select min(id) from decision_trails").await),
    ]);
    let fill = |text: &str| {
        ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("{{{name}}}"), &id.to_string()))
    };
    let damages = [
        ("delete from audit_events where id = {event}", "audit_events {event}: id"),
        ("delete from decision_trails where id = (select min(id) from decision_trails)", "decision_trails {trail}: id"),
        ("delete from economic_metrics where id = {metric}", "economic_metrics {metric}: id"),
        ("delete from tool_usage_ledger where ctid = (select ctid from tool_usage_ledger limit 1)", "tool_usage_ledger 0"),
        ("delete from token_ledger where agent_name = 'RXY-CEO'", "token_ledger RXY-CEO/2026-02-20: agent_name"),
        ("delete from ledger.token_usage where id = {usage}", "ledger.token_usage {usage}: id"),
        ("delete from ledger.dead_letter where leaf_index = {rejected}", "ledger.dead_letter {rejected}: leaf_index"),
        ("delete from ledger.entry where leaf_index = 200", "ledger.entry 200: leaf_index"),
        ("delete from ledger.entry where leaf_index between 10 and 19", "ledger.entry 10: leaf_index"),
        ("delete from ledger.entry where leaf_index = (select max(leaf_index) from ledger.entry)", "ledger.tree_head the one row: size"),
        ("delete from ledger.subtree", "ledger.subtree 1/0: hash"),
        ("delete from ledger.tree_head", "ledger.tree_head the one row: size"),
        ("delete from ledger.epoch where stream = 'LEDGER'", ": epoch"),
        ("delete from ledger.migration where version = 3", "ledger.migration 3: version"),
        ("insert into audit_events (event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text)
            values ('x', 'x', 'x', 'x', now(), 'x', now()::text)", "audit_events "),
        ("insert into decision_trails (trail_id, council_vote, proposal, outcome) values ('x', '{}', '{}', 'APPROVED')", "decision_trails "),
        ("insert into economic_metrics (metric_key, metric_value) values ('daily_limit_SYSTEM', 1)", "economic_metrics "),
        ("insert into tool_usage_ledger (id, agent_id, tool_id) select '11111111-2222-4333-8444-555555555555', agent_id, tool_id from tool_usage_ledger limit 1",
            "tool_usage_ledger 11111111-2222-4333-8444-555555555555: id"),
        ("insert into token_ledger (agent_name, date, total_tokens_input) values ('RXY-CEO', '2026-02-21', 7)", "token_ledger RXY-CEO/2026-02-21: total_tokens_input"),
        ("insert into token_ledger (agent_name, date) values ('RXY-CEO', '2026-03-01')", "token_ledger RXY-CEO/2026-03-01: agent_name"),
        ("insert into ledger.token_usage (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given)
            values ('RXY-CEO', 'x', true, '2026-02-20', 1, 1, 1, true)", "ledger.token_usage "),
        ("delete from ledger.resolution where action = 'DISCARDED'", "ledger.resolution 2: id"),
        ("truncate ledger.resolution", "ledger.resolution 1: id"),
        ("insert into ledger.resolution (id, leaf_index, round, action, decided_by, stream, stream_created_ns, after_sequence, message_id,
            event_id, settled_at, new_created_ns, new_sequence) values (9, 1, 1, 'REQUEUED', 'x', 'x', 1, 1, 'x', 'x', now(), 1, 1)", "ledger.resolution 9: id"),
        ("insert into ledger.dead_letter values (0, 'conflict', 'x', 'x', now())", "ledger.dead_letter 0: leaf_index"),
        ("insert into ledger.dead_letter values (100000, 'conflict', 'x', 'x', now())", "ledger.dead_letter 100000: leaf_index"),
        ("drop index ledger.batch_row; insert into ledger.entry select max(leaf_index) over () + 1, epoch, sequence + 1000000, subject, server_time_ns, headers, payload, payload_sha256,
            disposition, record_id, row_id, leaf_hash, committed_at from ledger.entry where disposition = 'recorded' order by leaf_index limit 1", "ledger.tree_head the one row: size"),
        ("drop index ledger.batch_row; insert into ledger.entry select 9000000000000000000, epoch, sequence + 1000000, subject, server_time_ns, headers, payload, payload_sha256,
            disposition, record_id, row_id, leaf_hash, committed_at from ledger.entry where leaf_index = 0", "ledger.entry 9000000000000000000: leaf_index"),
        ("insert into ledger.subtree values (1, 77, sha256('x')), (9, 0, sha256('x'))", "ledger.subtree 1/77: index"),
        ("update audit_events as a set (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash, timestamp_text) =
            (select event_id || '', actor, action, outcome, details, task_id, timestamp, integrity_hash, timestamp_text from audit_events as b where b.id = 2 * {event} + 1 - a.id)
            where false", ""),
        ("alter table audit_events drop constraint audit_events_event_id_key;
            update audit_events as a set event_id = b.event_id from audit_events as b where a.id in ({event}, {event} + 1) and b.id in ({event}, {event} + 1) and a.id <> b.id",
            "audit_events {event}: event_id"),
        ("alter table audit_events drop constraint audit_events_pkey;
            update audit_events set id = 2 * {event} + 1 - id where id in ({event}, {event} + 1)", "audit_events {event}: event_id"),
        ("select forged.swap(100, 101)", "ledger.subtree 1/0: hash"),
        ("update ledger.entry set disposition = 'duplicate' where leaf_index = 200", "ledger.entry 200: disposition"),
        ("update ledger.entry set epoch = (select max(epoch) + 1 from ledger.epoch) where leaf_index = 200", "ledger.entry 200: epoch"),
        ("update ledger.entry set epoch = (select min(epoch) from ledger.epoch) where leaf_index = 200", "ledger.entry 200: epoch"),
        ("update ledger.entry set record_id = 'X' where leaf_index = 200", "ledger.entry 200: record_id"),
        // Nothing but the leaf says which bytes these were.
        ("update ledger.entry set payload = payload || ' ' where leaf_index = 200", "ledger.entry 200: leaf_hash"),
        ("update ledger.entry set payload = null where leaf_index = 200", "ledger.entry 200: payload"),
        // Removals that nothing entitles to.
        ("insert into ledger.removal (table_name, row_key, erasure_id, leaf_index)
            select 'audit_events', record_id, 1, leaf_index from ledger.entry where row_id = {event} and subject like 'ledger.EXEC.%';
            delete from audit_events where id = {event}", "audit_events {event}: id"),
        ("insert into ledger.removal (table_name, row_key, export_id, line_sha256) values ('economic_metrics', '{metric}', 1, sha256('x'));
            delete from economic_metrics where id = {metric}", "economic_metrics {metric}: id"),
        ("insert into ledger.export select 2, table_name, cutoff, 9, '1', '9', '1', '9', location, file || '2', 1, file_sha256, 1, file_sha256, 'm',
            file_sha256, 'SYS-ARCHITECT-1', now(), now(), 1 from ledger.export where id = 1;
            insert into ledger.removal (table_name, row_key, export_id, line_sha256) values ('economic_metrics', '{metric}', 2, sha256('x'));
            delete from economic_metrics where id = {metric}", "ledger.export 2: event_id"),
        ("update ledger.entry set payload = null, headers = null, headers_sha256 = sha256(headers), erasure_id = 1 where leaf_index = 200", "ledger.entry 200: payload"),
        ("delete from ledger.removal where table_name = 'audit_events'", "audit_events "),
        ("delete from ledger.removal where table_name = 'token_ledger'", "token_ledger WRK-001/2020-02-20: total_tokens_input"),
        ("update ledger.entry set headers_sha256 = sha256('x') where erasure_id = 1", "ledger.entry "),
        // Hashes of bytes that are there, which would excuse their loss; of a leaf that there is not; bytes in an erasure's place.
        ("insert into ledger.erased select leaf_index, 1, payload_sha256 from ledger.entry where leaf_index = 200", "ledger.erased 200: leaf_index"),
        ("insert into ledger.erased values (100000, 1, sha256('x'))", "ledger.erased 100000: leaf_index"),
        ("delete from ledger.erased", ": payload"),
        ("update ledger.batch set erased = 0 where erased > 0", ": erased"),
        // What came again after nothing.
        ("update ledger.entry set disposition = 'rejected' where disposition = 'recorded'
            and record_id in (select record_id from ledger.entry where disposition = 'duplicate')", ": record_id"),
        // Batches: their parts, their order, their layers.
        ("delete from ledger.batch where first_leaf = (select max(first_leaf) from ledger.batch where first_leaf <= 200)", ": leaf_index"),
        ("update ledger.batch set leaves = leaves - 1, sequences = sequences[2:], subjects = subjects[2:], server_times_ns = server_times_ns[2:],
            headers = headers[2:], payloads = payloads[2:], dispositions = dispositions[2:], record_ids = record_ids[2:], row_ids = row_ids[2:],
            leaf_hashes = leaf_hashes[2:] where leaves > 5", ": leaf_index"),
        ("update ledger.batch set payloads = payloads[2:] where leaves > 5", ": payloads"),
        ("update ledger.batch set sequences = sequences || 1000000::bigint where leaves > 5", ": sequences"),
        ("update ledger.batch set leaf_hashes = leaf_hashes[1:2] where leaves > 5", ": leaf_hashes"),
        ("update ledger.batch set layer = layer + 1", ": layer"),
        ("drop index ledger.batch_sequence; insert into ledger.batch select first_leaf + 100000, leaves, epoch, lane, layer, first_sequence, last_sequence, null, null,
            duplicates, rejected, erased, committed_at, sequences, subjects, server_times_ns, headers, payloads, dispositions, record_ids, row_ids, leaf_hashes
            from ledger.batch where leaves > 5 limit 1", ": layer"),
        ("insert into ledger.batch select first_leaf + 100000, leaves, epoch, lane, layer + 1::smallint, first_sequence, last_sequence, null, null,
            duplicates, rejected, erased, committed_at, sequences, subjects, server_times_ns, headers, payloads, dispositions, record_ids, row_ids, leaf_hashes
            from ledger.batch where leaves > 5 limit 1", ": sequences"),
        ("alter table ledger.batch drop constraint batch_pkey; update ledger.batch set first_leaf = first_leaf - 1 where first_leaf > 200", "ledger.entry "),
        ("update ledger.batch set first_leaf = first_leaf + 1 where first_leaf = (select max(first_leaf) from ledger.batch)", ": leaf_index"),
        ("update ledger.batch set first_leaf = first_leaf - 1 where first_leaf = (select it.first_leaf from ledger.batch as before
            join ledger.batch as it on it.first_leaf = before.first_leaf + before.leaves where before.leaves > 1 order by 1 limit 1)", ": leaf_index"),
        ("truncate ledger.removal, ledger.erasure, ledger.export", "audit_events "),
        ("truncate audit_events", "audit_events {event}: id"),
        ("truncate decision_trails", "decision_trails {trail}: id"),
        ("truncate economic_metrics", "economic_metrics {metric}: id"),
        ("truncate tool_usage_ledger", "tool_usage_ledger 0"),
        ("truncate token_ledger", "token_ledger RXY-CEO/2026-02-20: agent_name"),
        ("truncate ledger.token_usage", "ledger.token_usage {usage}: id"),
        ("truncate ledger.dead_letter", "ledger.dead_letter {rejected}: leaf_index"),
        ("truncate ledger.batch", "ledger.tree_head the one row: size"),
        ("truncate ledger.epoch", "ledger.entry 0: epoch"),
        ("truncate ledger.subtree", "ledger.subtree 1/0: hash"),
        ("truncate ledger.tree_head", "ledger.tree_head the one row: size"),
        ("truncate ledger.migration", "ledger.migration 1: version"),
    ];
    let mut wrong = String::new();
    for (damage, expected) in damages {
        let (damage, expected) = (fill(damage), fill(expected));
        if expected.is_empty() {
            continue;
        }
        let spoiled = original.copy().await;
        spoiled.execute(&damage).await;
        let said = verify(&world, &spoiled, &[]).await;
        let found = said
            .differences()
            .iter()
            .any(|it| it.starts_with(&expected) || expected.starts_with(':') && it.ends_with(&expected));
        if said.code != Some(3) || !found {
            writeln!(
                wrong,
                "{damage}: {expected} is not in {:?}\n{}",
                said.differences(),
                &said.text[..said.text.len().min(300)]
            )
            .expect("a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
