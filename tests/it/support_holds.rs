//! The support keeps its word: servers that stop, die and come back; faults that strike where they should; nothing that
//! outlives the tests.

use crate::support::events::{bad_events, next_event, spec_hash};
use crate::support::nats::{Login, NatsServer, NatsSettings};
use crate::support::nats_cluster::NatsCluster;
use crate::support::port::free_port;
use crate::support::postgres::{Cluster, Database, PASSWORD, SUPERUSER, postgres_url};
use crate::support::process::is_alive;
use crate::support::proxy::{Direction, TcpProxy};
use crate::support::publisher::Publisher;
use crate::support::{SOON, eventually, when};
use async_nats::jetstream;
use sqlx::Connection;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnection;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const COUNT_ROWS: &str = "select count(*) from t";

#[tokio::test]
async fn a_cluster_comes_back_on_its_port_with_what_was_committed() {
    let cluster = Cluster::start().await;
    let database = Database::on(cluster.clone()).await;
    database.execute("create table t (x bigint); insert into t values (1)").await;
    cluster.stop_fast().await;
    assert!(PgConnection::connect(&database.url()).await.is_err(), "it was stopped");
    cluster.restart().await;
    database.execute("insert into t values (2)").await;
    cluster.kill().await;
    assert!(PgConnection::connect(&database.url()).await.is_err(), "it was killed");
    cluster.restart().await;
    assert_eq!(database.count(COUNT_ROWS).await, 2);
}

#[tokio::test]
async fn databases_are_apart_and_go_when_they_are_dropped() {
    let (one, other) = (Database::fresh().await, Database::fresh().await);
    let role = one.create_role("daemon").await;
    one.execute("create table t (x bigint)").await;
    other.execute("create table t (x bigint); insert into t values (1)").await;
    assert_eq!(one.count(COUNT_ROWS).await, 0);
    let as_role = one.cluster().url_as(one.name(), &role);
    PgConnection::connect(&as_role).await.expect("the role may log in");
    let wrong = postgres_url(SUPERUSER, "wrong", one.cluster().port(), one.name());
    let refused = PgConnection::connect(&wrong).await.expect_err("the password is wrong");
    assert_eq!(refused.as_database_error().and_then(DatabaseError::code).as_deref(), Some("28P01"));
    let left = format!(
        "select (select count(*) from pg_database where datname = '{}') + (select count(*) from pg_roles where rolname = '{role}')",
        one.name()
    );
    drop(one);
    eventually("the database and its role are gone", SOON, async || {
        let left = other.count(&left).await;
        when(left == 0, || format!("{left} of the two are left"))
    })
    .await;
}

#[tokio::test]
async fn a_small_disk_is_full_and_then_it_is_not() {
    let Some(cluster) = Cluster::on_small_disk(96 << 20).await else { return };
    let database = Database::on(cluster.clone()).await;
    database.execute("create table t (x text)").await;
    let insert = "insert into t select repeat('x', 1000) from generate_series(1, 5000)";
    cluster.fill();
    let refused = cluster.try_execute(database.name(), insert).await.expect_err("the disk is full");
    assert_eq!(refused.as_database_error().and_then(DatabaseError::code).as_deref(), Some("53100"), "{refused}");
    assert_eq!(database.count(COUNT_ROWS).await, 0, "it can be read all the same");
    cluster.free().await;
    database.execute(insert).await;
    cluster.restart().await;
    assert_eq!(database.count(COUNT_ROWS).await, 5000, "what is stored is there after a restart");
}

async fn make_stream(jetstream: &jetstream::Context, num_replicas: usize) {
    let config = jetstream::stream::Config {
        name: "LEDGER".to_owned(),
        subjects: vec!["ledger.*.*".to_owned()],
        num_replicas,
        ..Default::default()
    };
    jetstream.create_stream(config).await.expect("JetStream is ready");
}

#[tokio::test]
async fn a_nats_server_comes_back_on_its_port_with_its_stream() {
    let nats = NatsServer::start().await;
    let publisher = Publisher::connect(&nats).await;
    make_stream(publisher.jetstream(), 1).await;
    let event = next_event("EXEC");
    assert_eq!(publisher.publish(&event.subject(), event.payload()).await, 1);
    nats.kill();
    assert!(async_nats::connect(nats.url()).await.is_err(), "it was killed");
    let subject = event.subject();
    let (second, ()) = tokio::join!(publisher.publish_through_outages(&subject, "one", "second"), nats.restart());
    assert_eq!(second, 2, "it was published while the server was away");
    assert_eq!(publisher.publish_through_outages(&subject, "one", "second").await, 2, "and it is there once");
    nats.stop().await;
    nats.restart().await;
    let stream = nats.jetstream().await.get_stream("LEDGER").await.expect("the store is the same");
    assert_eq!(stream.get_raw_message(1).await.expect("it was acknowledged").payload, event.payload());
}

#[tokio::test]
async fn a_raw_publisher_can_send_headers_that_no_library_would() {
    let login = Login { user: "somebody".to_owned(), password: "s3cret".to_owned() };
    let nats = NatsServer::start_with(NatsSettings { login: Some(login), ..NatsSettings::default() }).await;
    assert!(async_nats::connect(nats.url()).await.is_err(), "it asks for a password");
    let publisher = Publisher::connect(&nats).await;
    make_stream(publisher.jetstream(), 1).await;
    let blocks: [&[u8]; 3] =
        [b"NATS/1.0\r\nA: \xff\r\n\r\n", b"NATS/1.0 404\r\n\r\n", b"NATS/1.0\r\nGood: one\r\n\r\n"];
    for (block, sequence) in blocks.into_iter().zip(1..) {
        assert_eq!(publisher.publish_raw("ledger.EXEC.X", block, b"payload").await, sequence);
    }
    let stream = publisher.jetstream().get_stream("LEDGER").await.expect("it was made");
    assert_eq!(stream.get_raw_message(3).await.expect("it was acknowledged").payload, "payload");
}

#[tokio::test]
async fn a_cluster_of_three_moves_and_loses_its_leaders() {
    let cluster = NatsCluster::start().await;
    let jetstream = cluster.jetstream().await;
    make_stream(&jetstream, 3).await;
    let publisher = Publisher::over(jetstream.clone(), cluster.servers()[0].port());
    publisher.publish_through_outages("ledger.EXEC.X", "one", "one").await;
    let consumer = jetstream::consumer::pull::Config { durable_name: Some("reader".to_owned()), ..Default::default() };
    jetstream.create_consumer_on_stream(consumer, "LEDGER").await.expect("the cluster is ready");
    cluster.step_down_stream_leader("LEDGER").await;
    cluster.step_down_consumer_leader("LEDGER", "reader").await;
    let killed = cluster.kill_leader("LEDGER").await;
    assert!(!killed.is_running(), "it was killed");
    assert_ne!(cluster.stream_leader("LEDGER").await.name(), killed.name());
    publisher.publish_through_outages("ledger.EXEC.X", "two", "two").await;
    cluster.restart(killed).await;
    let stream = cluster.jetstream().await.get_stream("LEDGER").await.expect("two of three are enough");
    assert_eq!(stream.cached_info().state.messages, 2);
}

/// A database with a table, a proxy before it, and a connection through the proxy.
async fn database_behind_proxy() -> (Database, TcpProxy, PgConnection) {
    let database = Database::fresh().await;
    database.execute("create table t (x bigint)").await;
    let proxy = TcpProxy::forward(database.cluster().port()).await;
    let url = postgres_url(SUPERUSER, PASSWORD, proxy.port(), database.name());
    let connection = PgConnection::connect(&url).await.expect("the proxy leads there");
    (database, proxy, connection)
}

async fn insert_and_commit(mut connection: PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("insert into t values (1)").execute(&mut *transaction).await?;
    transaction.commit().await
}

#[tokio::test]
async fn a_held_commit_is_not_done_until_it_is_released() {
    let (database, proxy, connection) = database_behind_proxy().await;
    let mut hold = proxy.hold_when(Direction::ToServer, b"COMMIT");
    let commit = tokio::spawn(insert_and_commit(connection));
    hold.happened().await;
    assert_eq!(database.count(COUNT_ROWS).await, 0, "the server has not seen the commit");
    assert!(!commit.is_finished(), "the client waits");
    proxy.release();
    commit.await.expect("no panic").expect("the commit is answered");
    assert_eq!(database.count(COUNT_ROWS).await, 1);
}

#[tokio::test]
async fn a_dropped_commit_is_never_done() {
    let (database, proxy, connection) = database_behind_proxy().await;
    let mut hold = proxy.hold_when(Direction::ToServer, b"COMMIT");
    let commit = tokio::spawn(insert_and_commit(connection));
    hold.happened().await;
    proxy.drop_held().await;
    commit.await.expect("no panic").expect_err("the connection has ended");
    assert_eq!(
        database
            .count("select count(*) from pg_stat_activity where state like 'idle in%' and datname = current_database()")
            .await,
        0
    );
    assert_eq!(database.count(COUNT_ROWS).await, 0);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_done() {
    let (database, proxy, connection) = database_behind_proxy().await;
    let mut hold = proxy.hold_answer_after(b"COMMIT");
    let commit = tokio::spawn(insert_and_commit(connection));
    hold.happened().await;
    assert_eq!(database.count(COUNT_ROWS).await, 1, "the server has committed");
    assert!(!commit.is_finished(), "the client waits");
    proxy.drop_held().await;
    commit.await.expect("no panic").expect_err("the connection has ended");
    let url = postgres_url(SUPERUSER, PASSWORD, proxy.port(), database.name());
    insert_and_commit(PgConnection::connect(&url).await.expect("only the held connection was cut"))
        .await
        .expect("the next commit is not held");
    assert_eq!(database.count(COUNT_ROWS).await, 2);
}

#[tokio::test]
async fn a_cut_proxy_refuses_and_a_healed_one_connects() {
    let (database, proxy, mut connection) = database_behind_proxy().await;
    assert_eq!(proxy.connections(), 1);
    proxy.cut().await;
    assert!(connection.ping().await.is_err(), "the connection was cut");
    let url = postgres_url(SUPERUSER, PASSWORD, proxy.port(), database.name());
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.heal().await;
    PgConnection::connect(&url).await.expect("it leads there again");
}

#[tokio::test]
async fn a_pattern_that_comes_in_pieces_is_found() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await.expect("the port is ours");
    let proxy = TcpProxy::forward(server.local_addr().expect("it is bound").port()).await;
    let mut hold = proxy.hold_when(Direction::ToServer, b"pattern");
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.expect("it listens");
    let (mut accepted, _) = server.accept().await.expect("the proxy connects");
    client.write_all(b"before pat").await.expect("the connection holds");
    let mut seen = [0; 10];
    accepted.read_exact(&mut seen).await.expect("what may begin the pattern is not delayed");
    assert_eq!(&seen, b"before pat");
    assert!(!hold.has_happened());
    client.write_all(b"tern after").await.expect("the connection holds");
    hold.happened().await;
    proxy.release();
    accepted.read_exact(&mut seen).await.expect("what was held arrives");
    assert_eq!(&seen, b"tern after");
    client.write_all(b"pattern").await.expect("the connection holds");
    accepted.read_exact(&mut seen[..7]).await.expect("a released fault does not strike again");
}

/// Where the process that is killed below says which processes and which folder are its own.
const REPORT: &str = "LEDGERD_TEST_REPORT";

#[tokio::test]
#[ignore = "the test below runs it in a process of its own, and kills that"]
async fn servers_that_nobody_stops() {
    let report = std::env::var(REPORT).expect("the test below sets it");
    let (cluster, _nats) = (Cluster::shared().await, NatsServer::start().await);
    let disk = Cluster::on_small_disk(96 << 20).await;
    let scratch = crate::support::process::scratch();
    let pids = std::fs::read_dir(scratch.join("pids")).expect("scratch is ours");
    let pids: Vec<String> = pids.map(|entry| entry.expect("a file").file_name().display().to_string()).collect();
    let half_written = format!("{report}.new");
    std::fs::write(&half_written, format!("{}\n{}\n", scratch.display(), pids.join("\n"))).expect("a folder of ours");
    std::fs::rename(half_written, report).expect("a folder of ours");
    std::future::pending::<()>().await;
    drop((cluster, disk));
}

#[tokio::test]
async fn no_server_outlives_a_test_process_that_is_killed() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let report = folder.path().join("report");
    let mut child = Command::new(std::env::current_exe().expect("Linux"))
        .args(["--ignored", "--exact", "support_holds::servers_that_nobody_stops"])
        .env(REPORT, &report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is this very program");
    let written = eventually("the servers run", Duration::from_mins(1), || {
        let ended = child.try_wait().expect("it is ours");
        assert!(ended.is_none(), "the process has failed by itself: {ended:?}");
        std::future::ready(std::fs::read_to_string(&report).map_err(|error| error.to_string()))
    })
    .await;
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    let (scratch, pids) = written.split_once('\n').expect("the folder and the processes");
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().expect("a number")).collect();
    assert!(pids.len() >= 2, "PostgreSQL and nats-server: {pids:?}");
    eventually("all that it started is gone", SOON, async || {
        let alive: Vec<_> = pids.iter().filter(|&&pid| is_alive(pid)).collect();
        let folder_is_there = std::path::Path::new(scratch).exists();
        when(alive.is_empty() && !folder_is_there, || format!("{alive:?} run; {scratch} is there: {folder_is_there}"))
    })
    .await;
}

#[tokio::test]
async fn eventually_has_a_bound_and_says_what_it_saw() {
    let waiting =
        tokio::spawn(eventually("the sun rises", Duration::from_millis(50), async || Err::<(), _>("night".to_owned())));
    let panic = timeout(SOON, waiting).await.expect("it has a bound").expect_err("it panics").into_panic();
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("support_holds.rs") && message.ends_with("last seen: night"), "{message}");
}

/// The expected value is Python's: the function of LDG-002 with these five texts.
#[test]
fn the_hash_is_the_specifications() {
    assert_eq!(
        spec_hash("EXEC-BRM-CTO-1708451234568", "BRM-CTO", "EXECUTION_STARTED", "SUCCESS", "2026-02-20T17:47:14.568Z"),
        "079901ab853b71891ddbbccde4d0a684eaf6642f4ae9df788eac0937974746af"
    );
}

#[test]
fn the_bad_events_are_of_every_kind_that_one_message_can_be() {
    let kinds: std::collections::BTreeSet<_> = bad_events().into_iter().map(|event| event.expectation).collect();
    // Of the 24 reasons, `conflict` and `database_rejected` take more than a message, and `inactive_actor` an agent that none is.
    assert_eq!(kinds.len(), 21);
}
