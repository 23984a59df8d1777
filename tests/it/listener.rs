//! Strangers that hold connections open delay nobody: neither probes, nor callers with a token.

use crate::support::daemon::Daemon;
use crate::support::events::event;
use crate::support::http::{ask, ask_from};
use crate::support::port::free_port;
use crate::support::world::{Builder, World};
use crate::support::{SOON, eventually, when};
use sha2::{Digest as _, Sha256};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

const AUDIT: &str = "/webhook/hegemon-audit-log";
const TOKEN: &str = "a-secret-of-the-engine";
/// What anybody may have to wait.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// Strangers that delay anybody delay every request; a machine that is busy with other tests delays a few of the 70.
const LATE_MAX: usize = 3;

fn builder() -> Builder {
    let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
    World::builder().env("LEDGERD__WEBHOOKS__TOKENS", &format!("{hash} BRM-CTO"))
}

/// Asks as a probe, as Prometheus and as a caller with a token do, at the addresses of both listeners. Tells which answers came late.
async fn ask_all(probes: u16, webhooks: u16, round: u64) -> Vec<String> {
    let mut late = Vec::new();
    let mut note = |what: String, waited: Duration| {
        if waited > DELAY_MAX {
            late.push(format!("{what} took {waited:?}"));
        }
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9)] {
            let asked = Instant::now();
            let answer = ask_from(from, probes, "GET", path, &[], b"").await;
            assert_eq!(answer.map(|answer| answer.status), Ok(200), "{path} for {from}");
            note(format!("{path} for {from}"), asked.elapsed());
        }
    }
    let body = event("EXEC", "BRM-CTO", round).payload();
    let asked = Instant::now();
    let answer = ask(webhooks, "POST", AUDIT, &[("X-Hegemon-Token", TOKEN)], &body).await;
    assert_eq!(answer.map(|answer| answer.status), Ok(200));
    note("a record".to_owned(), asked.elapsed());
    late
}

async fn is_connected(daemon: &Daemon, webhooks: u16) {
    let body = event("EXEC", "BRM-CTO", 1_000).payload();
    eventually("the webhooks are connected", SOON, async || {
        let answer = ask(webhooks, "POST", AUDIT, &[("X-Hegemon-Token", TOKEN)], &body).await?;
        when(answer.status == 200, || format!("{}\n{}", answer.text(), daemon.log()))
    })
    .await;
}

/// Polls `/livez` over one connection until that is taken away, and then over the next.
async fn poll(port: u16) {
    loop {
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            let mut answer = [0; 1024];
            while stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok()
                && stream.read(&mut answer).await.is_ok_and(|count| count > 0)
            {
                sleep(Duration::from_millis(500)).await;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Slow {
    /// Its headers never end.
    Headers,
    /// Its body never ends.
    Body,
}

/// Sends a byte now and then, without a token, until the connection is taken away, and then over the next.
async fn dawdle(port: u16, slow: Slow) {
    let head = match slow {
        Slow::Headers => format!("POST {AUDIT} HTTP/1.1\r\nHost: x\r\nX-Slow: "),
        Slow::Body => format!("POST {AUDIT} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"),
    };
    loop {
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(200)).await;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn nobody_waits(probes: u16, webhooks: u16) {
    let mut late = Vec::new();
    for round in 0..10 {
        late.extend(ask_all(probes, webhooks, round).await);
        sleep(Duration::from_millis(300)).await;
    }
    assert!(late.len() <= LATE_MAX, "{late:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_and_sixty_pollers_delay_nobody() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    let port = daemon.http_port();
    is_connected(&daemon, port).await;
    let mut pollers = JoinSet::new();
    for _ in 0..260 {
        pollers.spawn(poll(port));
    }
    nobody_waits(port, port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_slow_senders_without_a_token_delay_nobody() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    let port = daemon.http_port();
    is_connected(&daemon, port).await;
    let mut senders = JoinSet::new();
    for number in 0..300 {
        senders.spawn(dawdle(port, if number % 2 == 0 { Slow::Headers } else { Slow::Body }));
    }
    nobody_waits(port, port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_both_listeners_delay_nobody() {
    let port = free_port();
    let world = builder().env("LEDGERD__WEBHOOKS__LISTEN", &format!("127.0.0.1:{port}")).start().await;
    let daemon = world.daemon().await;
    is_connected(&daemon, port).await;
    let mut strangers = JoinSet::new();
    for number in 0..300 {
        strangers.spawn(dawdle(port, if number % 2 == 0 { Slow::Headers } else { Slow::Body }));
        strangers.spawn(poll(daemon.http_port()));
    }
    nobody_waits(daemon.http_port(), port).await;
}

#[tokio::test]
async fn headers_that_do_not_end_are_waited_for_so_long_and_no_longer() {
    let world = builder().env("LEDGERD__HTTP__HEADERS_TIMEOUT", "1s").start().await;
    let daemon = world.daemon().await;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.http_port())).await.expect("it listens");
    let began = Instant::now();
    stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").await.expect("it reads");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it ends");
    assert!(answer.is_empty(), "{ended:?} {answer:?}");
    assert!(
        began.elapsed() > Duration::from_millis(900) && began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}
