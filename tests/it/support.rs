//! What the tests are written with: real servers that die with the test process, faults that are provoked for real,
//! and one check that reads the whole ledger.
//!
//! Start with [`world`]: a database, a nats-server and the daemon between them. Nothing here sleeps to let something
//! happen: [`eventually`] waits for a condition, with a bound, and says what it last saw.

pub(crate) mod world;

pub(crate) mod busy;
pub(crate) mod certificates;
pub(crate) mod console;
pub(crate) mod daemon;
pub(crate) mod events;
pub(crate) mod forge;
pub(crate) mod http;
pub(crate) mod proxy;
pub(crate) mod published;
pub(crate) mod publisher;
pub(crate) mod records;

pub(crate) mod dead_letters;
pub(crate) mod ledger;
pub(crate) mod signed;
mod tables;
pub(crate) mod tree;

pub(crate) mod archived;
pub(crate) mod object_store;

pub(crate) mod installation;
pub(crate) mod jwt;
pub(crate) mod nats;
pub(crate) mod nats_cluster;
pub(crate) mod postgres;
pub(crate) mod raw_nats;
pub(crate) mod receiver;
pub(crate) mod requeued;
pub(crate) mod shipped_nats;
pub(crate) mod small_disk;

pub(crate) mod notify;
pub(crate) mod port;
pub(crate) mod process;

use std::future::Future;
use std::panic::Location;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long to wait for what takes milliseconds when all is well. It is generous, because machines are slow at times;
/// it is never waited out unless something is broken.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `attempt` gives `Ok`, and returns what it gave. `Err` says what was seen instead.
///
/// # Panics
/// When `bound` has passed, with what was last seen.
#[track_caller]
pub(crate) fn eventually<T, F, Fut>(what: &str, bound: Duration, mut attempt: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + bound;
        let mut seen = "nothing: the first look did not come to an end".to_owned();
        loop {
            match timeout_at(deadline, attempt()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(now)) => seen = now,
                Err(_) => {}
            }
            let now = Instant::now();
            assert!(now < deadline, "{caller}: {what}: not within {bound:?}; last seen: {seen}");
            sleep_until(deadline.min(now + POLL_INTERVAL)).await;
        }
    }
}

/// `Ok` when `holds`, otherwise what was `seen`: for the last line of an attempt.
pub(crate) fn when(holds: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen()) }
}
