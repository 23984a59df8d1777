//! The connection slots of a listener: selects the connection to close for a new one, and closes those that take too
//! long.
//!
//! A new connection always gets a slot at once. If none is free, another connection is closed, one of the address that
//! holds most. An answered, idle one is chosen first, then the one whose request has taken longest, or whose stream of
//! events has lasted longest. A request with a known token is never interrupted: it is counted by `webhooks.requests_max`
//! instead.

use parking_lot::{Mutex, MutexGuard};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections, those left out whose token is known and whose request is being answered.
    pub connections_max: usize,
    /// The same for one address.
    pub connections_per_address_max: usize,
    /// From the connection, or the first byte of a further request, to the end of the headers.
    pub headers_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 384, connections_per_address_max: 256, headers_timeout: Duration::from_secs(10) }
    }
}

/// Headers of a request; an honest one has a few hundred bytes.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Prometheus and probes come every few seconds; a connection on which nothing moves for longer is closed.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// From the end of the headers to the answer; no answer takes as long.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(1);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request has begun, or is expected on a new connection.
    Asking,
    /// Everything was answered, and the answer is gone.
    Idle,
    /// A request is being answered.
    Answering,
    /// The same, and its token is known.
    Admitted,
    /// The answer is being written.
    Answered,
    /// The answer has no end of its own: a stream of events. It may last, but it must not fall silent.
    Streaming,
}

#[derive(Debug)]
struct HeldConnection {
    network: IpAddr,
    phase: Phase,
    since: Instant,
    /// When a byte was last read or written.
    moved: Instant,
    /// What was read of the request that has begun.
    asked_bytes: usize,
    /// Whether a known token came over it.
    is_known: bool,
    /// Dropped to end the connection.
    _end: oneshot::Sender<()>,
}

impl HeldConnection {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
        self.asked_bytes = 0;
    }

    /// Whether its request is complete and its token known.
    fn is_admitted(&self) -> bool {
        self.phase == Phase::Admitted
    }

    fn takes_too_long(&self, limits: &Limits) -> bool {
        let phase_max = match self.phase {
            Phase::Idle | Phase::Streaming => None,
            Phase::Asking => Some(limits.headers_timeout),
            Phase::Answering | Phase::Admitted | Phase::Answered => Some(ANSWER_TIME_MAX),
        };
        self.moved.elapsed() >= SILENCE_MAX || phase_max.is_some_and(|max| self.since.elapsed() >= max)
    }
}

/// All connections of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    connections: Mutex<HeldConnections>,
}

#[derive(Debug, Default)]
struct HeldConnections {
    by_id: HashMap<u64, HeldConnection>,
    next_id: u64,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, connections: Mutex::default() })
    }

    /// Gives a place to a new connection, which must end when the receiver says so.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> (Place, oneshot::Receiver<()>) {
        let (end, ended) = oneshot::channel();
        let mut connections = self.lock();
        let id = connections.next_id;
        connections.next_id += 1;
        let (network, now) = (network_of(address), Instant::now());
        let connection = HeldConnection {
            network,
            phase: Phase::Asking,
            since: now,
            moved: now,
            asked_bytes: 0,
            is_known: false,
            _end: end,
        };
        connections.by_id.insert(id, connection);
        connections.make_room(&self.limits, id);
        drop(connections);
        (Place { id, address: address.to_canonical(), places: self.clone() }, ended)
    }

    /// Ends whatever has taken too long.
    pub(crate) fn end_the_slow(&self) {
        self.lock().by_id.retain(|_, connection| !connection.takes_too_long(&self.limits));
    }

    fn lock(&self) -> MutexGuard<'_, HeldConnections> {
        self.connections.lock()
    }
}

impl HeldConnections {
    /// Ends connections until the limits hold again; never the newcomer.
    fn make_room(&mut self, limits: &Limits, newcomer: u64) {
        while self.by_id.len() > limits.connections_max.min(limits.connections_per_address_max) {
            let mut of_network: HashMap<IpAddr, usize> = HashMap::new();
            for connection in self.by_id.values().filter(|connection| !connection.is_admitted()) {
                *of_network.entry(connection.network).or_default() += 1;
            }
            let is_full = of_network.values().sum::<usize>() > limits.connections_max;
            let is_too_many = |network: &IpAddr| of_network[network] > limits.connections_per_address_max;
            let leaver = self
                .by_id
                .iter()
                .filter(|(id, it)| **id != newcomer && !it.is_admitted() && (is_full || is_too_many(&it.network)))
                .min_by_key(|(_, it)| {
                    (it.is_known, Reverse(of_network[&it.network]), it.phase != Phase::Idle, it.since)
                })
                .map(|(id, _)| *id);
            let Some(leaver) = leaver else { return };
            self.by_id.remove(&leaver);
        }
    }
}

/// The place of one connection. Dropped with it.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    address: IpAddr,
    places: Arc<Places>,
}

impl Place {
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Bytes have come. `Err` where they are too many to be headers.
    pub(crate) fn has_read(&self, bytes: usize) -> io::Result<()> {
        let mut is_too_much = false;
        self.update(|connection| {
            connection.moved = Instant::now();
            if connection.phase == Phase::Idle {
                connection.enter(Phase::Asking);
            }
            connection.asked_bytes += bytes;
            is_too_much = connection.phase == Phase::Asking && connection.asked_bytes > HEADERS_BYTES_MAX;
        });
        if is_too_much { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }

    pub(crate) fn has_written(&self) {
        self.update(|connection| connection.moved = Instant::now());
    }

    pub(crate) fn is_answering(&self) {
        self.update(|connection| connection.enter(Phase::Answering));
    }

    pub(crate) fn is_admitted(&self) {
        self.update(|connection| {
            connection.is_known = true;
            connection.enter(Phase::Admitted);
        });
    }

    /// The answer is ready. The connection is one of many again, and so one of them may have to leave.
    pub(crate) fn has_answered(&self) {
        self.update(|connection| connection.enter(Phase::Answered));
        self.places.lock().make_room(&self.places.limits, self.id);
    }

    /// The same for an answer that goes on until one side ends it.
    pub(crate) fn is_streaming(&self) {
        self.update(|connection| connection.enter(Phase::Streaming));
        self.places.lock().make_room(&self.places.limits, self.id);
    }

    /// Nothing is left to be written.
    pub(crate) fn has_flushed(&self) {
        self.update(|connection| {
            if connection.phase == Phase::Answered {
                connection.enter(Phase::Idle);
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut HeldConnection)) {
        if let Some(connection) = self.places.lock().by_id.get_mut(&self.id) {
            change(connection);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().by_id.remove(&self.id);
    }
}

/// What counts as one address: an IPv6 user has at least a /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
