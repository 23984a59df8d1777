//! PostgreSQL goes away, fills up, refuses: nothing is lost, nothing is rejected, and the daemon says why it waits.

use crate::support::daemon::Daemon;
use crate::support::events::{good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::proxy::Direction;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use sqlx::Executor as _;
use std::time::Duration;
use tokio::time::Instant;

/// What the daemon may grow by during an outage: it holds at most three batches for each lane.
const GROWTH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// `LEDGERD_TEST_OUTAGE_SECONDS=600` makes it ten minutes.
fn outage() -> Duration {
    let seconds = std::env::var("LEDGERD_TEST_OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

#[tokio::test]
async fn postgres_stops_under_load_and_comes_back() {
    let world = World::builder().own_cluster().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(500)).await;
    check_ledger(&world, &published).await;
    let resident_before = daemon.rss_bytes();

    world.cluster().stop_fast().await;
    let began = Instant::now();
    let mut resident_most = resident_before;
    let mut load = tokio::time::interval(Duration::from_secs(1));
    for round in 0.. {
        // More than it may hold, then a trickle for as long as it lasts.
        published.publish_all(&world.publisher, good_events(if round < 4 { 2000 } else { 110 })).await;
        let missing = daemon.unready().await;
        assert!(missing.contains("[-] PostgreSQL"), "{missing}");
        resident_most = resident_most.max(daemon.rss_bytes());
        if round >= 4 && began.elapsed() >= outage() {
            break;
        }
        if round >= 4 {
            load.tick().await;
        }
    }
    assert!(daemon.is_running());
    assert!(resident_most - resident_before < GROWTH_BYTES_MAX, "from {resident_before} to {resident_most} bytes");
    // One line for the outage, and a reminder a minute: not one for each message or try.
    let told = daemon.log_lines_matching("waiting for PostgreSQL").len();
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).expect("few");
    assert!((1..=6 + minutes).contains(&told), "{told} lines in {minutes} minutes");

    world.cluster().restart().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects, counts.lost), (published.all().len(), 0, 0));
    eprintln!("{counts:?}; outage {:?}; resident {resident_before} to {resident_most} bytes", began.elapsed());
}

#[tokio::test]
async fn postgres_is_killed_in_the_middle_of_commits() {
    let world = World::builder().own_cluster().start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    for _ in 0..3 {
        published.publish_all(&world.publisher, good_events(1500)).await;
        let committed = "select count(*) from ledger.entry";
        eventually("some are committed", SOON, async || {
            let count = world.database.count(committed).await;
            when(count > 10, || count.to_string())
        })
        .await;
        world.cluster().kill().await;
        world.cluster().restart().await;
    }
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (4500, 0));
}

/// Publishes, waits until the daemon says why it waits, mends the fault, and checks that everything is there.
async fn waits_and_recovers(world: &World, daemon: &mut Daemon, says: &str, mend: impl AsyncFnOnce()) {
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(300)).await;
    published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
    eventually("the daemon says why it waits", SOON, async || {
        let text = daemon.readyz_text().await;
        when(text.contains(says), || text.clone())
    })
    .await;
    daemon.says(says).await;
    mend().await;
    let counts = check_ledger(world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (300, 1));
    assert!(daemon.is_running());
    daemon.ready().await;
}

#[tokio::test]
async fn a_read_only_database_is_waited_for() {
    let world = World::builder().limited_role().start().await;
    let name = world.database.name();
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    );
    let mut daemon = world.daemon().await;
    world.database.execute(&format!("alter database {name} set default_transaction_read_only = on")).await;
    world.database.execute(&cut).await;
    waits_and_recovers(&world, &mut daemon, "25006", async || {
        // From another database: a session in this one could not even mend it.
        let mend = format!("alter database {name} reset default_transaction_read_only");
        world.cluster().execute("postgres", &mend).await;
        world.cluster().execute("postgres", &cut).await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_grant_is_waited_for() {
    let world = World::builder().limited_role().start().await;
    let mut daemon = world.daemon().await;
    let role = &world.role;
    world.database.execute(&format!("revoke insert on audit_events from {role}")).await;
    waits_and_recovers(&world, &mut daemon, "42501", async || {
        world.database.execute(&format!("grant insert on audit_events to {role}")).await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_table_is_waited_for() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    world.database.execute("alter table audit_events rename to audit_events_away").await;
    waits_and_recovers(&world, &mut daemon, "42P01", async || {
        world.database.execute("alter table audit_events_away rename to audit_events").await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_custody_table_is_waited_for() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    world.database.execute("alter table ledger.dead_letter rename to dead_letter_away").await;
    waits_and_recovers(&world, &mut daemon, "42P01", async || {
        world.database.execute("alter table ledger.dead_letter_away rename to dead_letter").await;
    })
    .await;
}

#[tokio::test]
async fn a_statement_timeout_is_waited_for() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "1s").start().await;
    let mut daemon = world.daemon().await;
    let slow = "create function public.slow() returns trigger language plpgsql as \
        'begin perform pg_sleep(3); return null; end';
        create trigger slow before insert on audit_events for each statement execute function public.slow()";
    world.database.execute(slow).await;
    waits_and_recovers(&world, &mut daemon, "57014", async || {
        world.database.execute("drop trigger slow on audit_events").await;
    })
    .await;
}

/// Each row alone is quick enough; all of them in one statement are not, today and on every further try.
#[tokio::test]
async fn a_batch_that_is_too_slow_for_one_statement_is_stored_in_parts() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "1s").start().await;
    let slow = "create function public.slow() returns trigger language plpgsql as \
        'begin perform pg_sleep(0.01); return new; end';
        create trigger slow before insert on audit_events for each row execute function public.slow()";
    world.database.execute(slow).await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, (0..300).map(|_| next_event("EXEC").good()).collect()).await;
    let _daemon = world.daemon().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 300);
}

/// As after a restore: the sequence of ids lags behind the table, with a gap in between.
#[tokio::test]
async fn a_sequence_that_lags_behind_its_table_is_no_fault_of_the_records() {
    let world = World::start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(110)).await;
    check_ledger(&world, &published).await;
    world.database.execute("alter table audit_events alter column id restart with 50").await;
    published.publish_all(&world.publisher, good_events(11)).await;
    eventually("the daemon says why it waits", SOON, async || {
        let text = daemon.readyz_text().await;
        when(text.contains("audit_events_pkey"), || text.clone())
    })
    .await;
    world.database.execute("alter table audit_events alter column id restart with 5000").await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (121, 0));
    assert!(daemon.is_running());
}

/// Two hosts in one URL: the first is down.
#[tokio::test]
async fn the_second_host_of_the_url_is_used_when_the_first_is_away() {
    let world = World::builder().postgres_proxy().start().await;
    world.postgres_proxy().cut().await;
    let away = world.environment["LEDGERD__DATABASE__URL"].clone();
    let (here, port) =
        (format!("127.0.0.1:{}", world.cluster().port()), format!("127.0.0.1:{}", world.postgres_proxy().port()));
    let both = away.replace(&port, &format!("{port},{here}"));
    let mut daemon = world.spawn_daemon_with(&[("LEDGERD__DATABASE__URL", &both)]);
    daemon.ready().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(22)).await;
    assert_eq!(check_ledger(&world, &published).await.rows, 22);
}

#[tokio::test]
async fn a_lock_that_another_session_holds_is_waited_for() {
    let world = World::builder().env("LEDGERD__DATABASE__STATEMENT_TIMEOUT", "2s").start().await;
    let mut daemon = world.daemon().await;
    let mut other = world.database.connect().await;
    other.execute(sqlx::raw_sql("begin; lock table audit_events in access exclusive mode")).await.expect("locked");
    waits_and_recovers(&world, &mut daemon, "55P03", async || {
        other.execute(sqlx::raw_sql("rollback")).await.expect("released");
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let Some(world) = World::builder().small_disk(128 * 1024 * 1024).try_start().await else { return };
    let mut daemon = world.daemon().await;
    world.cluster().fill();
    let mut published = Published::default();
    // Enough that the tables must grow.
    let large = || next_event("EXEC").with("details", serde_json::json!({"text": "x".repeat(20_000)})).good();
    published.publish_all(&world.publisher, (0..200).map(|_| large()).collect()).await;
    eventually("the daemon says why it waits", SOON, async || {
        let text = daemon.readyz_text().await;
        when(text.contains("53100"), || text.clone())
    })
    .await;
    world.cluster().free().await;
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (200, 0));
    assert!(daemon.is_running());
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let world = World::start().await;
    let mut published = Published::default();
    let mut rounds = 0;
    // PostgreSQL looks for a deadlock once in a wait, after a second. On a machine that stood still for longer, the
    // circle was closed too late for the daemon to be its victim, and it is drawn again.
    let daemon = loop {
        rounds += 1;
        assert!(rounds <= 10, "the daemon was never the victim");
        let daemon = close_a_circle(&world, &mut published).await;
        if daemon.log_contains("40P01") {
            break daemon;
        }
        check_ledger(&world, &published).await;
    };
    let counts = check_ledger(&world, &published).await;
    assert_eq!((counts.rows, counts.rejects), (2 * rounds, 0));
    drop(daemon);
}

/// Takes the second of two events before a daemon does, and the first after it, so that each waits for the other.
/// Returns when the daemon has said why it gave way, and may go on.
async fn close_a_circle(world: &World, published: &mut Published) -> Daemon {
    let mut other = world.database.connect().await;
    let (first, second) = (next_event("EXEC"), next_event("EXEC"));
    let (low, high) = if first.event_id() < second.event_id() { (&first, &second) } else { (&second, &first) };
    let insert = |id: &str| {
        format!(
            "insert into audit_events (event_id, actor, action, outcome, timestamp, integrity_hash, timestamp_text)
            values ('{id}', 'x', 'x', 'x', now(), 'x', 'x')"
        )
    };
    // The daemon's session finds the deadlock, and so is its victim.
    let begin = format!("begin; set local deadlock_timeout = '1h'; {}", insert(high.event_id()));
    other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(begin))).await.expect("inserted");
    published.publish_all(&world.publisher, vec![low.good(), high.good()]).await;
    let daemon = world.daemon().await;
    eventually("the daemon waits for the other session", SOON, async || {
        let waiting =
            "select count(*) from pg_stat_activity where application_name = 'ledgerd' and wait_event_type = 'Lock'";
        let count = world.database.count(waiting).await;
        when(count > 0, || count.to_string())
    })
    .await;
    other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(insert(low.event_id())))).await.expect("the daemon gave way");
    eventually("the daemon says why it waits", SOON, async || {
        when(daemon.log_contains("40P01") || daemon.log_contains("55P03"), || daemon.log())
    })
    .await;
    other.execute(sqlx::raw_sql("rollback")).await.expect("rolled back");
    daemon
}

/// The pattern at which a commit passes the proxy.
pub(crate) const COMMIT: &[u8] = b"; commit";

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled() {
    let world = World::builder().postgres_proxy().start().await;
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    for round in 0..5 {
        let mut held = world.postgres_proxy().hold_answer_after(COMMIT);
        published.publish_all(&world.publisher, good_events(50)).await;
        published.publish(&world.publisher, next_event("EXEC").with("action", "NO_SUCH").bad("unknown_action")).await;
        held.happened().await;
        world.postgres_proxy().drop_held().await;
        let counts = check_ledger(&world, &published).await;
        assert_eq!((counts.rows, counts.rejects), (50 * (round + 1), round + 1));
    }
    assert!(daemon.is_running());
    assert!(
        daemon.metric("ledgerd_redeliveries_total", "").await >= 1.0,
        "the second look found what the first commit had stored"
    );
}

#[tokio::test]
async fn a_commit_that_never_reached_the_server_is_made_again() {
    let world = World::builder().postgres_proxy().start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let mut held = world.postgres_proxy().hold_when(Direction::ToServer, COMMIT);
    published.publish_all(&world.publisher, good_events(50)).await;
    held.happened().await;
    world.postgres_proxy().drop_held().await;
    assert_eq!(check_ledger(&world, &published).await.rows, 50);
}
