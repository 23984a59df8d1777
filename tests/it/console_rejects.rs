//! The screens of rejects: what was rejected and why, and what an operator decides there.

use crate::support::console::{Console, FORM, TOKENS, token_entry};
use crate::support::daemon::Environment;
use crate::support::events::{Expectation, next_event};
use crate::support::ledger::{check_ledger, settled};
use crate::support::published::Published;
use crate::support::requeued::{note, requeued_from};
use crate::support::signed::fill;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};

const READER: &str = "a-token-of-a-reader";
const OPERATOR: &str = "a-token-of-an-operator";

/// A console with both roles, and with the login that carries out decisions.
fn with_operator(environment: &Environment) -> Environment {
    let tokens = [token_entry(READER, "read", "ada"), token_entry(OPERATOR, "operate", "grace")];
    let mut environment = environment.clone();
    environment.insert(TOKENS.to_owned(), tokens.join(","));
    let url = environment["LEDGERD__DATABASE__URL"].clone();
    environment.insert("LEDGERD__CONSOLE__OPERATOR_DATABASE_URL".to_owned(), url);
    environment
}

async fn newest_reject(world: &World) -> i64 {
    world.database.count("select max(leaf_index) from ledger.dead_letter").await
}

async fn reject_of(world: &World, reason: &str) -> i64 {
    let newest = format!("select max(leaf_index) from ledger.dead_letter where reason = '{reason}'");
    world.database.count(&newest).await
}

async fn decisions(world: &World) -> i64 {
    world.database.count("select count(*) from ledger.resolution").await
}

#[tokio::test]
async fn rejects_stand_by_reason_and_agent_with_their_cure_and_their_fault() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let console = Console::start(&world.environment).await;
    assert!(console.page("/rejects").await.contains("Nothing was rejected."));
    let mut published = Published::default();
    for _ in 0..3 {
        let unknown = next_event("EXEC").with("action", "<b>NO SUCH</b>").bad("unknown_action");
        published.publish(&world.publisher, unknown).await;
    }
    let mut broken = next_event("VOTE").bad("malformed_json");
    broken.payload = b"{\"actor\": nothing}".to_vec();
    published.publish_with_headers(&world.publisher, &[("Trace", "<i>")], broken).await;
    check_ledger(&world, &published).await;

    let said = console.api("/rejects").await;
    let groups = said["groups"].as_array().expect("groups");
    let counts: Vec<_> =
        groups.iter().map(|it| (it["reason"].clone(), it["count"].clone(), it["open"].clone())).collect();
    assert_eq!(counts, [(json!("unknown_action"), json!(3), json!(3)), (json!("malformed_json"), json!(1), json!(1))]);
    assert_eq!((&said["counted"], &said["counted_all"], &said["next_cursor"]), (&json!(4), &json!(true), &Value::Null));
    assert_eq!(said["rejects"].as_array().expect("rejects").len(), 4);
    let page = console.page("/rejects").await;
    for part in ["All 4 rejects are counted.", "wait for a decision", "use the exact name", "&lt;b&gt;NO SUCH"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<b>NO"), "what an agent wrote is text");
    // Filters, of which a form sends empty ones too.
    for (filter, found) in
        [("reason=malformed_json&actor=&state=", 1), ("state=discarded", 0), ("state=no_such", 0), ("actor=NOBODY", 0)]
    {
        let said = console.api(&format!("/rejects?{filter}")).await;
        assert_eq!(said["rejects"].as_array().expect("rejects").len(), found, "{filter}");
    }
    assert!(console.page("/rejects?state=discarded").await.contains("None of these matches."));

    let leaf = reject_of(&world, "malformed_json").await;
    let said = console.api(&format!("/rejects/{leaf}")).await;
    assert_eq!(
        (&said["summary"]["reason"], &said["fault"]["before"]),
        (&json!("malformed_json"), &json!("{\"actor\": "))
    );
    let page = console.page(&format!("/rejects/{leaf}")).await;
    for part in ["<mark>", "use a JSON library", "&lt;i&gt;", "This console only reads", "ledgerd dlq requeue"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let action = console.api(&format!("/rejects/{}", reject_of(&world, "unknown_action").await)).await;
    assert_eq!(action["fault"]["fault"], "\"action\":\"<b>NO SUCH</b>\"", "{action}");
    assert_eq!(console.get("/rejects/0").await.status, 404);
    assert_eq!(console.get("/api/v1/rejects/0").await.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn an_operator_requeues_after_a_preview_and_the_record_names_the_token() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let bad = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    published.publish(&world.publisher, bad).await;
    settled(&world, &published).await;
    let leaf = newest_reject(&world).await;
    let console = Console::start(&with_operator(&world.environment)).await;
    let grace = console.sign_in(OPERATOR).await;
    let address = format!("/rejects/{leaf}");

    // The preview says what would be published where, and decides nothing.
    let fields = "decision=requeue&why=the+action+is+%3Cnow%3E+registered";
    let preview = grace.send(&address, &format!("{address}/preview"), fields).await;
    let text = preview.text();
    assert_eq!(preview.status, 200, "{text}");
    for part in ["This would publish", "ledger.EXEC.BRM-CTO", "LEDGER", "grace", "the action is &lt;now&gt; registered"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(decisions(&world).await, 0);

    let done = grace.send(&address, &format!("{address}/decide"), fields).await;
    assert_eq!((done.status, done.header("location")), (303, address.as_str()), "{}", done.text());
    let decided = "select count(*) from ledger.resolution
        where decided_by = 'grace' and why = 'the action is <now> registered' and settled_at is not null";
    assert_eq!(world.database.count(decided).await, 1);
    let recorded = "select count(*) from audit_events
        where action = 'DEAD_LETTER_REQUEUED' and details->>'by' = 'grace' and (details->>'leaf_index')::bigint = ";
    assert_eq!(world.database.count(&format!("{recorded}{leaf}")).await, 1);
    let reference = console_reference(&world, leaf).await;
    let messages = requeued_from(&world, &reference).await;
    assert_eq!(messages.len(), 1, "once");
    note(&mut published, &messages[0], Expectation::Bad("unknown_action"));
    check_ledger(&world, &published).await;

    // It came back. The page says so, and a second requeue of the first is refused.
    eventually("the page shows what became of it", SOON, async || {
        let page = grace.get(&address).await.text();
        when(page.contains("rejected again as") && page.contains("requeued by"), || page.clone())
    })
    .await;
    let again = grace.send(&address, &format!("{address}/decide"), fields).await;
    assert!(again.status == 200 && again.text().contains("rejected again as"), "{}", again.text());
    assert_eq!(decisions(&world).await, 1);
}

async fn console_reference(world: &World, leaf: i64) -> String {
    let subject = format!("select split_part(dlq_subject, '.', 5) from ledger.dead_letter where leaf_index = {leaf}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(subject))
        .fetch_one(&mut world.database.connect().await)
        .await
        .expect("it is there")
}

#[tokio::test]
async fn an_operator_discards_with_a_reason_and_nobody_else_decides() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let bad = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    published.publish(&world.publisher, bad).await;
    settled(&world, &published).await;
    let leaf = newest_reject(&world).await;
    let address = format!("/rejects/{leaf}");
    let (preview, decide) = (format!("{address}/preview"), format!("{address}/decide"));
    let console = Console::start(&with_operator(&world.environment)).await;
    let fields = "decision=discard&why=a+test";

    // A reader sees no form, and its session's own key opens nothing.
    let ada = console.sign_in(READER).await;
    let page = ada.get(&address).await.text();
    assert!(page.contains("a token of the role operate") && !page.contains("/preview"), "{page}");
    for action in [&preview, &decide] {
        assert_eq!(ada.send(&address, action, fields).await.status, 403);
        assert_eq!(console.ask("POST", action, &[FORM], fields.as_bytes()).await.status, 303, "to /login");
    }
    // Nor does a form that comes from no page of the operator's session.
    let grace = console.sign_in(OPERATOR).await;
    assert_eq!(grace.post(&decide, fields).await.status, 403);
    // A reason is required, and a decision.
    for bad in
        ["decision=discard&why=", "decision=discard&why=+%09", "decision=burn&why=x", "decision=discard&why=a%0Ab"]
    {
        for action in [&preview, &decide] {
            let answer = grace.send(&address, action, bad).await;
            assert!(answer.text().contains("role=\"alert\""), "{bad}: {}", answer.text());
        }
    }
    assert_eq!(decisions(&world).await, 0);

    let shown = grace.send(&address, &preview, fields).await;
    assert!(shown.text().contains("aside") && decisions(&world).await == 0, "{}", shown.text());
    assert_eq!(grace.send(&address, &decide, fields).await.status, 303);
    let decided =
        "select count(*) from ledger.resolution where decided_by = 'grace' and action = 'DISCARDED' and why = 'a test'";
    assert_eq!(world.database.count(decided).await, 1);
    let twice = grace.send(&address, &decide, fields).await;
    assert!(twice.text().contains("it was discarded already"), "{}", twice.text());
    let said = ada.get("/api/v1/rejects").await.text();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["groups"][0]["open"], &said["groups"][0]["discarded"]), (&json!(0), &json!(1)));
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn an_away_message_server_is_told_and_nothing_is_decided() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    let bad = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
    published.publish(&world.publisher, bad).await;
    settled(&world, &published).await;
    drop(daemon);
    let leaf = newest_reject(&world).await;
    let mut environment = with_operator(&world.environment);
    environment.insert("LEDGERD__NATS__URL".to_owned(), "nats://127.0.0.1:1".to_owned());
    let console = Console::start(&environment).await;
    let grace = console.sign_in(OPERATOR).await;
    let address = format!("/rejects/{leaf}");
    let answer = grace.send(&address, &format!("{address}/decide"), "decision=requeue&why=x").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("NATS"), "{}", answer.text());
    assert_eq!(decisions(&world).await, 0);
    // What needs no stream goes on.
    assert_eq!(grace.send(&address, &format!("{address}/decide"), "decision=discard&why=x").await.status, 303);
}

#[tokio::test]
async fn many_rejects_are_counted_in_a_window_and_paged_without_reading_all() {
    const REJECTS: i64 = 25_000;
    let world = World::builder().without_streams().start().await;
    fill(&world.database, u64::try_from(REJECTS).expect("small")).await;
    let rejects = format!(
        "insert into ledger.dead_letter
            select leaf, case when leaf = 20 then 'conflict' else 'unknown_action' end, 'x', 'dlq.ledger.EXEC.A' || leaf % 2 || '.' || leaf, now()
            from generate_series(0, {REJECTS} - 1) as leaf;
        analyze ledger.dead_letter; analyze ledger.batch;
        select pg_stat_force_next_flush()"
    );
    world.database.execute(&rejects).await;
    let before = world.database.read_in_full("dead_letter").await;
    let console = Console::start(&world.environment).await;

    let said = console.api("/rejects").await;
    assert_eq!((&said["counted"], &said["counted_all"]), (&json!(10_000), &json!(false)));
    let of_group: i64 = said["groups"].as_array().expect("groups").iter().filter_map(|it| it["count"].as_i64()).sum();
    assert_eq!(of_group, 10_000);
    assert!(console.page("/rejects").await.contains("The newest 10000 rejects are counted"));
    // The rare one is far back: empty pages lead to it.
    let (mut cursor, mut pages, mut found) = (String::new(), 0, Vec::new());
    loop {
        let said = console.api(&format!("/rejects?reason=conflict&cursor={cursor}")).await;
        found.extend(said["rejects"].as_array().expect("rejects").iter().map(|it| it["leaf_index"].clone()));
        pages += 1;
        match said["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!((pages, found), (3, vec![json!(20)]));
    // Pages go on without a gap and without one twice.
    let first = console.api("/rejects").await;
    let second = console.api(&format!("/rejects?cursor={}", first["next_cursor"].as_str().expect("more"))).await;
    let leaves = |page: &Value| {
        page["rejects"]
            .as_array()
            .expect("rejects")
            .iter()
            .filter_map(|it| it["leaf_index"].as_i64())
            .collect::<Vec<_>>()
    };
    assert_eq!([leaves(&first), leaves(&second)].concat(), (0..50).map(|at| REJECTS - 1 - at).collect::<Vec<_>>());
    // What the console has read is counted when its sessions have ended.
    drop(console);
    assert_eq!(world.database.read_in_full("dead_letter").await, before, "nothing is read in full");
}
