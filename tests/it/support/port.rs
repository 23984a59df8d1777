//! Ports for servers: one that nobody else takes, also while that server is down.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;

/// Below the range from which the kernel takes the local ports of outgoing connections: one of those could sit on the
/// port of a server that a test has stopped and wants back.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

struct Taken {
    next: u16,
    /// A UDP socket on the same number keeps other test processes away, and leaves the TCP port free for the server
    /// to come and go. The kernel gives it back when this process ends, however it ends.
    claims: Vec<UdpSocket>,
}

static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

/// A port on 127.0.0.1 that stays this process's own until it ends.
pub(crate) fn free_port() -> u16 {
    let mut guard = TAKEN.lock().expect("no test panics while it takes a port");
    let taken = guard.get_or_insert_with(|| Taken {
        // Processes begin at different places, so that they seldom meet.
        next: u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).expect("less than COUNT"),
        claims: Vec::new(),
    });
    for _ in 0..COUNT {
        let port = FIRST + taken.next;
        taken.next = (taken.next + 1) % COUNT;
        let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.claims.push(claim);
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free on 127.0.0.1", FIRST + COUNT);
}
