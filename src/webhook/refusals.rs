//! Refused webhook calls: counted by caller, logged at a bounded rate, and kept until they are written to the database.
//!
//! Anybody can cause refusals, so `CALLERS_MAX` bounds memory and log lines, whatever arrives.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Codes and callers that are told apart within [`WINDOW`]. Further callers share one line for each code and webhook.
const CALLERS_MAX: usize = 64;

/// Each refusal of a caller is logged once within this time, and then the number of the others.
pub const WINDOW: Duration = Duration::from_mins(1);

/// The statuses that refuse a caller, as opposed to a record.
pub const STATUSES: [u16; 4] = [401, 403, 413, 429];

/// What was refused, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefusedCall {
    /// One of [`STATUSES`].
    pub status: u16,
    pub webhook: &'static str,
    /// The caller's address. `None` stands for every caller beyond `CALLERS_MAX`.
    pub address: Option<IpAddr>,
}

/// How often one refusal happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalCount {
    pub calls: u64,
    pub first: Instant,
    pub last: Instant,
}

/// The refusals that are still to be logged or written down.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// What was logged in this window, and how often it came again since.
    logged: HashMap<RefusedCall, u64>,
    unwritten: HashMap<RefusedCall, RefusalCount>,
}

impl Refusals {
    /// Notes a refusal, and logs it if it is the first of its caller in this window. `why` is a sentence without a secret.
    pub fn note(&self, refusal: RefusedCall, why: &str) {
        let is_first = {
            let mut kept = self.0.lock();
            let now = Instant::now();
            add(&mut kept.unwritten, refusal, RefusalCount { calls: 1, first: now, last: now });
            kept.log(refusal)
        };
        if let Some(RefusedCall { status, webhook, address }) = is_first {
            let caller = Address(address);
            tracing::warn!(status, webhook, %caller, "a call of the webhook {webhook} by {caller} was refused: {status}, {why}");
        }
    }

    /// Ends the window: logs how often each refusal came again.
    pub fn end_window(&self) {
        let repeated = self.0.lock().end_window();
        for (RefusedCall { status, webhook, address }, more) in repeated {
            let caller = Address(address);
            tracing::warn!(
                status, webhook, %caller, more,
                "calls of the webhook {webhook} by {caller} were refused {more} more times within a minute: {status}"
            );
        }
    }

    /// Takes what is to be written down.
    pub fn take(&self) -> Vec<(RefusedCall, RefusalCount)> {
        std::mem::take(&mut self.0.lock().unwritten).into_iter().collect()
    }

    /// Gives back what could not be written down.
    pub fn give_back(&self, refusals: Vec<(RefusedCall, RefusalCount)>) {
        let mut kept = self.0.lock();
        for (refusal, tally) in refusals {
            add(&mut kept.unwritten, refusal, tally);
        }
    }
}

impl Kept {
    /// What to log, unless it is only to be counted.
    fn log(&mut self, refusal: RefusedCall) -> Option<RefusedCall> {
        let refusal = bounded(&self.logged, refusal);
        match self.logged.entry(refusal) {
            Entry::Occupied(mut more) => {
                *more.get_mut() += 1;
                None
            }
            Entry::Vacant(place) => {
                place.insert(0);
                Some(refusal)
            }
        }
    }

    /// What came again since it was logged, and how often. The next of each is logged anew.
    fn end_window(&mut self) -> Vec<(RefusedCall, u64)> {
        std::mem::take(&mut self.logged).into_iter().filter(|(_, more)| *more > 0).collect()
    }
}

fn add(tallies: &mut HashMap<RefusedCall, RefusalCount>, refusal: RefusedCall, added: RefusalCount) {
    let refusal = bounded(tallies, refusal);
    tallies
        .entry(refusal)
        .and_modify(|tally| {
            tally.calls += added.calls;
            tally.first = tally.first.min(added.first);
            tally.last = tally.last.max(added.last);
        })
        .or_insert(added);
}

/// The refusal itself while there is room for its caller, and the one of all further callers then.
fn bounded<T>(known: &HashMap<RefusedCall, T>, refusal: RefusedCall) -> RefusedCall {
    if known.len() < CALLERS_MAX || known.contains_key(&refusal) {
        return refusal;
    }
    RefusedCall { address: None, ..refusal }
}

#[derive(Clone, Copy, Debug)]
pub struct Address(pub Option<IpAddr>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn of(address: u32) -> RefusedCall {
        RefusedCall { status: 401, webhook: "audit", address: Some(IpAddr::V4(Ipv4Addr::from(address))) }
    }

    #[test]
    fn each_caller_is_logged_once_in_a_window() {
        let mut kept = Kept::default();
        assert_eq!(kept.log(of(1)), Some(of(1)));
        assert_eq!(kept.log(of(1)), None);
        assert_eq!(kept.log(of(2)), Some(of(2)));
        let other_status = RefusedCall { status: 403, ..of(1) };
        assert_eq!(kept.log(other_status), Some(other_status));
        assert_eq!(kept.end_window(), [(of(1), 1)]);
        assert_eq!(kept.end_window(), []);
        assert_eq!(kept.log(of(1)), Some(of(1)), "a line of the next window");
    }

    #[test]
    fn more_callers_than_there_is_room_for_share_one_line() {
        let mut kept = Kept::default();
        let lines = (0..100_000).filter_map(|address| kept.log(of(address))).count();
        assert_eq!((lines, kept.logged.len()), (CALLERS_MAX + 1, CALLERS_MAX + 1));
        assert_eq!(kept.log(of(3)), None, "a caller that has a line keeps it");
    }

    #[test]
    fn what_could_not_be_written_is_counted_with_what_came_since() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            refusals.note(of(1), "");
        }
        let taken = refusals.take();
        assert!(refusals.take().is_empty());
        refusals.note(of(1), "");
        refusals.give_back(taken);
        for address in 0..1000 {
            refusals.note(of(address), "");
        }
        let taken: HashMap<_, _> = refusals.take().into_iter().collect();
        assert_eq!(taken[&of(1)].calls, 5);
        assert_eq!(taken.values().map(|tally| tally.calls).sum::<u64>(), 1004);
        assert_eq!(taken.len(), CALLERS_MAX + 1);
    }
}
