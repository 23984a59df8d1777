//! The progress display of long operations: one line that overwrites itself on a terminal, and nothing in a pipe or a
//! log.
#![expect(clippy::print_stderr, reason = "progress belongs beside the results, and not among them")]

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
/// Back to the beginning of the line, and clear it.
const CLEAR: &str = "\r\x1b[2K";

/// The line. It goes away by itself.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    shown: Option<Instant>,
    is_terminal: bool,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self { shown: None, is_terminal: stderr().is_terminal() }
    }

    /// Says how far it is, as often as an eye can follow.
    pub(crate) fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
            self.shown = Some(Instant::now());
            eprint!("{CLEAR}{}", text());
        }
    }

    /// Makes room for a result.
    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("{CLEAR}");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How fast it is, and how long the rest will take.
pub(crate) fn pace(done: u64, total: u64, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown in whole numbers")]
    let (rate, left) = (done as f64 / elapsed.as_secs_f64().max(0.001), total.saturating_sub(done) as f64);
    let left = Duration::from_secs_f64((left / rate.max(0.001)).min(1e9));
    let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
    format!("{rate:.0} per second, {left} left")
}

/// Characters of a bar.
const BAR_CHARS: u64 = 24;

/// How much is done, as a bar and as a share.
pub(crate) fn bar(done: u64, total: u64) -> String {
    let done = done.min(total);
    let filled = usize::try_from(done.saturating_mul(BAR_CHARS) / total.max(1)).expect("at most the bar");
    let empty = usize::try_from(BAR_CHARS).expect("small") - filled;
    let percent = done.saturating_mul(100) / total.max(1);
    format!("[{}{}] {percent:>3} %", "=".repeat(filled), " ".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_share_rate_and_time_left() {
        assert_eq!(pace(1000, 61_000, Duration::from_secs(1)), "1000 per second, 1m left");
        assert!(pace(0, 10, Duration::ZERO).starts_with("0 per second"));
        assert_eq!(bar(3, 4), "[==================      ]  75 %");
        assert_eq!(bar(0, 0), "[                        ]   0 %");
        assert_eq!(bar(9, 4), "[========================] 100 %");
    }
}
