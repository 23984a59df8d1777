//! *Trust*: what was signed, who vouched for it, when it was checked, and whether it contains a checkpoint that somebody kept.

use crate::support::console::Console;
use crate::support::daemon::{ledgerd, text_of};
use crate::support::forge;
use crate::support::process::scratch_folder;
use crate::support::signed::{ORIGIN, fill, key, log_key, sign, sign_at, signed, verifier_key};
use crate::support::world::World;
use serde_json::{Value, json};
use tlog::tree::TreeHead;

/// Any text in the query of an address.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The console with the log's key, as on the machine that signs.
async fn console_with_key(world: &World) -> (Console, tempfile::TempDir) {
    let folder = scratch_folder("trust");
    let file = folder.path().join("key");
    std::fs::write(&file, key().secret_text()).expect("the folder is ours");
    let mut environment = world.environment.clone();
    environment.insert("LEDGERD__CHECKPOINT__KEY_FILE".to_owned(), file.to_str().expect("UTF-8").to_owned());
    (Console::start(&environment).await, folder)
}

#[tokio::test]
async fn a_kept_checkpoint_is_contained_until_somebody_rewrites_the_log() {
    let world = World::builder().without_streams().start().await;
    fill(&world.database, 700).await;
    let kept = sign_at(&world.database, 300).await.to_string();
    let newest = sign(&world.database).await;
    let (console, _folder) = console_with_key(&world).await;
    let ask = async |text: &str| {
        let kept = console.api(&format!("/trust?checkpoint={}", encoded(text))).await["kept"].clone();
        (kept["verdict"].as_str().unwrap_or_default().to_owned(), kept["is_signed"].clone())
    };
    assert_eq!(ask(&kept).await, ("contained".to_owned(), json!(true)));
    assert_eq!(ask(&newest.to_string()).await, ("contained".to_owned(), json!(true)), "the present one");
    // As a form sends it.
    assert_eq!(ask(&format!("  {}", kept.replace('\n', "\r\n"))).await.0, "contained");
    let stranger = signed(newest.head(), &log_key(ORIGIN, 9)).to_string();
    assert_eq!(ask(&stranger).await, ("contained".to_owned(), json!(false)), "right, and of another key");
    let unsigned = kept.split("\n\n").next().expect("three lines").to_owned();
    assert_eq!(ask(&unsigned).await, ("contained".to_owned(), json!(false)));
    let other = signed(TreeHead { size: 300, root: [7; 32] }, &key()).to_string();
    assert_eq!(ask(&other).await, ("different".to_owned(), json!(true)));
    let longer = signed(TreeHead { size: 701, root: [7; 32] }, &key()).to_string();
    assert_eq!(ask(&longer).await.0, "longer");
    for text in ["hello", "<script>alert(1)</script>", &"x".repeat(17_000)[..1000], "example.com/ledger\n-1\nAAAA\n"] {
        assert_eq!(ask(text).await.0, "unreadable", "{text}");
    }
    let page = console.page(&format!("/trust?checkpoint={}", encoded(&kept))).await;
    assert!(page.contains("exactly the 300 entries") && page.contains(&verifier_key()), "{page}");
    let page = console.page(&format!("/trust?checkpoint={}", encoded("</textarea><b>x"))).await;
    assert!(!page.contains("</textarea><b>"), "what was pasted is escaped");

    // One leaf of those is another now, and all that was made from it.
    let forged = "set ledgerd.migrating = on; alter table ledger.batch disable trigger all; alter table ledger.subtree disable trigger all;
        update ledger.batch set leaf_hashes[1] = sha256('forged') where first_leaf = 200;
        update ledger.subtree set hash = sha256('forged') where level = 1 and index = 0";
    world.database.execute(forged).await;
    assert_eq!(ask(&kept).await.0, "different");
    let page = console.page(&format!("/trust?checkpoint={}", encoded(&kept))).await;
    assert!(page.contains("somebody rewrote the log"), "{page}");
}

#[tokio::test]
async fn the_state_of_trust_is_told_with_what_cannot_be_seen() {
    let world = World::builder().without_streams().start().await;
    let console = Console::start(&world.environment).await;
    let page = console.page("/trust").await;
    for says in [
        "not signed",
        "No run is on record",
        "No gap is on record",
        "Nothing was ever removed",
        "What cannot be seen here",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    fill(&world.database, 100).await;
    sign_at(&world.database, 60).await;
    let cosigned = format!(
        "insert into ledger.cosignature (origin, tree_size, witness, line) values ('{ORIGIN}', 60, 'witness.example', 'x')"
    );
    world.database.execute(&cosigned).await;
    let gap = "insert into ledger.epoch (stream, stream_created_ns) values ('LEDGER', 1);
        insert into ledger.gap (epoch, lane, first_sequence, last_sequence, why)
        select epoch, 'EXEC', 3, 9, 'purged' from ledger.epoch where stream = 'LEDGER'";
    world.database.execute(gap).await;
    let removed = "set ledgerd.migrating = on; alter table ledger.erasure disable trigger all;
        insert into ledger.erasure (table_name, authorized_by, row_count, event_id)
        values ('audit_events', 'SYS-ARCHITECT-1', 2, 'SYS-ARCHITECT-2')";
    world.database.execute(removed).await;
    assert_eq!(world.ledgerd(&["verify"]).await.status.code(), Some(3));
    let trust = console.api("/trust").await;
    assert_eq!(
        (&trust["checkpoints"][0]["origin"], &trust["checkpoints"][0]["tree_size"]),
        (&json!(ORIGIN), &json!(60))
    );
    assert_eq!(trust["checkpoints"][0]["witnesses"], json!(["witness.example"]));
    assert_eq!((&trust["verifier_key"], &trust["kept"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&trust["gaps"][0]["why"], &trust["removals"][0]["authorized_by"]),
        (&json!("purged"), &json!("SYS-ARCHITECT-1"))
    );
    let findings = trust["runs"]["verify"]["findings"].as_i64().expect("a number");
    assert!(findings > 0);
    let page = console.page("/trust").await;
    for says in [
        "witness.example",
        "40 entries",
        "purged",
        "authorised by",
        "differences",
        "names the key <code>example.com/ledger</code>",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
}

#[tokio::test]
async fn the_newest_checkpoint_is_printed_without_its_key() {
    let world = World::builder().without_streams().start().await;
    let nothing = world.ledgerd(&["checkpoint"]).await;
    assert_eq!(nothing.status.code(), Some(1), "{}", text_of(&nothing));
    fill(&world.database, 50).await;
    let signed = sign(&world.database).await.to_string();
    let shown = world.ledgerd(&["checkpoint"]).await;
    assert_eq!((shown.status.code(), String::from_utf8_lossy(&shown.stdout).into_owned()), (Some(0), signed.clone()));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("not checked"), "{}", text_of(&shown));
    let json: Value = serde_json::from_str(&world.ledgerd_ok(&["checkpoint", "--json"]).await).expect("JSON");
    assert_eq!((&json["size"], &json["note"], &json["verifier_key"]), (&json!(50), &json!(signed), &Value::Null));
    let mut unreadable = world.operator.clone();
    unreadable.insert("LEDGERD__CHECKPOINT__KEY_FILE".to_owned(), "/nonexistent".to_owned());
    let shown = ledgerd(&["checkpoint"], &unreadable).await;
    assert_eq!(shown.status.code(), Some(0), "{}", text_of(&shown));
    let declared = world.ledgerd(&["checkpoint", "--new-epoch", "lost"]).await;
    assert_eq!(declared.status.code(), Some(78), "to declare something needs the key: {}", text_of(&declared));
}

/// Statements that a screen sends, on a ledger in which a scan would show: nothing of what grows is read in full.
#[tokio::test]
async fn no_screen_of_state_goes_through_a_table_that_grows() {
    const LEAVES: u64 = 30_000;
    let world = World::start().await;
    fill(&world.database, LEAVES).await;
    forge::arm(&world.database).await;
    let grown = format!(
        "update ledger.entry set disposition = 'rejected' where leaf_index % 5 = 3 and leaf_index < 30000;
        insert into ledger.dead_letter
            select leaf_index, 'conflict', 'x', 'dlq.' || leaf_index, committed_at from ledger.entry where disposition = 'rejected';
        insert into ledger.checkpoint (origin, tree_size, root, note)
            select '{ORIGIN}', size, sha256(size::text::bytea), repeat('a note', 30) from generate_series(1, 6000) as size;
        insert into ledger.budget_alert (agent_name, date, old_status, new_status, spent_usd, limit_usd, limit_key, raised_at)
            select 'A-' || n % 40, '2026-01-01'::date + n / 40, 'GREEN', 'RED', 1, 1, 'k', now() from generate_series(1, 6000) as n;
        insert into public.token_ledger (agent_name, date, exact_cost, total_cost, budget_group)
            select 'A-' || n % 40, '2024-01-01'::date + n / 40, 1, 1, 'COUNCIL' from generate_series(1, 8000) as n;
        insert into ledger.token_usage (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given)
            select 'A-' || n % 40, 'u' || n, true, '2024-01-01'::date + n / 400, 1, 1, 1, true from generate_series(1, 20000) as n;
        insert into ledger.run (what, scope, started_at, entries, findings, summary, program_version)
            select 'verify', 'whole', now(), 1, 0, '{{}}', '0' from generate_series(1, 3000);
        analyze;
        select pg_stat_force_next_flush()"
    );
    world.database.execute(&grown).await;
    let tables = ["batch", "dead_letter", "checkpoint", "budget_alert", "token_usage", "run"];
    let read = async || {
        let mut read = Vec::new();
        for table in tables {
            read.push(world.database.read_in_full(table).await);
        }
        read.push(
            world.database.count("select seq_tup_read from pg_stat_user_tables where relname = 'token_ledger'").await,
        );
        read
    };
    let before = read().await;
    {
        let console = Console::start(&world.environment).await;
        for path in [
            "/",
            "/money",
            "/money/BRM-CTO",
            "/trust",
            "/api/v1/now",
            "/api/v1/budgets/BRM-CTO",
            "/api/v1/budgets/BRM-CTO/calls",
        ] {
            // Twice and more: a plan is kept from the sixth time on.
            for _ in 0..7 {
                console.page(path).await;
            }
        }
        let began = std::time::Instant::now();
        console.page("/").await;
        eprintln!("Now, {LEAVES} entries: {:?}", began.elapsed());
    }
    let statuses = world.ledgerd(&["spend"]).await;
    assert!(statuses.status.success(), "{}", text_of(&statuses));
    let after = read().await;
    assert_eq!(after, before, "read in full: {tables:?} and token_ledger");
}
