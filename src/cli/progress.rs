//! How far is it? One line on standard error, where that is a terminal, and nothing elsewhere.
#![expect(clippy::print_stderr, reason = "progress is shown beside the results")]

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);

/// The progress of long work.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    what: &'static str,
    total: u64,
    began: Instant,
    last: Instant,
}

impl Progress {
    /// Begins work on so many.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        Self { shown: std::io::stderr().is_terminal(), what, total, began: now, last: now }
    }

    /// So many are done.
    pub(super) fn at(&mut self, done: u64) {
        if !self.shown || self.last.elapsed() < INTERVAL {
            return;
        }
        self.last = Instant::now();
        eprint!("\r\x1b[K{}", line(self.what, done, self.total, self.began.elapsed()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown in whole numbers")]
    let (rate, left) = (done as f64 / elapsed.as_secs_f64().max(0.001), total.saturating_sub(done) as f64);
    let left = Duration::from_secs_f64((left / rate.max(0.001)).min(1e9));
    format!(
        "{done} of {total} {what}, {rate:.0} per second, {} left",
        humantime::format_duration(Duration::from_secs(left.as_secs()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_rate_and_time_left() {
        assert_eq!(
            line("leaves", 1000, 61_000, Duration::from_secs(1)),
            "1000 of 61000 leaves, 1000 per second, 1m left"
        );
        assert!(line("leaves", 0, 10, Duration::ZERO).starts_with("0 of 10"));
    }
}
