//! Webhooks out while something fails: the daemon is killed, the receiver is away, slow, or says no. Nothing is lost, the order stays.

use crate::notify::{is_ascending, registered, reject, world_with};
use crate::support::daemon::text_of;
use crate::support::ledger::check_ledger;
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::receiver::{Receiver, Reply, notify_setting};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use std::time::Duration;

const REJECTS: &[&str] = &["reject"];
/// A lease is as long as an attempt, and a little more.
const SOON_OVER: &str = "timeout = '1s'";

/// Publishes some rejects, and waits until they are committed.
async fn publish(world: &World, count: usize) {
    let mut published = Published::default();
    published.publish_all(&world.publisher, (0..count).map(|_| reject()).collect()).await;
    let before = world.database.count("select count(*) from ledger.dead_letter").await;
    let expected = i64::try_from(count).expect("few");
    eventually("the rejects are committed", SOON, async || {
        let now = world.database.count("select count(*) from ledger.dead_letter where leaf_index >= 0").await;
        when(now >= expected.max(before), || now.to_string())
    })
    .await;
}

async fn target(world: &World) -> Value {
    let listed: Value = serde_json::from_str(&world.ledgerd_ok(&["notify", "list", "--json"]).await).expect("JSON");
    listed["targets"][0].clone()
}

#[tokio::test]
async fn killed_while_the_receiver_thinks_the_notification_comes_again_with_its_id() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), REJECTS, SOON_OVER)]).await;
    let mut daemon = world.daemon().await;
    registered(&world, "n8n").await;
    receiver.answers([Reply::status(204).after(Duration::from_millis(900))]);
    publish(&world, 3).await;
    receiver.is_sent(1).await;
    daemon.sigkill();
    let _again = world.daemon().await;
    let accepted = receiver.accepts(3).await;
    let sent = receiver.received();
    assert_eq!(sent.len(), 4);
    assert_eq!((sent[0].id.as_str(), sent[0].text.as_str()), (sent[1].id.as_str(), sent[1].text.as_str()));
    assert!(is_ascending(&accepted));
}

/// What is held is the statement that notes the delivery.
#[tokio::test]
async fn killed_between_a_delivery_and_its_mark_the_notification_comes_again_with_its_id() {
    let receiver = Receiver::start().await;
    let setting = notify_setting(&[("n8n", &receiver.url(), REJECTS, SOON_OVER)]);
    let world = World::builder().postgres_proxy().env("LEDGERD__NOTIFY", &setting).start().await;
    let mut daemon = world.daemon().await;
    registered(&world, "n8n").await;
    let mut hold = world.postgres_proxy().hold_when(Direction::ToServer, b"insert into ledger.notification as kept");
    let mut published = Published::default();
    published.publish_all(&world.publisher, vec![reject(), reject(), reject()]).await;
    hold.happened().await;
    daemon.sigkill();
    world.postgres_proxy().drop_held().await;
    assert_eq!(receiver.received().len(), 1);
    let _again = world.daemon().await;
    let accepted = receiver.accepts(3).await;
    assert!(is_ascending(&accepted));
    let sent = receiver.received();
    assert_eq!((sent.len(), sent[0].id.as_str()), (4, sent[1].id.as_str()));
    check_ledger(&world, &published).await;
}

#[tokio::test]
async fn killed_again_and_again_nothing_is_lost() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), REJECTS, "timeout = '500ms'")]).await;
    let mut daemon = world.daemon().await;
    registered(&world, "n8n").await;
    receiver.answers_all(Reply::status(204).after(Duration::from_millis(20)));
    let mut published = Published::default();
    for round in 1..=2 {
        published.publish_all(&world.publisher, (0..30).map(|_| reject()).collect()).await;
        receiver.is_sent(10 * round).await;
        daemon.sigkill();
        daemon = world.daemon().await;
    }
    check_ledger(&world, &published).await;
    let accepted = receiver.accepts(60).await;
    assert!(accepted.len() == 60 && is_ascending(&accepted));
    // At most the one that was on its way at each kill.
    assert!(receiver.received().len() <= 62, "{}", receiver.received().len());
}

#[tokio::test]
async fn a_receiver_that_is_away_slow_or_broken_gets_everything_in_order_and_delays_no_other() {
    let (mut receiver, other) = (Receiver::away(), Receiver::start().await);
    let world =
        world_with(&[("n8n", &receiver.url(), REJECTS, SOON_OVER), ("other", &other.url(), REJECTS, SOON_OVER)]).await;
    let daemon = world.daemon().await;
    registered(&world, "n8n").await;
    registered(&world, "other").await;
    publish(&world, 3).await;
    other.accepts(3).await;
    daemon.says("notifications wait, for n8n does not accept them").await;
    assert!(daemon.log_contains("Connection refused"));
    let waiting = target(&world).await;
    assert_eq!(
        (&waiting["name"], &waiting["state"], &waiting["waiting"]),
        (&json!("n8n"), &json!("failing"), &json!(3))
    );
    eventually("the metrics show it", SOON, async || {
        let shown = daemon.metric("ledgerd_notifications_oldest_waiting_age_seconds", "n8n").await;
        let waiting = daemon.metric("ledgerd_notifications_waiting", "n8n").await;
        when(shown > 0.0 && waiting > 2.5, || format!("{shown} {waiting}"))
    })
    .await;

    receiver.answers([Reply::status(204).after(Duration::from_secs(5)), Reply::status(500)]);
    receiver.come().await;
    let accepted = receiver.accepts(3).await;
    let sent = receiver.received();
    assert!(sent.iter().take(3).all(|it| it.id == sent[0].id), "{sent:#?}");
    assert!(is_ascending(&accepted) && sent.len() == 5, "{sent:#?}");
    daemon.says("notifications reach n8n again").await;
    assert!(daemon.log_contains("no answer within 1s") && daemon.log_contains("500 Internal Server Error"));
    let console = crate::support::console::Console::start(&world.environment).await;
    let attempts = console.api("/notifications?target=n8n").await;
    let first = attempts["notifications"].as_array().and_then(|list| list.last()).expect("the first").clone();
    assert!(first["attempts"].as_i64().is_some_and(|attempts| attempts >= 4), "{first}");
    assert_eq!(other.received().len(), 3);
}

#[tokio::test]
async fn retry_after_is_heeded() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), REJECTS, "")]).await;
    let _daemon = world.daemon().await;
    registered(&world, "n8n").await;
    receiver.answers([Reply::status(429).with("retry-after", "4")]);
    publish(&world, 1).await;
    receiver.accepts(1).await;
    let sent = receiver.received();
    let waited = sent[1].at - sent[0].at;
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
}

#[tokio::test]
async fn gone_disables_a_target_until_an_operator_or_another_url_enables_it() {
    let (receiver, moved) = (Receiver::start().await, Receiver::start().await);
    let mut world = world_with(&[("n8n", &receiver.url(), REJECTS, SOON_OVER)]).await;
    let mut daemon = world.daemon().await;
    registered(&world, "n8n").await;
    receiver.answers_all(Reply::status(410));
    publish(&world, 2).await;
    daemon.says("410 Gone and is told nothing any more").await;
    eventually("the metric shows it", SOON, async || {
        let disabled = daemon.metric("ledgerd_notify_target_disabled", "n8n").await;
        when(disabled > 0.5, || disabled.to_string())
    })
    .await;
    assert_eq!(target(&world).await["state"], "disabled");
    let listed = world.ledgerd_ok(&["notify", "list"]).await;
    assert!(listed.contains("`ledgerd notify retry n8n`"), "{listed}");
    assert_eq!(receiver.received().len(), 1);

    receiver.answers([Reply::status(204), Reply::status(410)]);
    world.ledgerd_ok(&["notify", "retry", "n8n"]).await;
    receiver.is_sent(3).await;
    eventually("it is disabled again", SOON, async || {
        let state = target(&world).await["state"].clone();
        when(state == "disabled", || state.to_string())
    })
    .await;

    daemon.sigterm();
    assert_eq!(daemon.wait_exit().await, 0);
    let setting = notify_setting(&[("n8n", &moved.url(), REJECTS, SOON_OVER)]);
    world.environment.insert("LEDGERD__NOTIFY".to_owned(), setting);
    let _again = world.daemon().await;
    assert_eq!(moved.accepts(1).await[0].id, receiver.received()[2].id);
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let world = world_with(&[("n8n", &receiver.url(), REJECTS, "")]).await;
    let daemon = world.daemon().await;
    registered(&world, "n8n").await;
    receiver.answers([Reply::status(307).with("location", elsewhere.url())]);
    publish(&world, 1).await;
    receiver.accepts(1).await;
    assert!(daemon.log_contains("redirects are not followed"), "{}", daemon.log());
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn what_is_refused_for_too_long_is_given_up_shown_and_retried_on_demand() {
    let receiver = Receiver::start().await;
    let world = world_with(&[("n8n", &receiver.url(), REJECTS, "give_up_after = '2s'")]).await;
    let daemon = world.daemon().await;
    registered(&world, "n8n").await;
    receiver.answers_all(Reply::status(400));
    publish(&world, 1).await;
    daemon.says("was given up").await;
    receiver.answers_all(Reply::status(204));
    publish(&world, 1).await;
    let second = receiver.accepts(1).await;
    assert_ne!(second[0].id, receiver.received()[0].id);
    assert_eq!(target(&world).await["given_up"], 1);
    assert!(daemon.metric("ledgerd_notifications_given_up_total", "n8n").await > 0.5);

    let retried = world.ledgerd_ok(&["notify", "retry", "n8n"]).await;
    assert!(retried.contains("tries 1 notifications once more"), "{retried}");
    let accepted = receiver.accepts(2).await;
    assert_eq!(accepted[1].id, receiver.received()[0].id);
    eventually("nothing is given up any more", SOON, async || {
        let target = target(&world).await;
        when(target["given_up"] == 0 && target["delivered"] == 2, || target.to_string())
    })
    .await;
    let unknown = world.ledgerd(&["notify", "retry", "nobody"]).await;
    assert!(text_of(&unknown).contains("there is no target nobody"), "{}", text_of(&unknown));
}
