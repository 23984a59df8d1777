//! Controls the bypass of a lane's consumer, for messages that the client cannot read: its conditions and its duration.
//!
//! A header can end the client, or break its connection, each time the server delivers it. Such messages are read
//! through the stream's own API instead. So are those that follow, because more of the same may come.

use std::time::Duration;
use tokio::time::Instant;

/// Whether a lane reads around its consumer.
#[derive(Debug)]
pub(crate) struct Around {
    /// Where the last failures were, and how many.
    failed_at: i64,
    failures: u32,
    /// So many messages are still read through the stream's own API, until this moment at the latest.
    left: usize,
    until: Instant,
    /// The next time it will be so many.
    chunk: usize,
    /// When the last chunk began.
    began: Instant,
    /// When the last message of it was read.
    last_read: Instant,
}

/// A failure that may be the connection's is tried again; a second one at the same place is the message's.
const FAILURES_MAX: u32 = 2;
const CHUNK_MIN: usize = 64;
const CHUNK_MAX: usize = 16_384;
/// The consumer is tried again after this time, and messages that come once a minute are small chunks again.
const TIME_MAX: Duration = Duration::from_mins(1);
const QUIET_MAX: Duration = Duration::from_secs(2);
/// A consumer that cannot be made is tried again after this time.
const WITHOUT_CONSUMER_TIME: Duration = Duration::from_secs(10);

impl Default for Around {
    fn default() -> Self {
        let now = Instant::now();
        Self { failed_at: -1, failures: 0, left: 0, until: now, chunk: CHUNK_MIN, began: now, last_read: now }
    }
}

impl Around {
    /// Reading failed behind this sequence. `is_the_messages`: the client has ended, which a message alone brings about.
    pub(crate) fn note_failure(&mut self, taken: i64, is_the_messages: bool) {
        if self.failed_at != taken {
            (self.failed_at, self.failures) = (taken, 0);
        }
        self.failures += if is_the_messages { FAILURES_MAX } else { 1 };
        if self.failures < FAILURES_MAX {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.began) > TIME_MAX * 2 {
            self.chunk = CHUNK_MIN;
        }
        (self.left, self.until, self.began, self.last_read) = (self.chunk, now + TIME_MAX, now, now);
        self.chunk = (self.chunk * 4).min(CHUNK_MAX);
    }

    /// Whether the consumer is to be read around now.
    pub(crate) fn is_wanted(&self) -> bool {
        self.left > 0 && Instant::now() < self.until
    }

    /// There is no consumer that can be read: so long there is none, everything is read through the stream's own API.
    pub(crate) fn read_without_consumer(&mut self) {
        let now = Instant::now();
        (self.left, self.until, self.last_read) =
            (usize::MAX, now + WITHOUT_CONSUMER_TIME, now + WITHOUT_CONSUMER_TIME);
    }

    /// So many messages were read.
    pub(crate) fn read(&mut self, messages: usize) {
        self.left = self.left.saturating_sub(messages);
        self.last_read = self.last_read.max(Instant::now());
    }

    /// There is no further message. Where none comes for a while, the consumer is tried again.
    pub(crate) fn found_nothing(&mut self) {
        if self.last_read.elapsed() > QUIET_MAX {
            self.left = 0;
        }
    }

    pub(crate) fn all_is_well(&mut self) {
        (self.failures, self.left) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_failures_at_one_place_or_a_client_that_ended_are_read_around() {
        let mut around = Around::default();
        around.note_failure(7, false);
        around.note_failure(8, false);
        assert!(!around.is_wanted(), "each may have been the connection's");
        around.note_failure(8, false);
        assert!(around.is_wanted());
        around.read(CHUNK_MIN);
        assert!(!around.is_wanted());
        around.note_failure(9, true);
        assert!(around.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_often_it_happens_the_longer_it_is_read_around_and_never_for_ever() {
        let mut around = Around::default();
        for place in 0..20 {
            around.note_failure(place, true);
        }
        around.read(CHUNK_MAX - 1);
        assert!(around.is_wanted());
        tokio::time::advance(TIME_MAX).await;
        assert!(!around.is_wanted());
        tokio::time::advance(TIME_MAX * 2).await;
        around.note_failure(21, true);
        around.read(CHUNK_MIN);
        assert!(!around.is_wanted(), "a rare one is read around alone");
    }
}
