//! Named backoff policies: the waits between retries. No other file uses the `backoff` crate.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012), so only its arithmetic is used. The callers run their own loops.

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use std::time::Duration;

/// A receiver that was away for days is told within about this time.
const RECEIVER_WAIT_MAX: Duration = Duration::from_mins(5);

/// A growing wait with jitter that never gives up.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
    wait_max: Duration,
}

/// A server that has come back is tried again within about this time; jitter adds a quarter.
const DEPENDENCY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Where an operator must act, trying more often helps nobody.
const OPERATOR_WAIT_MAX: Duration = Duration::from_secs(5);

impl Backoff {
    /// For a server that is away: from 50 ms to 2 s.
    pub fn for_dependency() -> Self {
        Self::new(Duration::from_millis(50), DEPENDENCY_WAIT_MAX)
    }

    /// For a fault that an operator must mend: from 500 ms to 5 s.
    pub fn for_operator() -> Self {
        Self::new(Duration::from_millis(500), OPERATOR_WAIT_MAX)
    }

    /// For a receiver of webhooks, which is not ours: from 1 s to 5 min.
    pub fn for_receiver() -> Self {
        Self::new(Duration::from_secs(1), RECEIVER_WAIT_MAX)
    }

    fn new(first: Duration, wait_max: Duration) -> Self {
        let policy = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_max_interval(wait_max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.25)
            // The crate's default gives up after 15 minutes.
            .with_max_elapsed_time(None)
            .build();
        Self { policy, wait_max }
    }

    pub fn next_wait(&mut self) -> Duration {
        self.policy.next_backoff().unwrap_or(self.wait_max)
    }

    /// Starts again with the first wait.
    pub fn reset(&mut self) {
        self.policy.reset();
    }
}

/// The wait before a client's attempt to reconnect: it doubles from 20 ms to `DEPENDENCY_WAIT_MAX`.
pub fn reconnect_wait(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(10);
    (Duration::from_millis(20) * 2_u32.pow(doublings)).min(DEPENDENCY_WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_never_end() {
        let mut backoff = Backoff::for_dependency();
        let waits: Vec<_> = (0..1000).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] < Duration::from_millis(100));
        assert!(
            waits[900..].iter().all(|wait| *wait >= Duration::from_secs(1) && *wait <= Duration::from_millis(2500))
        );
        backoff.reset();
        assert!(backoff.next_wait() < Duration::from_millis(100));
    }
}
