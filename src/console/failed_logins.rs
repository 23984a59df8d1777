//! Failed attempts to be let in: counted by address, bounded, and logged at a bounded rate.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::time::Instant;

/// Attempts of one address within a [`WINDOW`]; then even the right token is refused, so that guessing is slow.
pub(crate) const FAILURES_MAX: u32 = 100;
pub(crate) const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are told apart within a window. Further ones are counted as one.
const ADDRESSES_MAX: usize = 1024;

/// The failures of this window.
#[derive(Debug)]
pub(crate) struct FailedLogins(Mutex<Failures>);

#[derive(Debug)]
struct Failures {
    since: Instant,
    /// `None` stands for every address beyond `ADDRESSES_MAX`.
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Default for FailedLogins {
    fn default() -> Self {
        Self(Mutex::new(Failures { since: Instant::now(), by_address: HashMap::new() }))
    }
}

impl FailedLogins {
    /// Whether the address has failed too often to be heard.
    pub(crate) fn are_too_many(&self, address: IpAddr) -> bool {
        let failures = self.0.lock();
        let of_address = failures.by_address.get(&failures.key(address)).copied().unwrap_or_default();
        of_address >= FAILURES_MAX && failures.since.elapsed() < WINDOW
    }

    /// Counts a failure. The first of an address in a window is logged, and the one that makes them too many.
    pub(crate) fn note(&self, address: IpAddr) {
        let count = self.0.lock().add(address);
        if count == 1 {
            tracing::warn!(caller = %address, "a token was refused that {address} sent: console.tokens does not list it");
        } else if count == FAILURES_MAX {
            tracing::warn!(
                caller = %address,
                "{address} has sent {count} tokens that console.tokens does not list, and is refused for up to {} s",
                WINDOW.as_secs()
            );
        }
    }
}

impl Failures {
    fn add(&mut self, address: IpAddr) -> u32 {
        if self.since.elapsed() >= WINDOW {
            self.since = Instant::now();
            self.by_address.clear();
        }
        let count = self.by_address.entry(self.key(address)).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn key(&self, address: IpAddr) -> Option<IpAddr> {
        let network = Some(network(address));
        if self.by_address.len() < ADDRESSES_MAX || self.by_address.contains_key(&network) { network } else { None }
    }
}

/// An IPv6 /64 is one: whoever has it has all of its addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test(start_paused = true)]
    async fn whoever_fails_too_often_waits_for_the_next_window() {
        let failed = FailedLogins::default();
        let (guesser, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..FAILURES_MAX {
            assert!(!failed.are_too_many(guesser));
            failed.note(guesser);
        }
        assert!(failed.are_too_many(guesser) && !failed.are_too_many(other));
        tokio::time::advance(WINDOW).await;
        assert!(!failed.are_too_many(guesser));
        failed.note(guesser);
        assert!(!failed.are_too_many(guesser));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_take_a_bounded_amount_of_memory() {
        let failed = FailedLogins::default();
        for address in 0..100_000 {
            failed.note(IpAddr::V4(Ipv4Addr::from_bits(address)));
        }
        assert_eq!(failed.0.lock().by_address.len(), ADDRESSES_MAX + 1);
        let network: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2:3"].map(|text| text.parse().expect("an address"));
        assert_eq!(super::network(network[0]), super::network(network[1]));
    }
}
