//! A TCP proxy that a test puts between the daemon and a server, to make the network do what networks do: end,
//! refuse, swallow an answer.
//!
//! Faults are named by the bytes at which they strike, so a test can say "the commit was done, and its answer lost".
//! A pattern may come in several reads: the proxy remembers the last bytes of each connection. What stands before
//! the pattern goes on its way, and nothing after: as a message is acted on when it is whole, the one with the pattern is not.

use super::SOON;
use super::port::free_port;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How many bytes of each direction are remembered, and so the longest pattern.
const PATTERN_BYTES_MAX: usize = 256;

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the daemon to the server.
    ToServer,
    /// From the server to the daemon.
    ToClient,
}

/// A listener whose connections lead to a server. Dropping it closes them all.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// A fault that waits for its pattern.
#[derive(Debug)]
pub(crate) struct Hold {
    what: String,
    struck: watch::Receiver<bool>,
}

impl Hold {
    /// Resolves when the proxy holds bytes back because of this.
    ///
    /// # Panics
    /// When that does not happen within [`SOON`].
    pub(crate) async fn happened(&mut self) {
        let struck = timeout(SOON, self.struck.wait_for(|struck| *struck)).await;
        assert!(struck.is_ok_and(|struck| struck.is_ok()), "within {SOON:?} the proxy did not hold {}", self.what);
    }

    /// Whether it has happened already.
    pub(crate) fn has_happened(&self) -> bool {
        *self.struck.borrow()
    }
}

impl TcpProxy {
    /// A proxy on a port of its own, before the server on `target_port` of this machine.
    pub(crate) async fn forward(target_port: u16) -> Self {
        let shared = Arc::new(Shared {
            target: (Ipv4Addr::LOCALHOST, target_port).into(),
            state: Mutex::default(),
            releases: watch::channel(0).0,
        });
        let proxy = Self { port: free_port(), shared, listener: Mutex::new(None) };
        proxy.heal().await;
        proxy
    }

    /// Where the daemon connects to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections lead through it at this moment.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Closes all connections, and refuses new ones as the port of a dead server does.
    pub(crate) async fn cut(&self) {
        let listener = self.listener().take();
        if let Some(listener) = listener {
            end(listener).await;
        }
        self.close(|_| true).await;
    }

    /// Takes connections again.
    pub(crate) async fn heal(&self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.expect("the port is ours");
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                Shared::connect(&shared, client);
            }
        });
        *self.listener() = Some(task);
    }

    /// From now on, bytes of this direction are held back from `pattern` on, on each connection where it comes.
    /// An empty pattern is in any bytes.
    pub(crate) fn hold_when(&self, direction: Direction, pattern: &[u8]) -> Hold {
        self.add_rule(direction, pattern, Effect::HoldThese)
    }

    /// From now on, after `pattern` has gone to the server, nothing that the server says on that connection comes back.
    /// It [happened](Hold::happened) when there is an answer to hold. PostgreSQL speaks when it is asked, so it has then done
    /// what the pattern asked for; nats-server also speaks unasked, so look at the stream as well.
    pub(crate) fn hold_answer_after(&self, pattern: &[u8]) -> Hold {
        self.add_rule(Direction::ToServer, pattern, Effect::HoldAnswer)
    }

    /// Ends all holds: what was held goes on its way, late, also to a server whose client has died in the meantime.
    pub(crate) fn release(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// Ends all holds: what was held is lost, and its connections are closed on both sides.
    pub(crate) async fn drop_held(&self) {
        self.close(|connection| *connection.holding.borrow()).await;
        self.release();
    }

    fn add_rule(&self, direction: Direction, pattern: &[u8], effect: Effect) -> Hold {
        assert!(pattern.len() <= PATTERN_BYTES_MAX, "the proxy remembers {PATTERN_BYTES_MAX} bytes");
        let (sender, struck) = watch::channel(false);
        let what = format!("{effect:?} at {:?} {direction:?}", String::from_utf8_lossy(pattern));
        let rule = Rule { direction, pattern: pattern.to_vec(), effect, struck: sender };
        self.shared.state().rules.push(rule);
        Hold { what, struck }
    }

    async fn close(&self, which: impl Fn(&Connection) -> bool) {
        let closed: Vec<_> = {
            let mut state = self.shared.state();
            let numbers: Vec<u64> = state.connections.iter().filter(|(_, it)| which(it)).map(|(&n, _)| n).collect();
            numbers.iter().filter_map(|number| state.connections.remove(number)).collect()
        };
        for connection in closed {
            end(connection.task).await;
        }
    }

    fn listener(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.listener.lock().expect("no test panics while it holds the listener")
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        if let Some(listener) = self.listener().take() {
            listener.abort();
        }
        for connection in self.shared.state().connections.values() {
            connection.task.abort();
        }
    }
}

/// Ends a task, and waits until it has let go of its sockets.
async fn end(task: JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    HoldThese,
    HoldAnswer,
}

#[derive(Clone, Debug)]
struct Rule {
    direction: Direction,
    pattern: Vec<u8>,
    effect: Effect,
    struck: watch::Sender<bool>,
}

#[derive(Debug)]
struct Connection {
    task: JoinHandle<()>,
    holding: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    connections: HashMap<u64, Connection>,
    next: u64,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    /// Counts the releases. Who holds bytes waits for the next one.
    releases: watch::Sender<u64>,
}

/// What the two directions of a connection tell each other.
#[derive(Debug)]
struct Link {
    holding: watch::Sender<bool>,
    /// The answers are held for this rule, until this release.
    answers_held: Mutex<Option<(Rule, u64)>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    fn connect(shared: &Arc<Self>, client: TcpStream) {
        let mut state = shared.state();
        let number = state.next;
        state.next += 1;
        let (sender, holding) = watch::channel(false);
        let owner = Arc::clone(shared);
        let task = tokio::spawn(async move {
            // A connection that breaks is what proxies are for: there is nobody to tell.
            let _ = owner.carry(client, Link { holding: sender, answers_held: Mutex::new(None) }).await;
            owner.state().connections.remove(&number);
        });
        state.connections.insert(number, Connection { task, holding });
    }

    async fn carry(&self, client: TcpStream, link: Link) -> io::Result<()> {
        let server = TcpStream::connect(self.target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let there = self.pump(Direction::ToServer, from_client, to_server, &link);
        let back = self.pump(Direction::ToClient, from_server, to_client, &link);
        tokio::try_join!(there, back).map(drop)
    }

    async fn pump(
        &self,
        direction: Direction,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        link: &Link,
    ) -> io::Result<()> {
        let mut remembered: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            let chunk = &buffer[..length];
            if direction == Direction::ToClient {
                self.hold_answer(link).await;
            }
            let struck = self.strike(direction, &remembered, chunk);
            let held_from = match &struck {
                None => length,
                Some(Strike { rule, release, at }) => match rule.effect {
                    Effect::HoldThese => *at,
                    // Before the question goes out: no byte of its answer may slip through.
                    Effect::HoldAnswer => {
                        *link.answers_held() = Some((rule.clone(), *release));
                        length
                    }
                },
            };
            to.write_all(&chunk[..held_from]).await?;
            if let Some(Strike { rule, release, .. }) = struck
                && held_from < length
            {
                self.hold(link, &rule, release).await;
                to.write_all(&chunk[held_from..]).await?;
            }
            remembered.extend_from_slice(chunk);
            remembered.drain(..remembered.len().saturating_sub(PATTERN_BYTES_MAX));
        }
    }

    /// The first rule whose pattern ends within `chunk`.
    fn strike(&self, direction: Direction, remembered: &[u8], chunk: &[u8]) -> Option<Strike> {
        let state = self.state();
        let strikes = state.rules.iter().filter(|rule| rule.direction == direction).filter_map(|rule| {
            // As much of the past as could hold a beginning, so that a match always ends in the chunk.
            let past = &remembered[remembered.len() - remembered.len().min(rule.pattern.len().saturating_sub(1))..];
            let window = [past, chunk].concat();
            let at = if rule.pattern.is_empty() {
                Some(0)
            } else {
                window.windows(rule.pattern.len()).position(|bytes| bytes == rule.pattern)
            };
            Some(Strike { at: at?.saturating_sub(past.len()), rule: rule.clone(), release: *self.releases.borrow() })
        });
        strikes.min_by_key(|strike| strike.at)
    }

    /// Waits where the answers of this connection are held.
    async fn hold_answer(&self, link: &Link) {
        let held = link.answers_held().clone();
        if let Some((rule, release)) = held {
            self.hold(link, &rule, release).await;
            link.answers_held().take();
        }
    }

    /// Waits until the release after `release`.
    async fn hold(&self, link: &Link, rule: &Rule, release: u64) {
        let mut releases = self.releases.subscribe();
        if *releases.borrow() == release {
            link.holding.send_replace(true);
            rule.struck.send_replace(true);
        }
        let _ = releases.wait_for(|now| *now > release).await;
        link.holding.send_replace(false);
    }
}

struct Strike {
    rule: Rule,
    release: u64,
    /// Where in the chunk the pattern begins; 0 when it began earlier.
    at: usize,
}

impl Link {
    fn answers_held(&self) -> MutexGuard<'_, Option<(Rule, u64)>> {
        self.answers_held.lock().expect("no test panics while it holds the link")
    }
}
