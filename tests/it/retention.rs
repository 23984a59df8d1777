//! `ledgerd retention`: what is past its time is archived, read back, recorded, and only then removed.

use crate::faults_postgres::COMMIT;
use crate::support::archived::{exports, files, rows_of, texts};
use crate::support::daemon::{ledgerd, spawn_ledgerd, text_of};
use crate::support::ledger::check_settled_ledger;
use crate::support::object_store::ObjectStore;
use crate::support::process::scratch_folder;
use crate::support::proxy::{Direction, Hold, TcpProxy};
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Days of the two tables that are past their time, made up by the superuser.
async fn make_history(world: &World, agent: &str) {
    world
        .database
        .execute(&format!(
            "insert into token_ledger (agent_name, date, total_tokens_input, total_tokens_output, exact_cost, total_cost)
            select '{agent}', (now() at time zone 'UTC')::date - 100 - day, 10 * day, day, 0.00003 * day, 0
            from generate_series(1, 3) as day;
            insert into economic_metrics (metric_key, metric_value, set_by, created_at)
            select 'venture_revenue_{agent}_2020-0' || month, 0.00025 * month, 'VRA-CFO', now() at time zone 'UTC' - interval '400 days'
            from generate_series(1, 2) as month"
        ))
        .await;
}

async fn run(world: &World, archive: &Path) -> Value {
    let to = archive.to_str().expect("UTF-8");
    serde_json::from_str(&world.ledgerd_ok(&["retention", "--json", "--to", to]).await).expect("JSON")
}

async fn recorded(world: &World) -> i64 {
    world
        .database
        .count(
            "select count(*) from audit_events join ledger.entry on row_id = audit_events.id and record_id = event_id
            where action = 'RETENTION_EXPORTED' and disposition = 'recorded'",
        )
        .await
}

async fn all_rows(world: &World) -> BTreeSet<String> {
    let mut rows = rows_of(world, "token_ledger").await;
    rows.extend(rows_of(world, "economic_metrics").await);
    rows
}

/// Whatever happened: each of these rows is in its table, or in a whole file that the database names.
async fn check_nothing_is_lost(world: &World, before: &BTreeSet<String>) {
    let mut found = all_rows(world).await;
    let settled = world.database.count("select count(*) from ledger.export where settled_at is not null").await;
    if settled > 0 {
        found.extend(exports(world).await.into_iter().flat_map(|export| export.lines));
    }
    let lost: Vec<_> = before.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

fn days_ago(days: i64) -> String {
    (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days)).to_string()
}

#[tokio::test]
async fn what_is_past_its_time_leaves_and_the_rest_stays() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    for (number, days) in [0, 1, 89, 90, 91, 200].into_iter().enumerate() {
        let usage = json!({
            "agent_name": "BRM-CTO", "tokens_input": 1000 + number, "tokens_output": 5, "cost_usd": 0.00003,
            "timestamp": days_ago(days), "usage_id": format!("usage-{days}"),
        });
        world.publisher.publish("ledger.TOKENS.BRM-CTO", usage.to_string()).await;
    }
    let added = async |expected: i64| {
        eventually("the usage is added up", SOON, async || {
            let count = world.database.count("select count(*) from ledger.token_usage").await;
            when(count == expected, || count.to_string())
        })
        .await;
    };
    added(6).await;
    let before = rows_of(&world, "token_ledger").await;
    let archive = scratch_folder("archive");

    let survey = world.ledgerd_ok(&["retention", "--dry-run", "--json"]).await;
    let survey: Value = serde_json::from_str(&survey).expect("JSON");
    assert_eq!((survey[0]["rows"].as_i64(), survey[1]["rows"].as_i64()), (Some(2), Some(0)));
    assert_eq!(rows_of(&world, "token_ledger").await, before);
    assert_eq!((files(archive.path()).len(), recorded(&world).await), (0, 0));

    let done = run(&world, archive.path()).await;
    let after = rows_of(&world, "token_ledger").await;
    assert_eq!((done[0]["removed"].as_i64(), after.len(), recorded(&world).await), (Some(2), 4, 1));
    let archived = exports(&world).await;
    assert_eq!(archived.len(), 1);
    let gone: BTreeSet<String> = before.difference(&after).cloned().collect();
    assert_eq!(archived[0].lines.iter().cloned().collect::<BTreeSet<_>>(), gone);
    assert_eq!(run(&world, archive.path()).await, json!([]), "there is nothing left to do");

    // Usage of a removed day that comes late begins the day anew; both sums are the whole.
    let late = json!({"agent_name": "BRM-CTO", "tokens_input": 7, "tokens_output": 1, "cost_usd": 1, "timestamp": days_ago(200)});
    world.publisher.publish("ledger.TOKENS.BRM-CTO", late.to_string()).await;
    added(7).await;
    let again = json!({
        "agent_name": "BRM-CTO", "tokens_input": 1005, "tokens_output": 5, "cost_usd": 0.00003,
        "timestamp": days_ago(200), "usage_id": "usage-200",
    });
    world.publisher.publish("ledger.TOKENS.BRM-CTO", again.to_string()).await;
    run(&world, archive.path()).await;
    assert_eq!(rows_of(&world, "token_ledger").await, after);
    let whole = "select count(*) from (
            select agent_name || '/' || date as row_key, sum(tokens_input) as input, sum(cost_usd) as cost
            from ledger.token_usage group by agent_name, date
        ) as used
        join (
            select row_key, sum(tokens_input) as input, sum(exact_cost) as cost from ledger.removal group by row_key
        ) as removed using (row_key, input, cost)";
    assert_eq!((world.database.count(whole).await, recorded(&world).await), (2, 2));
}

#[tokio::test]
async fn limits_and_rates_that_were_in_force_stay() {
    let world = World::start().await;
    world
        .database
        .execute(
            "insert into economic_metrics (metric_key, metric_value, created_at)
            select key, 1, now() at time zone 'UTC' - days * interval '1 day'
            from (values
                ('daily_limit_A', 900), ('daily_limit_A', 800), ('daily_limit_A', 500),
                ('daily_limit_B', 400), ('daily_limit_B', 10),
                ('token_rate_X_input', 900), ('token_rate_X_input', 800), ('token_rate_X_input', 700),
                ('token_rate_X_output', 900),
                ('venture_capital_V', 400), ('venture_capital_V', 366), ('venture_capital_V', 364)
            ) as history (key, days);
            insert into ledger.token_usage
                (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given, input_rate_id, output_rate_id)
            select 'A', 'u', true, current_date, 1, 1, 0.002, false, input.id, output.id
            from economic_metrics as input, economic_metrics as output
            where input.metric_key = 'token_rate_X_input' and input.created_at < now() - interval '850 days'
                and output.metric_key = 'token_rate_X_output'",
        )
        .await;
    let archive = scratch_folder("archive");
    run(&world, archive.path()).await;
    let left = texts(
        &world,
        "select metric_key || ' ' || (now() at time zone 'UTC')::date - created_at::date from economic_metrics order by id",
    )
    .await;
    let expected = [
        "daily_limit_A 500", // in force
        "daily_limit_B 400", // in force until ten days ago
        "daily_limit_B 10",
        "token_rate_X_input 900", // usage was charged by it
        "token_rate_X_input 700",
        "token_rate_X_output 900",
        "venture_capital_V 364",
    ];
    assert_eq!(left, expected);
}

type Strike = Box<dyn Fn(&TcpProxy) -> Hold>;

/// Where a run is killed, from the first statement that matters to the last.
fn instants() -> Vec<(&'static str, Strike)> {
    fn before(pattern: &'static [u8]) -> Strike {
        Box::new(move |proxy| proxy.hold_when(Direction::ToServer, pattern))
    }
    fn after(pattern: &'static [u8]) -> Strike {
        Box::new(move |proxy| proxy.hold_answer_after(pattern))
    }
    vec![
        ("before anything", before(b"row_to_json")),
        ("archived, not entered", before(b"insert into ledger.export")),
        ("entered, not known", after(b"insert into ledger.export")),
        ("entered, not recorded", before(COMMIT)),
        ("recorded, not known", after(COMMIT)),
        ("recorded, nothing removed", before(b"insert into ledger.removal")),
        ("removals entered", after(b"insert into ledger.removal")),
        ("before the deletion", before(b"delete from public.")),
        ("deleted, not committed", after(b"delete from public.")),
        ("settled, not committed", after(b"update ledger.export")),
        ("before the commit", before(b"to 0; commit")),
        ("committed, not known", after(b"to 0; commit")),
    ]
}

#[tokio::test]
async fn killed_at_any_point_it_loses_nothing_and_the_next_run_completes_it() {
    let world = World::builder().postgres_proxy().start().await;
    let archive = scratch_folder("archive");
    let to = archive.path().to_str().expect("UTF-8").to_owned();
    let log = archive.path().with_extension("log");
    for (number, (instant, hold)) in instants().into_iter().enumerate() {
        make_history(&world, &format!("AGENT-{number}")).await;
        let before = all_rows(&world).await;
        let (events, exported) = (recorded(&world).await, exports(&world).await.len());

        let mut held = hold(world.postgres_proxy());
        let mut process = spawn_ledgerd(&["retention", "--to", &to], &world.environment, &log);
        held.happened().await;
        process.kill();
        world.postgres_proxy().drop_held().await;
        check_nothing_is_lost(&world, &before).await;

        // The killed run's session may outlive it for a moment, and hold its lock.
        eventually("the next run completes it", SOON, async || {
            let output = ledgerd(&["retention", "--to", &to], &world.environment).await;
            when(output.status.success(), || text_of(&output))
        })
        .await;
        assert_eq!(all_rows(&world).await.len(), 0, "{instant}");
        let archived = exports(&world).await;
        let lines: BTreeSet<String> = archived[exported..].iter().flat_map(|export| export.lines.clone()).collect();
        assert_eq!(lines, before, "{instant}");
        // One export and one audit event for each table.
        assert_eq!((archived.len() - exported, recorded(&world).await - events), (2, 2), "{instant}");
        let removed = "select count(*) from ledger.export where rows_removed = row_count and settled_at is not null";
        assert_eq!(world.database.count(removed).await, i64::try_from(archived.len()).expect("few"), "{instant}");
    }
    // Nor does a killed run leave files that nobody knows.
    assert_eq!(files(archive.path()).len(), 2 * exports(&world).await.len());
    check_settled_ledger(&world, &Published::default()).await;
}

#[tokio::test]
async fn a_row_that_changes_between_its_export_and_its_removal_is_not_lost() {
    let world = World::builder().postgres_proxy().start().await;
    make_history(&world, "BRM-CTO").await;
    let before = all_rows(&world).await;
    let archive = scratch_folder("archive");
    let log = archive.path().with_extension("log");
    let to = archive.path().to_str().expect("UTF-8");
    let mut held = world.postgres_proxy().hold_when(Direction::ToServer, b"insert into ledger.removal");
    let mut process = spawn_ledgerd(&["retention", "--to", to], &world.environment, &log);
    held.happened().await;
    // As late usage does.
    let late = "update token_ledger set total_tokens_input = total_tokens_input + 5, exact_cost = exact_cost + 1
        where date = (select min(date) from token_ledger)";
    world.database.execute(late).await;
    let changed = rows_of(&world, "token_ledger").await;
    world.postgres_proxy().release();
    assert_eq!(process.wait_exit(SOON).await, 0, "{}", process.log());
    // Both are in the archive, the old and the new, and only the new one counts as removed.
    let archived: BTreeSet<String> = exports(&world).await.into_iter().flat_map(|export| export.lines).collect();
    let expected: BTreeSet<String> = before.union(&changed).cloned().collect();
    assert_eq!(archived, expected);
    assert_eq!(all_rows(&world).await.len(), 0);
    let removed = "select count(*) from ledger.removal where table_name = 'token_ledger'";
    let left_out = "select sum(row_count - rows_removed)::bigint from ledger.export";
    assert_eq!((world.database.count(removed).await, world.database.count(left_out).await), (3, 1));
    let sums = "select sum(tokens_input)::bigint from ledger.removal where table_name = 'token_ledger'";
    assert_eq!(world.database.count(sums).await, 10 + 20 + 30 + 5);
}

#[tokio::test]
async fn a_wrong_file_in_the_archive_is_not_trusted() {
    let world = World::builder().postgres_proxy().start().await;
    let archive = scratch_folder("archive");
    let to = archive.path().to_str().expect("UTF-8").to_owned();
    let log = archive.path().with_extension("log");
    let kill_at = async |pattern: &[u8]| {
        let mut held = world.postgres_proxy().hold_when(Direction::ToServer, pattern);
        let mut process = spawn_ledgerd(&["retention", "--to", &to], &world.environment, &log);
        held.happened().await;
        process.kill();
        world.postgres_proxy().drop_held().await;
        eventually("the killed run's lock is gone", SOON, async || {
            let held = world.database.count("select count(*) from pg_locks where locktype = 'advisory'").await;
            when(held == 0, || held.to_string())
        })
        .await;
    };
    let damages: [fn(&Path); 5] = [
        |file| fs::write(file, b"").expect("ours"),
        |file| fs::remove_file(file).expect("ours"),
        |file| {
            let mut bytes = fs::read(file).expect("ours");
            bytes.truncate(20);
            fs::write(file, bytes).expect("ours");
        },
        |file| {
            let mut bytes = fs::read(file).expect("ours");
            bytes[15] ^= 1;
            fs::write(file, bytes).expect("ours");
        },
        |file| fs::write(file, fs::read(file).expect("ours").repeat(2)).expect("ours"),
    ];
    let mut round = 0;
    for damage in damages {
        // The rows' file and its manifest; before the export is entered, and after.
        for (which, pattern) in [".jsonl.gz", ".manifest.json"]
            .into_iter()
            .flat_map(|which| [(which, &b"insert into ledger.export"[..]), (which, b"insert into ledger.removal")])
        {
            round += 1;
            make_history(&world, &format!("AGENT-{round}")).await;
            let before = all_rows(&world).await;
            let known = files(archive.path());
            kill_at(pattern).await;
            let new: Vec<_> = files(archive.path()).into_iter().filter(|file| !known.contains(file)).collect();
            let file = new.iter().find(|file| file.to_str().is_some_and(|name| name.ends_with(which)));
            damage(file.expect("the killed run left it"));
            assert_eq!(all_rows(&world).await, before);
            run(&world, archive.path()).await;
            assert_eq!(all_rows(&world).await.len(), 0);
            // Every file that the database names is whole, and has the rows.
            let archived: BTreeSet<String> = exports(&world).await.into_iter().flat_map(|it| it.lines).collect();
            assert!(before.is_subset(&archived), "round {round}");
        }
    }
}

#[tokio::test]
async fn an_archive_that_takes_nothing_leaves_all_rows_where_they_are() {
    let world = World::start().await;
    make_history(&world, "BRM-CTO").await;
    let before = all_rows(&world).await;
    let archive = scratch_folder("archive");
    let code = async |to: &[&str]| {
        let output = world.ledgerd(&[&["retention"], to].concat()).await;
        output.status.code()
    };
    assert_eq!(code(&[]).await, Some(78), "no archive is set");
    assert_eq!(code(&["--to", "/nowhere/at/all"]).await, Some(78));
    assert_eq!(code(&["--to", "ftp://somewhere/x"]).await, Some(78));
    assert_eq!(code(&["--to", "s3://user:secret@bucket/x"]).await, Some(78));
    let ledger =
        &texts(&world, "select left(encode(leaf_hash, 'hex'), 16) from ledger.entry where leaf_index = 0").await[0];
    // A file where a folder should be.
    fs::write(archive.path().join(ledger), "").expect("ours");
    assert_eq!(code(&["--to", archive.path().to_str().expect("UTF-8")]).await, Some(1));
    assert_eq!((all_rows(&world).await, recorded(&world).await), (before, 0));
}

#[tokio::test]
async fn many_rows_go_into_several_files() {
    let world = World::start().await;
    world
        .database
        .execute(
            "insert into economic_metrics (metric_key, metric_value, created_at)
            select 'venture_revenue_V_2020-01', number, now() at time zone 'UTC' - interval '500 days'
            from generate_series(1, 60000) as number",
        )
        .await;
    let archive = scratch_folder("archive");
    let done = run(&world, archive.path()).await;
    let removed: Vec<_> = done.as_array().expect("a list").iter().map(|it| it["removed"].as_i64()).collect();
    assert_eq!(removed, [Some(50_000), Some(10_000)]);
    let archived = exports(&world).await;
    assert_eq!(archived.iter().map(|export| export.lines.len()).sum::<usize>(), 60_000);
    assert_eq!((archived[0].table.as_str(), archived[0].id), ("economic_metrics", 1));
    assert_eq!(all_rows(&world).await.len(), 0);
}

#[tokio::test]
async fn one_run_at_a_time() {
    let world = World::builder().postgres_proxy().start().await;
    make_history(&world, "BRM-CTO").await;
    let archive = scratch_folder("archive");
    let log = archive.path().with_extension("log");
    let to = archive.path().to_str().expect("UTF-8");
    let mut held = world.postgres_proxy().hold_when(Direction::ToServer, b"insert into ledger.removal");
    let mut process = spawn_ledgerd(&["retention", "--to", to], &world.environment, &log);
    held.happened().await;
    let second = world.ledgerd(&["retention", "--to", to]).await;
    assert_eq!(second.status.code(), Some(1), "{}", text_of(&second));
    assert!(text_of(&second).contains("another"), "{}", text_of(&second));
    world.postgres_proxy().release();
    assert_eq!(process.wait_exit(SOON).await, 0, "{}", process.log());
}

#[tokio::test]
async fn no_row_leaves_before_its_time_or_without_its_export() {
    let world = World::start().await;
    make_history(&world, "BRM-CTO").await;
    let archive = scratch_folder("archive");
    run(&world, archive.path()).await;
    // The same days again, as late usage makes them.
    make_history(&world, "BRM-CTO").await;
    world.database.execute("insert into token_ledger (agent_name, date) values ('A', current_date)").await;
    let before = all_rows(&world).await;
    let export = "insert into ledger.export (table_name, cutoff, row_count, first_key, last_key, oldest, newest, location, file, \
        file_bytes, file_sha256, lines_bytes, lines_sha256, manifest, manifest_sha256, event_id) \
        select table_name, current_date + 1, row_count, first_key, last_key, oldest, newest, location, file, \
        file_bytes, file_sha256, lines_bytes, lines_sha256, manifest, manifest_sha256, 'x' from ledger.export where id = 1";
    let removal = |export: &str| {
        format!(
            "insert into ledger.removal (table_name, row_key, export_id, line_sha256, tokens_input, tokens_output, exact_cost) \
            select 'token_ledger', agent_name || '/' || date, {export}, sha256(''), total_tokens_input, total_tokens_output, exact_cost \
            from token_ledger; delete from token_ledger"
        )
    };
    for statement in [
        "delete from token_ledger",
        "delete from economic_metrics",
        // A row that comes again under the number of one that was removed.
        "insert into economic_metrics (id, metric_key, metric_value) overriding system value \
        select row_key::bigint, 'x', 1 from ledger.removal where table_name = 'economic_metrics'; \
        delete from economic_metrics where metric_key = 'x'",
        "set session_replication_role = replica; delete from token_ledger",
        "truncate token_ledger",
        "update economic_metrics set metric_value = 1",
        // A cut-off of tomorrow.
        export,
        // An export that is settled already, and one that no event records.
        &removal("1"),
        &format!(
            "{}; {}",
            export.replace("current_date + 1", "current_date - 90"),
            removal("(select max(id) from ledger.export)")
        ),
        "update ledger.export set settled_at = null, rows_removed = null",
        "update ledger.export set file = 'x'",
        "delete from ledger.export",
        "delete from ledger.removal",
        "update ledger.removal set row_key = 'x'",
        "truncate ledger.removal",
        "truncate ledger.erasure cascade",
    ] {
        let refused = world.cluster().try_execute(world.database.name(), statement).await;
        assert!(refused.is_err(), "{statement}");
    }
    assert_eq!(all_rows(&world).await, before);
}

#[tokio::test]
async fn a_role_with_its_grants_and_no_more_can_do_it() {
    let world = World::builder().limited_role().start().await;
    make_history(&world, "BRM-CTO").await;
    let archive = scratch_folder("archive");
    let to = archive.path().to_str().expect("UTF-8");
    let as_daemon = ledgerd(&["retention", "--to", to], &world.environment).await;
    assert!(!as_daemon.status.success(), "the daemon's role may not remove");
    world.database.execute(&ledgerd::retention::queries::GRANTS.replace("{role}", &world.role)).await;
    let as_retention = ledgerd(&["retention", "--to", to], &world.environment).await;
    assert!(as_retention.status.success(), "{}", text_of(&as_retention));
    assert_eq!((all_rows(&world).await.len(), recorded(&world).await), (0, 2));
}

#[tokio::test]
async fn an_object_store_takes_the_archive_too() {
    let world = World::start().await;
    make_history(&world, "BRM-CTO").await;
    let before = all_rows(&world).await;
    let store = ObjectStore::start().await;
    let mut environment = world.operator.clone();
    environment.extend(store.environment());
    environment.insert("LEDGERD__RETENTION__ARCHIVE".to_owned(), "s3://bucket/ledger".to_owned());

    // It says that it has taken the file, and gives back another: nothing is removed.
    store.damage_what_comes(true);
    let damaged = ledgerd(&["retention"], &environment).await;
    assert_eq!(damaged.status.code(), Some(1), "{}", text_of(&damaged));
    assert_eq!((all_rows(&world).await, recorded(&world).await), (before.clone(), 0));

    store.damage_what_comes(false);
    let done = ledgerd(&["retention"], &environment).await;
    assert!(done.status.success(), "{}", text_of(&done));
    assert_eq!((all_rows(&world).await.len(), recorded(&world).await), (0, 2));
    let lines: BTreeSet<String> = store.lines().into_iter().collect();
    assert_eq!(lines, before);
    let location =
        texts(&world, "select distinct location || '/' || split_part(file, '/', 2) from ledger.export order by 1")
            .await;
    assert_eq!(location, ["s3://bucket/ledger/economic_metrics", "s3://bucket/ledger/token_ledger"]);
    store.refuse();
    make_history(&world, "WRK-001").await;
    let refused = ledgerd(&["retention"], &environment).await;
    assert_eq!(refused.status.code(), Some(78), "{}", text_of(&refused));
}
