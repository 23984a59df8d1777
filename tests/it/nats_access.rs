//! The NATS configuration that ships: each user can do its work, and no actor can speak in another's name, by any way that is
//! known.

use crate::support::daemon::{Environment, ledgerd};
use crate::support::events::{LANES, bad_events, event, good_events};
use crate::support::ledger::{STREAM, check_ledger};
use crate::support::published::Published;
use crate::support::raw_nats::{Heard, RawNats};
use crate::support::shipped_nats::{AGENTS, login};
use crate::support::world::World;
use async_nats::jetstream;
use bytes::Bytes;
use serde_json::Value;

/// Who attacks, and in whose name.
const ATTACKER: &str = "RXY-TDC-01";
const VICTIM: &str = "BRM-CTO";
const OWN_SUBJECT: &str = "ledger.SEC.RXY-TDC-01";

/// The lanes of each actor, as `nats/agents.conf` imports them.
fn imported_lanes() -> Vec<(String, String)> {
    let subjects = AGENTS.split('"').filter_map(|text| text.strip_prefix("ledger.")?.split_once('.'));
    let lanes = subjects.filter(|(lane, _)| LANES.contains(lane));
    lanes.map(|(lane, actor)| (actor.to_owned(), lane.to_owned())).collect()
}

async fn connect(world: &World, user: &str) -> RawNats {
    RawNats::connect(world.nats().port(), &login(user)).await
}

/// The sequence in the server's acknowledgement.
fn sequence(heard: &Heard) -> u64 {
    let Heard::Message { text, .. } = heard else { panic!("{heard:?}") };
    let ack: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    ack["seq"].as_u64().unwrap_or_else(|| panic!("{ack}"))
}

#[tokio::test]
async fn the_shipped_accounts_are_those_of_the_registered_agents() {
    let printed = ledgerd(&["nats-accounts"], &Environment::new()).await;
    assert!(
        printed.status.success() && printed.stdout == AGENTS.as_bytes(),
        "run `ledgerd nats-accounts > nats/agents.conf`"
    );
    let actors: std::collections::BTreeSet<_> = imported_lanes().into_iter().map(|(actor, _)| actor).collect();
    // The 32 agents, the Architect and n8n.
    assert_eq!(actors.len(), 34);
}

#[tokio::test]
async fn under_the_shipped_configuration_everybody_can_do_their_work() {
    let world = World::builder().shipped_nats().start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(2 * LANES.len())).await;
    published.publish_all(&world.publisher, bad_events()).await;
    check_ledger(&world, &published).await;
    let mut operator = connect(&world, "setup").await;
    operator.subscribe("_INBOX_setup.>").await;
    for verb in [
        "STREAM.DELETE.LEDGER",
        "STREAM.PURGE.LEDGER",
        "STREAM.MSG.DELETE.LEDGER",
        "CONSUMER.DELETE.LEDGER.ledgerd-EXEC",
    ] {
        let heard = operator.request(&format!("$JS.API.{verb}"), "_INBOX_setup.x", &[], "").await;
        assert!(heard.is_violation(), "the operator deletes nothing: {heard:?}");
    }
    assert!(daemon.readyz_text().await.contains("[+] NATS"), "the daemon lacks nothing");

    // Each actor on each of its lanes.
    let mut by_actor: Vec<(String, RawNats)> = Vec::new();
    for (actor, lane) in imported_lanes() {
        if by_actor.last().is_none_or(|(last, _)| *last != actor) {
            let mut raw = connect(&world, &actor).await;
            raw.subscribe("_INBOX.>").await;
            raw.subscribe(&format!("receipt.{actor}.*")).await;
            by_actor.push((actor.clone(), raw));
        }
        let (_, raw) = by_actor.last_mut().expect("it was just pushed");
        let heard = raw.request(&format!("ledger.{lane}.{actor}"), "_INBOX.a", &[], "{}").await;
        assert!(sequence(&heard) > 0);
    }
    // A receipt reaches its actor, live and later, and nobody else.
    let daemons = jetstream::new(world.nats().try_connect_as(&login("ledgerd")).await.expect("the daemon's login"));
    daemons.publish("receipt.BRM-CTO.one", Bytes::from("stored")).await.expect("sent").await.expect("kept");
    for (actor, raw) in &mut by_actor {
        if actor == VICTIM {
            let request = "$JS.API.DIRECT.GET.LEDGER_RECEIPTS.receipt.BRM-CTO.one";
            let live = raw.next().await;
            assert!(matches!(&live, Heard::Message { text, .. } if text == "stored"), "{live:?}");
            let later = raw.request(request, "_INBOX.b", &[], "").await;
            assert!(matches!(&later, Heard::Message { text, .. } if text.ends_with("stored")), "{later:?}");
        } else {
            assert_eq!(raw.heard().await, [], "{actor}");
        }
    }
    let emit = ["emit", "--wait", "--actor", VICTIM, "--action", "EXECUTION_STARTED", "--outcome", "SUCCESS"];
    let emitted = ledgerd_as(&world, VICTIM, &emit).await;
    assert!(emitted.status.success(), "{emitted:?}");
    // A dead letter is published again by a user who may speak for everybody.
    let listed: Value =
        serde_json::from_str(&world.ledgerd_ok(&["dlq", "list", "--limit", "1", "--json"]).await).expect("JSON");
    let reference = listed[0]["reference"].as_str().expect("there are some");
    let requeue = ["dlq", "requeue", reference, "--by", "ARCHITECT"];
    let requeued = ledgerd_as(&world, "requeue", &requeue).await;
    assert!(requeued.status.success(), "{requeued:?}");
}

/// A command of the operator, under this user's login.
async fn ledgerd_as(world: &World, user: &str, arguments: &[&str]) -> std::process::Output {
    let mut environment = world.operator.clone();
    environment.insert("LEDGERD__NATS__URL".to_owned(), world.nats().url_of(&login(user)));
    ledgerd(arguments, &environment).await
}

/// What would harm another, or the ledger.
fn forbidden_subjects() -> Vec<String> {
    let mut subjects: Vec<String> = LANES.iter().map(|lane| format!("ledger.{lane}.{VICTIM}")).collect();
    let fixed = [
        // A server takes a literal wildcard for an ordinary token.
        "ledger.SEC.*",
        "ledger.SEC.>",
        "ledger.*.BRM-CTO",
        "ledger.>.BRM-CTO",
        "ledger.*.*",
        "ledger.>",
        // In its own name: another's lane, and lanes that are none.
        "ledger.EXEC.RXY-TDC-01",
        "ledger.METRIC.RXY-TDC-01",
        "ledger.*.RXY-TDC-01",
        "ledger.>.RXY-TDC-01",
        "ledger.checkpoint",
        "dlq.ledger.SEC.BRM-CTO.1",
        "alert.budget.BRM-CTO",
        "receipt.BRM-CTO.x",
        "receipt.RXY-TDC-01.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.LEDGER",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.UPDATE.LEDGER",
        "$JS.API.STREAM.PURGE.LEDGER",
        "$JS.API.STREAM.DELETE.LEDGER",
        "$JS.API.STREAM.MSG.GET.LEDGER",
        "$JS.API.STREAM.MSG.DELETE.LEDGER",
        "$JS.API.STREAM.SNAPSHOT.LEDGER",
        "$JS.API.STREAM.RESTORE.LEDGER",
        "$JS.API.STREAM.LEADER.STEPDOWN.LEDGER",
        "$JS.API.CONSUMER.CREATE.LEDGER.mine",
        "$JS.API.CONSUMER.INFO.LEDGER.ledgerd-EXEC",
        "$JS.API.CONSUMER.MSG.NEXT.LEDGER.ledgerd-EXEC",
        "$JS.API.CONSUMER.DELETE.LEDGER.ledgerd-EXEC",
        "$JS.API.CONSUMER.PAUSE.LEDGER.ledgerd-EXEC",
        "$JS.API.DIRECT.GET.LEDGER",
        "$JS.API.DIRECT.GET.LEDGER_RECEIPTS",
        "$JS.API.DIRECT.GET.LEDGER_RECEIPTS.receipt.BRM-CTO.x",
        "$JS.API.DIRECT.GET.LEDGER_RECEIPTS.receipt.*.*",
        "$JS.API.DIRECT.GET.LEDGER_RECEIPTS.receipt.>",
        "$JS.API.ACCOUNT.PURGE.LEDGER",
        "$JS.ACK.LEDGER.ledgerd-SEC.1.1.1.1.0",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.LEDGER.CONNZ",
        "$SYS.REQ.USER.INFO",
        "_R_.x",
        "_INBOX_ledgerd.x",
        "_INBOX_setup.x",
        "_INBOX_webhooks.x",
        "_INBOX_BRM-CTO.x",
    ];
    subjects.extend(fixed.map(str::to_owned));
    subjects
}

const FORBIDDEN_SUBSCRIPTIONS: [&str; 18] = [
    ">",
    "*",
    "ledger.>",
    "ledger.*.*",
    "ledger.EXEC.BRM-CTO",
    "receipt.>",
    "receipt.*.*",
    "receipt.BRM-CTO.*",
    "alert.>",
    "alert.budget.BRM-CTO",
    "dlq.>",
    "$JS.>",
    "$JS.EVENT.>",
    "$SYS.>",
    "_R_.>",
    "_INBOX_ledgerd.>",
    "_INBOX_webhooks.>",
    "_INBOX_BRM-CTO.>",
];

/// The last sequence of each stream, once what came before was stored.
async fn ends(world: &World) -> Vec<u64> {
    let jetstream = world.jetstream().await;
    let mut ends = Vec::new();
    for stream in ["LEDGER", "LEDGER_DLQ", "LEDGER_RECEIPTS", "LEDGER_ALERTS"] {
        let stream = jetstream.get_stream(stream).await.expect("setup made it");
        ends.push(stream.cached_info().state.last_sequence);
    }
    ends
}

/// The subjects of all messages of the ledger's stream from this sequence on.
async fn subjects_from(world: &World, first: u64) -> Vec<String> {
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("setup made it");
    let mut subjects = Vec::new();
    for sequence in first..=stream.cached_info().state.last_sequence {
        subjects.push(stream.get_raw_message(sequence).await.expect("nothing was deleted").subject.to_string());
    }
    subjects
}

#[tokio::test]
async fn no_actor_speaks_in_another_name_or_reaches_what_is_not_its_own() {
    let world = World::builder().shipped_nats().without_migrations().start().await;
    no_subject_leads_out_of_its_account(&world).await;
    no_reply_and_no_header_carries_a_message_under_another_name(&world).await;
    a_message_id_that_somebody_took_first_is_told_in_the_answer(&world).await;
}

async fn no_subject_leads_out_of_its_account(world: &World) {
    let mut attacker = connect(world, ATTACKER).await;
    attacker.subscribe("_INBOX.>").await;
    let before = ends(world).await;
    let subjects = forbidden_subjects();
    for subject in &subjects {
        let heard = attacker.request(subject, "_INBOX.x", &[], "{}").await;
        assert!(heard.is_violation() || heard.is_no_responders(), "{subject}: {heard:?}");
    }
    let own = attacker.request(OWN_SUBJECT, "_INBOX.x", &[], "{}").await;
    assert_eq!(sequence(&own), before[0] + 1, "what it may do is stored next, and nothing was stored before it");
    assert_eq!(ends(world).await[1..], before[1..]);

    for subject in FORBIDDEN_SUBSCRIPTIONS {
        attacker.subscribe(subject).await;
        let heard = attacker.heard().await;
        assert!(matches!(&heard[..], [refusal] if refusal.is_violation()), "{subject}: {heard:?}");
    }
    // Others publish, are answered, and get receipts; their inboxes may even have the attacker's name.
    let mut victim = connect(world, VICTIM).await;
    victim.subscribe("_INBOX.>").await;
    assert!(sequence(&victim.request("ledger.EXEC.BRM-CTO", "_INBOX.x", &[], "{}").await) > 0);
    let daemons = jetstream::new(world.nats().try_connect_as(&login("ledgerd")).await.expect("the daemon's login"));
    for subject in ["receipt.BRM-CTO.one", "alert.budget.BRM-CTO"] {
        daemons.publish(subject, Bytes::new()).await.expect("sent").await.expect("kept");
    }
    assert_eq!(attacker.heard().await, [], "it hears nothing of that");
}

/// In a shared account the server would publish its answer there, as a message of the victim's.
async fn no_reply_and_no_header_carries_a_message_under_another_name(world: &World) {
    let mut attacker = connect(world, ATTACKER).await;
    attacker.subscribe("_INBOX.>").await;
    let before = ends(world).await;
    let replies = forbidden_subjects();
    for reply in &replies {
        attacker.publish(OWN_SUBJECT, reply, &[], "{}").await;
    }
    let traced = [
        "Nats-Trace-Dest: ledger.EXEC.BRM-CTO",
        "Nats-Trace-Dest: receipt.BRM-CTO.x",
        "Nats-Trace-Dest: $JS.API.STREAM.PURGE.LEDGER",
        "Nats-Rollup: all",
        "Nats-Schedule-Target: ledger.EXEC.BRM-CTO",
        "Nats-Subject: ledger.EXEC.BRM-CTO",
    ];
    for header in traced {
        // Whether it is stored or refused is the server's affair, and differs between versions.
        attacker.request(OWN_SUBJECT, "_INBOX.x", &[header], "{}").await;
    }
    let last = sequence(&attacker.request(OWN_SUBJECT, "_INBOX.x", &[], "{}").await);
    // A literal reply is none of the server's business.
    let literal = replies.iter().filter(|reply| !reply.contains(['*', '>'])).count();
    let stored = last - before[0];
    assert!(stored > u64::try_from(literal).expect("few"), "{stored} were stored, {literal} had a literal reply");
    let subjects = subjects_from(world, before[0] + 1).await;
    let others: Vec<_> = subjects.iter().filter(|subject| *subject != OWN_SUBJECT).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(ends(world).await[1..], before[1..]);
}

/// Ids are the stream's, and cannot be kept apart by accounts: what a publisher must do is in nats/README.md.
async fn a_message_id_that_somebody_took_first_is_told_in_the_answer(world: &World) {
    let (mut attacker, mut victim) = (connect(world, ATTACKER).await, connect(world, VICTIM).await);
    for session in [&mut attacker, &mut victim] {
        session.subscribe("_INBOX.>").await;
    }
    let good = event("EXEC", VICTIM, 1).good();
    let payload = String::from_utf8(good.payload.clone()).expect("JSON");
    let id = ["Nats-Msg-Id: EXEC-BRM-CTO-1708451200001"];
    let taken = sequence(&attacker.request(OWN_SUBJECT, "_INBOX.x", &id, "{}").await);
    let answer = victim.request(&good.subject, "_INBOX.x", &id, &payload).await;
    assert!(
        matches!(&answer, Heard::Message { text, .. } if text.replace(' ', "").contains("\"duplicate\":true")),
        "{answer:?}"
    );
    let stored = victim.request(&good.subject, "_INBOX.x", &[], &payload).await;
    assert_eq!(sequence(&stored), taken + 1, "without the id it is stored");
    assert_eq!(subjects_from(world, taken + 1).await, [good.subject]);
}
