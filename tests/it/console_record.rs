//! The screen of one record: as it was published, as it is stored, and its proof.

use crate::support::console::Console;
use crate::support::events::{LANES, event, next_event};
use crate::support::forge;
use crate::support::ledger::{check_ledger, settled};
use crate::support::postgres::PASSWORD;
use crate::support::published::Published;
use crate::support::signed::sign;
use crate::support::world::World;
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn leaf_of(world: &World, condition: &str) -> i64 {
    world.database.count(&format!("select leaf_index from ledger.entry where {condition}")).await
}

async fn record(console: &Console, leaf: i64) -> (String, Value) {
    (console.page(&format!("/record/{leaf}")).await, console.api(&format!("/records/{leaf}")).await)
}

#[tokio::test]
async fn a_record_is_shown_as_it_was_published_and_as_it_is_stored() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let event =
        next_event("EXEC").with("task_id", "TASK/4711").with("details", json!({ "note": "<script>alert(1)</script>" }));
    let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    published.publish_with_headers(&world.publisher, &[trace], event.good()).await;
    published.publish(&world.publisher, event.again()).await;
    check_ledger(&world, &published).await;

    let console = Console::start(&world.environment).await;
    let id = event.event_id();
    let leaf = leaf_of(&world, &format!("record_id = '{id}' and disposition = 'recorded'")).await;
    let moved = console.get(&format!("/event/{id}")).await;
    assert_eq!((moved.status, moved.header("location")), (303, format!("/record/{leaf}").as_str()));

    let (page, said) = record(&console, leaf).await;
    let payload = String::from_utf8(event.payload()).expect("JSON");
    assert_eq!((said["record_id"].as_str(), said["published"]["payload"].as_str()), (Some(id), Some(&*payload)));
    assert_eq!((said["published"]["exact"].clone(), said["differences"].clone()), (json!(true), json!([])));
    assert_eq!(said["trace"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((&said["task_id"], &said["row"]["table"]), (&json!("TASK/4711"), &json!("audit_events")));
    let others = said["others"].as_array().expect("a list");
    assert_eq!((others.len(), &others[0]["disposition"]), (1, &json!("duplicate")));
    for part in ["the same", "0af7651916cd43dd8448eb211c80319c", "/task/TASK%2F4711", "&lt;script&gt;", "EXECUTION"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<script>alert"), "what an agent wrote is text");
    let (page, copy) = record(&console, others[0]["leaf_index"].as_i64().expect("a leaf")).await;
    assert_eq!((&copy["disposition"], &copy["row"]), (&json!("duplicate"), &Value::Null));
    assert!(page.contains("The same record was stored before"));

    // What is not there is told, to people and to programs.
    let missing = console.get("/record/999999").await;
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("the ledger has no entry 999999"));
    assert_eq!(console.get("/event/EXEC-NOBODY-1").await.status, 404);
    let problem = console.get("/api/v1/records/999999").await;
    assert_eq!((problem.status, problem.header("content-type")), (404, "application/problem+json"));
    assert_eq!(console.get("/record/18446744073709551615").await.status, 404);
    assert_eq!(console.get("/record/-1").await.status, 400);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_shown_safely() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let mut broken = next_event("EXEC").bad("not_utf8");
    broken.payload = b"{\"actor\": \"\xff\x1b[31m<b>\r\n\0\"}".to_vec();
    published.publish(&world.publisher, broken).await;
    let block = b"NATS/1.0\r\nno colon <i>\r\n\r\n";
    published.publish_raw(&world.publisher, block, next_event("VOTE").good()).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;

    let (page, said) = record(&console, leaf_of(&world, "disposition = 'rejected'").await).await;
    assert_eq!((&said["published"]["exact"], &said["rejection"]["reason"]), (&json!(false), &json!("not_utf8")));
    assert!(page.contains("\\xff\\x1b[31m&lt;b&gt;\\r\\n\\x00") && page.contains("/rejects/"), "{page}");
    assert!(!page.contains('\u{1b}') && !page.contains("published-bytes"));
    let (page, _) = record(&console, leaf_of(&world, "subject like 'ledger.VOTE.%'").await).await;
    assert!(page.contains("Nobody can parse them") && page.contains("no colon &lt;i&gt;"), "{page}");
}

#[tokio::test]
async fn a_row_that_somebody_changed_is_told_column_by_column() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let (event, gone) = (next_event("EXEC"), next_event("EXEC"));
    published.publish(&world.publisher, event.good()).await;
    published.publish(&world.publisher, gone.good()).await;
    check_ledger(&world, &published).await;
    world.database.execute("alter table audit_events disable trigger all").await;
    let id = event.event_id();
    world.database.execute(&format!("update audit_events set outcome = 'FORGED' where event_id = '{id}'")).await;
    world.database.execute(&format!("delete from audit_events where event_id = '{}'", gone.event_id())).await;
    let console = Console::start(&world.environment).await;

    let leaf = leaf_of(&world, &format!("record_id = '{id}'")).await;
    let (page, said) = record(&console, leaf).await;
    let outcome = said["row"]["columns"].as_array().expect("columns").iter().find(|it| it["name"] == "outcome");
    let difference = outcome.expect("the column")["difference"].as_str().expect("a difference").to_owned();
    assert!(difference.contains("is \"FORGED\", custody says"), "{difference}");
    assert!(page.contains("differs") && page.contains("verify --repair-projection"), "{page}");
    let (page, said) = record(&console, leaf_of(&world, &format!("record_id = '{}'", gone.event_id())).await).await;
    assert_eq!(said["differences"].as_array().expect("a list").len(), 1, "{said}");
    assert!(page.contains("Its row is missing, and no removal says why."), "{page}");
}

#[tokio::test]
async fn erased_bytes_are_told_as_such_and_stay_provable() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let secret = next_event("SEC");
    published.publish(&world.publisher, secret.good()).await;
    settled(&world, &published).await;
    let approval = event("SYS", "ARCHITECT", 1)
        .with("action", "DELETION_AUTHORIZED")
        .with("outcome", "APPROVED")
        .with("details", json!({ "table": "audit_events", "ids": [secret.event_id()], "reason": "a password" }));
    published.publish(&world.publisher, approval.good()).await;
    settled(&world, &published).await;
    world.ledgerd_ok(&["retention", "erase", "--authorized-by", approval.event_id()]).await;
    sign(&world.database).await;
    let console = Console::start(&world.environment).await;

    let leaf = leaf_of(&world, &format!("record_id = '{}'", secret.event_id())).await;
    let (page, said) = record(&console, leaf).await;
    assert_eq!((&said["published"]["payload"], &said["row"]), (&Value::Null, &Value::Null));
    assert_eq!((&said["erasure"]["authorized_by"], &said["differences"]), (&json!(approval.event_id()), &json!([])));
    assert!(page.contains("erased under authorisation") && page.contains(approval.event_id()), "{page}");
    let proof = console.get(&format!("/api/v1/records/{leaf}/proof")).await;
    assert_eq!(proof.status, 200, "{}", proof.text());
    assert!(proof.text().starts_with("c2sp.org/tlog-proof@v1\n"));
}

#[tokio::test]
async fn the_proof_is_the_one_that_prove_writes() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let event = next_event("EXEC");
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    let leaf = leaf_of(&world, &format!("record_id = '{}'", event.event_id())).await;
    let address = format!("/api/v1/records/{leaf}/proof");

    let unsigned = console.get(&address).await;
    assert_eq!((unsigned.status, unsigned.header("content-type")), (409, "application/problem+json"));
    assert!(unsigned.text().contains("no checkpoint was ever signed"), "{}", unsigned.text());
    sign(&world.database).await;
    let proof = console.get(&address).await;
    assert_eq!(proof.text(), world.ledgerd_ok(&["prove", event.event_id(), "--out", "-"]).await);
    assert!(proof.header("content-disposition").contains(&format!("entry-{leaf}.tlog-proof")));

    // A leaf that was changed is not proven.
    forge::arm(&world.database).await;
    world.database.execute(&format!("update ledger.entry set payload = 'x' where leaf_index = {leaf}")).await;
    let changed = console.get(&address).await;
    assert_eq!(changed.status, 409);
    assert!(changed.text().contains("is not what was logged"), "{}", changed.text());
}

#[tokio::test]
async fn a_login_that_may_only_read_suffices_for_every_kind_of_entry() {
    let world = World::builder().group_roles().start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    for lane in LANES {
        published.publish(&world.publisher, next_event(lane).good()).await;
    }
    published.publish(&world.publisher, next_event("SEC").without("actor").bad("missing_field")).await;
    check_ledger(&world, &published).await;
    sign(&world.database).await;
    let reader = world.database.create_role("reader").await;
    world.database.execute(&format!("grant ledgerd_reader to {reader}")).await;
    let url = world.database.url();
    let place = url.rsplit_once('@').expect("a login").1;
    let mut environment = world.environment.clone();
    environment.insert("LEDGERD__CONSOLE__DATABASE_URL".to_owned(), format!("postgres://{reader}:{PASSWORD}@{place}"));
    environment.insert("LEDGERD__DATABASE__URL".to_owned(), "postgres://nobody@127.0.0.1:1/none".to_owned());
    let console = Console::start(&environment).await;

    let size = world.database.count("select size from ledger.tree_head").await;
    let mut tables = BTreeSet::new();
    for leaf in 0..size {
        let (_, said) = record(&console, leaf).await;
        assert_eq!(said["differences"], json!([]), "{said}");
        tables.extend(said["row"]["table"].as_str().map(str::to_owned));
        assert_eq!(console.get(&format!("/api/v1/records/{leaf}/proof")).await.status, 200);
    }
    assert_eq!(tables.len(), 5, "{tables:?}");
    let reject = console.api("/rejects").await["rejects"][0]["leaf_index"].clone();
    assert!(console.page(&format!("/rejects/{reject}")).await.contains("missing_field"));
}
