//! `ledgerd dlq`: what was rejected is found, understood, published again once, or left to rest.

use crate::support::daemon::text_of;
use crate::support::events::{Expectation, bad_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::nats::NatsSettings;
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::records::metric;
use crate::support::requeued::{newest_letter, note, requeued_from};
use crate::support::world::World;
use async_nats::HeaderValue;
use serde_json::Value;

async fn json(world: &World, arguments: &[&str]) -> Value {
    let text = world.ledgerd_ok(&[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A command that must not succeed: its code, and all that it says.
async fn refused(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let output = world.ledgerd(arguments).await;
    assert!(!output.status.success(), "{arguments:?}: {}", text_of(&output));
    (output.status.code(), text_of(&output))
}

/// Requeues a letter, and notes the one message that came of it.
async fn requeue(
    world: &World,
    published: &mut Published,
    words: &[&str],
    reference: &str,
    expectation: Expectation,
) -> Value {
    let done = json(world, &[&["dlq", "requeue", reference, "--by", "Ops"], words].concat()).await;
    assert_eq!(done[0]["result"], "requeued", "{done}");
    let messages = requeued_from(world, reference).await;
    assert_eq!(messages.len(), 1, "{reference}");
    assert_eq!(done[0]["sequence"].as_u64(), Some(messages[0].sequence));
    note(published, &messages[0], expectation);
    check_ledger(world, published).await;
    json(world, &["dlq", "show", reference]).await
}

#[tokio::test]
async fn usage_that_lacked_a_rate_is_requeued_and_stored_once() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let call = next_event("TOKENS").without("cost_usd").without("usage_id").with("model_tier", "STANDARD");
    // The publisher's own id would make the server take the new message for the old one.
    let headers = [("Nats-Msg-Id", "the publisher's"), ("Trace", "a: b")];
    published.publish_with_headers(&world.publisher, &headers, call.bad("unknown_reference")).await;
    check_ledger(&world, &published).await;
    let reference = newest_letter(&world).await;
    for key in ["token_rate_STANDARD_input", "token_rate_STANDARD_output"] {
        published.publish(&world.publisher, metric("VRA-CFO", key, 0.003).good()).await;
    }
    check_ledger(&world, &published).await;

    let shown = requeue(&world, &mut published, &["--why", "the rate is set"], &reference, Expectation::Good).await;
    assert_eq!((&shown["state"], &shown["published"]), (&"requeued".into(), &true.into()));
    let decided = &shown["resolutions"][0];
    assert_eq!((&decided["by"], &decided["why"]), (&"Ops".into(), &"the rate is set".into()));
    assert_eq!((&decided["outcome"], &decided["replacement"]), (&"accepted".into(), &Value::Null));
    assert_eq!(world.database.count("select count(*) from ledger.token_usage").await, 1);
    let message = &requeued_from(&world, &reference).await[0];
    let header = |name: &str| message.headers.get(name).map(HeaderValue::as_str);
    assert_eq!((header("Ledger-Original-Nats-Msg-Id"), header("Trace")), (Some("the publisher's"), Some("a: b")));
    assert!(header("Nats-Msg-Id").is_some_and(|id| id.starts_with("requeue-")));

    // Once is once, and what was decided stands.
    for again in [&["--by", "Ops"][..], &["--by", "Ops", "--again"]] {
        let (code, text) = refused(&world, &[&["dlq", "requeue", &reference], again].concat()).await;
        assert!(code == Some(1) && text.contains("it was requeued, and accepted"), "{text}");
    }
    let (_, text) = refused(&world, &["dlq", "discard", &reference, "--by", "Ops", "--why", "x"]).await;
    assert!(text.contains("it was requeued"), "{text}");
    let event = "select count(*) from audit_events where action = 'DEAD_LETTER_REQUEUED' and details ->> 'by' = 'Ops'";
    assert_eq!(world.database.count(event).await, 1);
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn what_comes_back_again_and_again_is_stopped_and_other_bytes_are_judged_like_any() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let good = next_event("EXEC");
    let bad = Expectation::Bad("unknown_action");
    published.publish(&world.publisher, good.clone().with("action", "NO_SUCH").bad("unknown_action")).await;
    check_ledger(&world, &published).await;
    let first = newest_letter(&world).await;
    let shown = requeue(&world, &mut published, &[], &first, bad).await;
    let mut last = newest_letter(&world).await;
    assert_eq!(shown["resolutions"][0]["rejected_as"], last.as_str());
    let (_, text) = refused(&world, &["dlq", "requeue", &first, "--by", "Ops", "--again"]).await;
    assert!(text.contains(&format!("rejected again as {last}: requeue that one")), "{text}");

    let folder = scratch_folder("payload");
    let file = folder.path().join("payload").to_str().expect("UTF-8").to_owned();
    let other = |bytes: &[u8]| std::fs::write(&file, bytes).expect("ours");
    let with_payload = ["--payload", &file, "--why", "a typing error"];
    let no_why = ["dlq", "requeue", &last, "--by", "Ops", "--payload", &file];
    assert_eq!(refused(&world, &no_why).await.0, Some(64));
    for round in 2..=10 {
        let (code, text) = refused(&world, &["dlq", "requeue", &last, "--by", "Ops"]).await;
        assert!(code == Some(1) && text.contains("for the same reason"), "{text}");
        if round == 5 {
            // Other bytes, and as bad.
            other(&next_event("EXEC").with("action", "NO_SUCH_EITHER").payload());
            requeue(&world, &mut published, &with_payload, &last, bad).await;
        } else {
            requeue(&world, &mut published, &["--again"], &last, bad).await;
        }
        last = newest_letter(&world).await;
    }
    let shown = json(&world, &["dlq", "show", &last]).await;
    assert_eq!(shown["requeued_from"].as_array().map(Vec::len), Some(10));
    let (_, text) = refused(&world, &["dlq", "requeue", &last, "--by", "Ops", "--again"]).await;
    assert!(text.contains("it came back 10 times"), "{text}");

    // A correction of another letter becomes a record; the letter keeps its bytes.
    let bytes = good.clone().with("outcome", "NONE").payload();
    published.publish(&world.publisher, good.clone().with("outcome", "NONE").bad("outcome_not_allowed")).await;
    check_ledger(&world, &published).await;
    let letter = newest_letter(&world).await;
    other(&good.payload());
    let shown = requeue(&world, &mut published, &with_payload, &letter, Expectation::Good).await;
    assert_eq!(shown["payload"].as_str().map(str::as_bytes), Some(&bytes[..]));
    let decided = &shown["resolutions"][0];
    assert_eq!((&decided["why"], &decided["outcome"]), (&"a typing error".into(), &"accepted".into()));
    assert_eq!(decided["replacement"].as_str().map(str::as_bytes), Some(&good.payload()[..]));
    assert!(world.ledgerd_ok(&["dlq", "show", &letter]).await.contains("requeued"));
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn letters_are_found_by_reason_lane_actor_time_and_state_and_are_resolved_together() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let unknown = |lane| next_event(lane).with("action", "NO_SUCH").bad("unknown_action");
    let three = vec![unknown("EXEC"), unknown("EXEC"), unknown("VOTE")];
    published.publish_all(&world.publisher, three).await;
    published.publish_all(&world.publisher, bad_events()).await;
    check_ledger(&world, &published).await;
    let all = published.bad();

    let list = async |words: &[&str]| {
        let list = json(&world, &[&["dlq", "list"], words].concat()).await;
        list.as_array().expect("a list").clone()
    };
    let count = async |words: &[&str]| list(words).await.len();
    assert_eq!((count(&[]).await, count(&["--limit", "2"]).await), (all, 2));
    // With the one of `bad_events`.
    assert_eq!(count(&["--reason", "unknown_action"]).await, 4);
    assert_eq!(count(&["--reason", "unknown_action", "--lane", "VOTE"]).await, 1);
    assert_eq!(count(&["--reason", "unknown_action", "--actor", "BRM-CTO"]).await, 3);
    assert_eq!(count(&["--lane", "METRIC", "--actor", "BRM-CTO"]).await, 0);
    assert_eq!((count(&["--since", "2020-01-01"]).await, count(&["--until", "2020-01-01"]).await), (all, 0));
    let newest = list(&["--limit", "1"]).await[0]["rejected_at"].as_str().expect("a moment").to_owned();
    assert!((1..=all).contains(&count(&["--since", &newest]).await));
    assert_eq!((count(&["--state", "open"]).await, count(&["--state", "discarded"]).await), (all, 0));
    for wrong in [["--reason", "no_such"], ["--lane", "NONE"], ["--state", "lost"], ["--since", "yesterday"]] {
        assert_eq!(refused(&world, &[&["dlq", "list"], &wrong[..]].concat()).await.0, Some(64), "{wrong:?}");
    }

    // Of many, nothing is done by mistake.
    let filter = ["--reason", "unknown_action", "--lane", "EXEC"];
    let (code, text) = refused(&world, &[&["dlq", "requeue", "--by", "Ops"], &filter[..]].concat()).await;
    assert!(code == Some(64) && text.contains("3 dead letters match"), "{text}");
    for missing in [&["dlq", "requeue", "--all-matching"][..], &["dlq", "discard", "--all-matching", "--by", "Ops"]] {
        assert_eq!(refused(&world, missing).await.0, Some(64));
    }
    assert_eq!(refused(&world, &["dlq", "requeue", "1-1", "--by", "Ops"]).await.0, Some(1));
    let dry = json(&world, &[&["dlq", "requeue", "--by", "Ops", "--dry-run"], &filter[..]].concat()).await;
    let results: Vec<_> = dry.as_array().expect("a list").iter().map(|it| it["result"].clone()).collect();
    assert_eq!(results, ["would_be_requeued"; 3]);
    assert_eq!(world.database.count("select count(*) from ledger.resolution").await, 0);

    // One rests, and the others go, in the order in which they came.
    let matching = list(&filter).await;
    let reference = |index: usize| matching[index]["reference"].as_str().expect("a reference");
    let discard = ["dlq", "discard", reference(1), "--by", "Ops", "--why", "a test of ours"];
    world.ledgerd_ok(&discard).await;
    assert!(refused(&world, &discard).await.1.contains("it was discarded already"));
    assert_eq!(count(&["--state", "discarded"]).await, 1);
    let done = json(&world, &[&["dlq", "requeue", "--by", "Ops", "--all-matching"], &filter[..]].concat()).await;
    let went: Vec<_> = done.as_array().expect("a list").iter().map(|it| it["reference"].clone()).collect();
    assert_eq!(went, [reference(2), reference(0)]);
    for reference in [reference(2), reference(0)] {
        note(&mut published, &requeued_from(&world, reference).await[0], Expectation::Bad("unknown_action"));
    }
    check_ledger(&world, &published).await;
    // They came back for the same reason: the filter finds them, and they are not sent round again.
    let again = json(&world, &[&["dlq", "requeue", "--by", "Ops", "--all-matching"], &filter[..]].concat()).await;
    let results: Vec<_> = again.as_array().expect("a list").iter().map(|it| it["result"].clone()).collect();
    assert_eq!(results, ["refused"; 2]);
    // A rest can be ended by a word.
    assert!(refused(&world, &["dlq", "requeue", reference(1), "--by", "Ops"]).await.1.contains("say --again"));
    requeue(&world, &mut published, &["--again"], reference(1), Expectation::Bad("unknown_action")).await;
    world.ledgerd_ok(&["verify"]).await;
}

#[tokio::test]
async fn what_no_stream_takes_is_refused_before_anything_is_decided() {
    // A server that takes less than its stream would.
    let max = 400_000;
    let settings = NatsSettings { lines: format!("max_payload: {max}"), ..NatsSettings::default() };
    let world = World::builder().nats_settings(settings).start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
    check_ledger(&world, &published).await;
    let reference = newest_letter(&world).await;
    // As large as it takes, so that a requeue's own headers do not fit beside it.
    let folder = scratch_folder("payload");
    let file = folder.path().join("payload").to_str().expect("UTF-8").to_owned();
    std::fs::write(&file, vec![b' '; max]).expect("ours");
    let large = ["dlq", "requeue", &reference, "--by", "Ops", "--why", "x", "--payload", &file];
    let (code, text) = refused(&world, &large).await;
    assert!(code == Some(1) && text.contains(&format!("and LEDGER takes {max}")), "{text}");
    // A terminal shows what a publisher wrote, and does not obey it.
    let hostile = r#"{"event_id":"EXEC-BRM-CTO-1","note":"ab"#.replace("ab", "\u{1b}[2J\r\u{202e}") + "\"}";
    let mut outgoing = next_event("EXEC").bad("malformed_json");
    outgoing.payload = hostile.into_bytes();
    published.publish(&world.publisher, outgoing).await;
    check_ledger(&world, &published).await;
    let shown = world.ledgerd_ok(&["dlq", "show", &newest_letter(&world).await]).await;
    assert!(shown.contains(r"\u{1b}[2J\u{d}\u{202e}") && !shown.contains(['\u{1b}', '\r', '\u{202e}']), "{shown}");
    world.nats().kill();
    let (code, _) = refused(&world, &["dlq", "requeue", &reference, "--by", "Ops"]).await;
    assert_eq!(code, Some(69));
    assert_eq!(world.database.count("select count(*) from ledger.resolution").await, 0);
}
