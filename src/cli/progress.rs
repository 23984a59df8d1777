//! How does long work show that it goes on? One line on a terminal that overwrites itself; nothing in a pipe or a log.
#![expect(clippy::print_stderr, reason = "progress belongs beside the results, and not among them")]

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
/// Back to the beginning of the line, and clear it.
const CLEAR: &str = "\r\x1b[2K";

/// The line. It goes away by itself.
#[derive(Debug)]
pub(super) struct Progress {
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    /// Shows nothing yet.
    pub(super) fn new() -> Self {
        Self { shown: None, is_terminal: stderr().is_terminal() }
    }

    /// Says how far it is, as often as an eye can follow.
    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
            self.shown = Some(Instant::now());
            eprint!("{CLEAR}{}", text());
        }
    }

    /// Makes room for a result.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("{CLEAR}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
