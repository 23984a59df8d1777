//! Records wait, nothing is stored, and both servers are there: that too is noticed, told, and answered.

use crate::support::daemon::{Daemon, text_of};
use crate::support::events::{event, good_events, next_event};
use crate::support::ledger::{STREAM, check_ledger, settled};
use crate::support::notify::NotifySocket;
use crate::support::process::scratch_folder;
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::records::metric;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tokio::time::timeout;

const EXEC_STANDS_STILL: &str = "lane EXEC stands still";

async fn answers(daemon: &Daemon, path: &str, status: u16, with: &str) {
    let what = format!("{path} answers {status} with {with:?}");
    eventually(&what, SOON, async || {
        let answer = daemon.get(path).await?;
        when(answer.status == status && answer.body.contains(with), || format!("{answer:?}"))
    })
    .await;
}

/// The server takes the daemon's requests for the messages of one lane no more, and says nothing to them. Another lane is paused.
#[tokio::test]
async fn a_lane_that_stands_still_is_told_and_the_watchdog_may_bite_unless_it_was_paused() {
    let socket = NotifySocket::bind();
    let world = World::builder()
        .shipped_nats()
        .env("LEDGERD__STALL__TELL_AFTER", "1s")
        .env("LEDGERD__STALL__RESTART_AFTER", "3s")
        .env("NOTIFY_SOCKET", socket.path())
        .start()
        .await;
    let daemon = world.daemon().await;
    let (pull, nothing) = ("\"$JS.API.CONSUMER.MSG.NEXT.LEDGER.ledgerd-EXEC\"", "\"nothing\"");
    world.nats().reconfigure(|text| text.replace(pull, nothing)).await;
    let can_pause = world.jetstream().await.client().is_server_compatible(2, 11, 0);
    if can_pause {
        pause_vote(&world, "2999-01-01T00:00:00Z").await;
    }
    answers(&daemon, "/readyz", 200, "").await;
    let mut published = Published::default();
    for lane in ["EXEC", "VOTE", "SEC", "EXEC"] {
        published.publish(&world.publisher, next_event(lane).good()).await;
    }
    answers(&daemon, "/livez", 503, EXEC_STANDS_STILL).await;
    answers(&daemon, "/readyz", 503, EXEC_STANDS_STILL).await;
    assert!(daemon.metric("ledgerd_stalled_seconds", "EXEC").await > 0.0);
    assert!(daemon.metric("ledgerd_stalled_seconds", "SEC").await.abs() < 0.1);
    let status = world.ledgerd_ok(&["status"]).await;
    assert!(status.contains("EXEC stands still") && !status.contains("SEC stands still"), "{status}");
    socket.says(EXEC_STANDS_STILL).await;
    assert!(!is_fed(&socket).await, "the watchdog would bite");
    if can_pause {
        answers(&daemon, "/readyz", 503, "ledgerd-VOTE is paused").await;
    }

    world.nats().reconfigure(|text| text.replace(nothing, pull)).await;
    daemon.says("lane EXEC moves again").await;
    answers(&daemon, "/livez", 200, "").await;
    assert!(is_fed(&socket).await, "a paused lane is no reason for a restart");
    if can_pause {
        answers(&daemon, "/readyz", 503, "ledgerd-VOTE is paused").await;
        pause_vote(&world, "2000-01-01T00:00:00Z").await;
    }
    check_ledger(&world, &published).await;
    answers(&daemon, "/readyz", 200, "").await;
    let count = |text: &str| daemon.log_lines_matching(text).len();
    assert_eq!((count("lane EXEC stands still"), count("lane EXEC moves again")), (2, 1), "{}", daemon.log());
}

/// The socket takes ten messages, and then a sender waits for the reader.
#[tokio::test]
async fn a_systemd_that_reads_nothing_stops_nothing() {
    let folder = scratch_folder("systemd");
    let path = folder.path().join("socket");
    let nobody_reads = UnixDatagram::bind(&path).expect("the folder is ours");
    let world = World::builder()
        .env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .env("WATCHDOG_USEC", "200000")
        .start()
        .await;
    let _daemon = world.daemon().await;
    let another = UnixDatagram::unbound().expect("a socket");
    another.set_nonblocking(true).expect("a socket");
    eventually("the socket is full", SOON, async || {
        let sent = another.send_to(b"x", &path);
        when(sent.is_err(), || format!("{sent:?}"))
    })
    .await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(30)).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 30);
    drop(nobody_reads);
}

async fn pause_vote(world: &World, until: &str) {
    ask(world, "CONSUMER.PAUSE.LEDGER.ledgerd-VOTE", &json!({"pause_until": until})).await;
}

/// Whether the watchdog is fed within a few of its rounds from now on.
async fn is_fed(socket: &NotifySocket) -> bool {
    socket.forget().await;
    timeout(Duration::from_millis(2500), socket.says("WATCHDOG=1")).await.is_ok()
}

/// Sends one request of the JetStream API, which must succeed.
pub(crate) async fn ask(world: &World, subject: &str, request: &Value) -> Value {
    let answer: Value = world.jetstream().await.request(subject.to_owned(), request).await.expect("the server answers");
    assert!(answer.get("error").is_none(), "{subject}: {answer}");
    answer
}

async fn change(world: &World, lane: &str, setting: &str, value: Value) {
    let stream = world.jetstream().await.get_stream(STREAM).await.expect("setup made it");
    let info = stream.consumer_info(format!("ledgerd-{lane}")).await.expect("setup made it");
    let mut config = serde_json::to_value(&info.config).expect("JSON");
    config[setting] = value;
    let request = json!({"stream_name": STREAM, "config": config, "action": "update"});
    ask(world, &format!("CONSUMER.CREATE.LEDGER.ledgerd-{lane}"), &request).await;
}

/// Such a consumer says that nothing waits, or brings messages without their bytes. It is made anew at the next look, and what it may
/// have passed over is read again.
#[tokio::test]
async fn a_consumer_that_is_changed_while_the_daemon_runs_is_made_anew_and_no_record_suffers() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    settled(&world, &published).await;
    for (setting, value) in [("filter_subject", json!("ledger.EXEC.NOBODY")), ("headers_only", json!(true))] {
        change(&world, "EXEC", setting, value).await;
        for _ in 0..5 {
            published.publish(&world.publisher, next_event("EXEC").good()).await;
        }
        daemon.says(&format!("{setting} is")).await;
        let counts = check_ledger(&world, &published).await;
        assert_eq!((counts.rows, counts.rejects), (published.all().len(), 0));
        answers(&daemon, "/readyz", 200, "").await;
    }
    let check = text_of(&world.ledgerd(&["check"]).await);
    assert!(check.contains("consumer ledgerd-EXEC: as in nats/"), "{check}");
}

/// A wrong consumer has moved the position over messages that it passed over. The daemon is killed before it has read them.
#[tokio::test]
async fn what_a_wrong_consumer_has_passed_over_is_stored_though_the_daemon_is_killed_meanwhile() {
    let world = World::builder().nats_proxy().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("EXEC").good()).await;
    settled(&world, &published).await;
    let passed_over = published.all().len() + 1;
    change(&world, "EXEC", "filter_subject", json!("ledger.EXEC.VRA-CFO")).await;
    // The first of them is asked for when the range is read.
    let asks = format!("\"ledger.EXEC.*\",\"seq\":{passed_over}}}");
    for _ in 0..5 {
        published.publish(&world.publisher, next_event("EXEC").good()).await;
    }
    published.publish(&world.publisher, event("EXEC", "VRA-CFO", 1).good()).await;
    let suspect = "select count(*) from ledger.position where lane = 'EXEC' and suspect_after is not null";
    let mut held = world.nats_proxy().hold_when(Direction::ToServer, asks.as_bytes());
    eventually("it is suspect", SOON, async || when(world.database.count(suspect).await == 1, String::new)).await;
    held.happened().await;
    daemon.sigkill();
    world.nats_proxy().drop_held().await;
    assert_eq!(world.database.count(suspect).await, 1, "and stays so");
    let _daemon = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 7);
    eventually("nothing is suspect", SOON, async || when(world.database.count(suspect).await == 0, String::new)).await;
}

/// Such a consumer counts a rate that it has passed over as done.
#[tokio::test]
async fn usage_waits_while_the_consumer_of_its_rates_is_wrong() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, next_event("METRIC").good()).await;
    settled(&world, &published).await;
    change(&world, "METRIC", "filter_subject", json!("ledger.METRIC.BRM-CTO")).await;
    published.publish(&world.publisher, metric("VRA-CFO", "token_rate_STANDARD_input", 0.003).good()).await;
    published.publish(&world.publisher, metric("VRA-CFO", "token_rate_STANDARD_output", 0.015).good()).await;
    let not_theirs = metric("BRM-CTO", "token_rate_STANDARD_input", 0.0).bad("action_not_allowed");
    published.publish(&world.publisher, not_theirs).await;
    let usage = next_event("TOKENS").without("cost_usd").with("model_tier", "STANDARD");
    published.publish(&world.publisher, usage.good()).await;
    daemon.says("consumer ledgerd-METRIC: filter_subject is").await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (4, 1));
}
