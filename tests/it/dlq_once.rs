//! A requeue puts one message into the stream: killed, raced, unanswered, or with the stream made anew in between.

use crate::faults_postgres::COMMIT;
use crate::support::daemon::{Daemon, ledgerd, spawn_ledgerd, text_of};
use crate::support::events::{Expectation, Outgoing, next_event};
use crate::support::ledger::{STREAM, check_ledger, settled};
use crate::support::process::{Process, scratch_folder};
use crate::support::proxy::{Direction, Hold};
use crate::support::published::{Headers, Published};
use crate::support::requeued::{newest_letter, note, requeued_from};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use async_nats::jetstream::message::PublishMessage;
use futures_util::future::join_all;
use std::time::Duration;
use tempfile::TempDir;

const NATS_URL: &str = "LEDGERD__NATS__URL";

const UNKNOWN: Expectation = Expectation::Bad("unknown_action");

/// A ledger whose operator reaches the servers through proxies, and with the daemon's grants alone.
struct Bench {
    world: World,
    published: Published,
    folder: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let world = World::builder().postgres_proxy().nats_proxy().limited_role().start().await;
        Self { world, published: Published::default(), folder: scratch_folder("dlq") }
    }

    /// A daemon that no proxy disturbs.
    async fn daemon(&self) -> Daemon {
        let mut daemon = Daemon::spawn(&self.world.operator);
        daemon.ready().await;
        daemon
    }

    /// One more dead letter.
    async fn letter(&mut self) -> String {
        let bad = next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action");
        self.published.publish(&self.world.publisher, bad).await;
        settled(&self.world, &self.published).await;
        newest_letter(&self.world).await
    }

    /// Begins a requeue that the proxies can hold.
    fn requeue(&self, reference: &str) -> Process {
        let log = self.folder.path().join(format!("{reference}.log"));
        spawn_ledgerd(&["dlq", "requeue", reference, "--by", "Ops"], &self.world.environment, &log)
    }

    /// Runs it again, straight to the servers, until nothing is left to do.
    async fn finish(&self, reference: &str, instant: &str) {
        let what = format!("{instant}: the next run finishes it");
        // The killed run's transaction may outlive it for a moment.
        eventually(&what, SOON, async || {
            let output = ledgerd(&["dlq", "requeue", reference, "--by", "Ops"], &self.world.operator).await;
            let text = text_of(&output);
            when(output.status.success() || text.contains("it was requeued"), || text)
        })
        .await;
    }

    /// From now on the server forgets message ids at once, as it does everywhere after ten minutes.
    async fn forget_ids_soon(&self) {
        let jetstream = self.world.jetstream().await;
        let stream = jetstream.get_stream(STREAM).await.expect("setup made it");
        let mut config = stream.cached_info().config.clone();
        config.duplicate_window = Duration::from_millis(100);
        jetstream.update_stream(config).await.expect("the server takes it");
    }

    /// Waits until the server has forgotten the ids of all that was published so far.
    async fn ids_are_forgotten(&mut self) {
        let event = next_event("SEC");
        let publish = async |outgoing: Outgoing| {
            let message = PublishMessage::build().message_id(event.event_id()).payload(outgoing.payload.into());
            self.world.publisher.try_publish(&outgoing.subject, message).await
        };
        let first = publish(event.good()).await.expect("the server runs");
        let again = eventually("the id is free again", SOON, async || {
            let sequence = publish(event.again()).await?;
            if sequence > first { Ok(sequence) } else { Err("it is known".to_owned()) }
        })
        .await;
        let headers = || Headers::Pairs(vec![("Nats-Msg-Id".to_owned(), event.event_id().to_owned())]);
        self.published.note(first, headers(), event.good());
        self.published.note(again, headers(), event.again());
    }

    /// One message, one decision, one event; and the daemon has judged what came of it.
    async fn check(&mut self, reference: &str, instant: &str) {
        let messages = requeued_from(&self.world, reference).await;
        assert_eq!(messages.len(), 1, "{instant}");
        note(&mut self.published, &messages[0], UNKNOWN);
        check_ledger(&self.world, &self.published).await;
        let decided = format!(
            "select count(*) from ledger.resolution
            join ledger.dead_letter using (leaf_index)
            join audit_events as event using (event_id)
            where dlq_subject like '%.{reference}' and event.details ->> 'dead_letter' = '{reference}'
                and settled_at is not null and new_sequence = {}",
            messages[0].sequence
        );
        assert_eq!(self.world.database.count(&decided).await, 1, "{instant}");
    }
}

type Strike = fn(&World) -> Hold;

/// Where a requeue is killed, from the first statement that matters to the last.
const INSTANTS: [(&str, Strike); 10] = [
    ("before the decision", |world| before_statement(world, b"insert into ledger.resolution")),
    ("decided, not committed", |world| world.postgres_proxy().hold_answer_after(b"insert into ledger.resolution")),
    ("before its commit", |world| before_statement(world, COMMIT)),
    ("decided, not known", |world| world.postgres_proxy().hold_answer_after(COMMIT)),
    ("decided, not recorded", |world| before_statement(world, b"insert into ledger.batch")),
    ("recorded, not looked", |world| world.nats_proxy().hold_when(Direction::ToServer, b"last_by_subj")),
    ("before the publication", |world| world.nats_proxy().hold_when(Direction::ToServer, b"HPUB ledger.")),
    ("published, not known", |world| world.nats_proxy().hold_answer_after(b"HPUB ledger.")),
    ("published, not settled", |world| before_statement(world, b"update ledger.resolution")),
    ("settled, not known", |world| world.postgres_proxy().hold_answer_after(b"update ledger.resolution")),
];

fn before_statement(world: &World, pattern: &[u8]) -> Hold {
    world.postgres_proxy().hold_when(Direction::ToServer, pattern)
}

#[tokio::test]
async fn killed_at_any_point_the_next_run_finishes_it_and_there_is_one_message() {
    let mut bench = Bench::start().await;
    let _daemon = bench.daemon().await;
    for (instant, strike) in INSTANTS {
        let reference = bench.letter().await;
        let mut held = strike(&bench.world);
        let mut process = bench.requeue(&reference);
        held.happened().await;
        process.kill();
        bench.world.postgres_proxy().drop_held().await;
        bench.world.nats_proxy().drop_held().await;
        bench.finish(&reference, instant).await;
        bench.check(&reference, instant).await;
    }
    let said = ledgerd(&["verify"], &bench.world.operator).await;
    assert!(said.status.success(), "{}", text_of(&said));
}

#[tokio::test]
async fn however_late_the_first_publication_arrives_it_is_refused_after_the_second() {
    let mut bench = Bench::start().await;
    let _daemon = bench.daemon().await;
    bench.forget_ids_soon().await;
    for is_killed in [true, false] {
        let reference = bench.letter().await;
        let mut held = bench.world.nats_proxy().hold_when(Direction::ToServer, b"HPUB ledger.");
        let mut first = bench.requeue(&reference);
        held.happened().await;
        if is_killed {
            first.kill();
        }
        // Somebody publishes on the same subject, and another operator finishes what was decided.
        let other = next_event("EXEC").good();
        bench.published.publish(&bench.world.publisher, other).await;
        bench.finish(&reference, "two operators").await;
        bench.ids_are_forgotten().await;
        bench.world.nats_proxy().release();
        if !is_killed {
            assert_eq!(first.wait_exit(SOON).await, 0, "{}", first.log());
        }
        bench.check(&reference, "late").await;
    }
    // A stranger's message alone does not stop it.
    let reference = bench.letter().await;
    let mut held = bench.world.nats_proxy().hold_when(Direction::ToServer, b"HPUB ledger.");
    let mut process = bench.requeue(&reference);
    held.happened().await;
    bench.published.publish(&bench.world.publisher, next_event("EXEC").good()).await;
    bench.world.nats_proxy().release();
    assert_eq!(process.wait_exit(SOON).await, 0, "{}", process.log());
    bench.check(&reference, "another came first").await;
    // The stream took it, and the confirmation was lost.
    let reference = bench.letter().await;
    let mut held = bench.world.nats_proxy().hold_answer_after(b"HPUB ledger.");
    let mut process = bench.requeue(&reference);
    held.happened().await;
    eventually("the stream has it", SOON, async || {
        let found = requeued_from(&bench.world, &reference).await.len();
        when(found == 1, || found.to_string())
    })
    .await;
    bench.world.nats_proxy().drop_held().await;
    assert_eq!(process.wait_exit(SOON).await, 0, "{}", process.log());
    bench.check(&reference, "the confirmation was lost").await;
}

#[tokio::test]
async fn of_operators_who_requeue_at_once_one_decides() {
    let mut bench = Bench::start().await;
    let _daemon = bench.daemon().await;
    for _ in 0..5 {
        let reference = bench.letter().await;
        let one = async || ledgerd(&["dlq", "requeue", &reference, "--by", "Ops"], &bench.world.operator).await;
        let all = join_all((0..4).map(|_| one())).await;
        let text: String = all.iter().map(text_of).collect();
        assert!(all.iter().any(|output| output.status.success()), "{text}");
        bench.check(&reference, &text).await;
    }
    // One has seen that nothing was decided, when another decides and is killed.
    let reference = bench.letter().await;
    let mut looking = before_statement(&bench.world, b"select d.reason, state.name");
    let mut second = bench.requeue(&reference);
    looking.happened().await;
    let mut around = bench.world.operator.clone();
    around.insert(NATS_URL.to_owned(), bench.world.environment[NATS_URL].clone());
    let mut publishing = bench.world.nats_proxy().hold_when(Direction::ToServer, b"HPUB ledger.");
    let log = bench.folder.path().join("first.log");
    let mut first = spawn_ledgerd(&["dlq", "requeue", &reference, "--by", "Ops"], &around, &log);
    publishing.happened().await;
    first.kill();
    bench.world.nats_proxy().drop_held().await;
    bench.world.postgres_proxy().release();
    assert_eq!(second.wait_exit(SOON).await, 0, "{}", second.log());
    bench.check(&reference, "the second finishes what the first decided").await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_gets_what_the_ledger_does_not_have() {
    let mut bench = Bench::start().await;
    let daemon = bench.daemon().await;
    let (unpublished, stored) = (bench.letter().await, bench.letter().await);
    for (reference, strike) in [(&unpublished, INSTANTS[6].1), (&stored, INSTANTS[8].1)] {
        let mut held = strike(&bench.world);
        let mut process = bench.requeue(reference);
        held.happened().await;
        process.kill();
        bench.world.postgres_proxy().drop_held().await;
        bench.world.nats_proxy().drop_held().await;
    }
    note(&mut bench.published, &requeued_from(&bench.world, &stored).await[0], UNKNOWN);
    settled(&bench.world, &bench.published).await;

    bench.world.jetstream().await.delete_stream(STREAM).await.expect("it is there");
    daemon.says("run `ledgerd setup`").await;
    bench.world.ledgerd_ok(&["setup"]).await;
    bench.published.stream_was_made_anew();
    bench.finish(&stored, "custody has it").await;
    assert_eq!(requeued_from(&bench.world, &stored).await.len(), 0, "custody has it");
    bench.finish(&unpublished, "nobody has it").await;
    bench.check(&unpublished, "nobody had it").await;
    let unfinished = "select count(*) from ledger.resolution where settled_at is null";
    assert_eq!(bench.world.database.count(unfinished).await, 0);
}
