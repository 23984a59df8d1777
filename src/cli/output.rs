//! How do commands print? Results on standard output, as text or JSON; complaints on standard error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where commands print")]

use serde_json::Value;
use std::fmt;

/// A result for people.
pub(super) fn line(text: impl fmt::Display) {
    println!("{text}");
}

/// A result that is a text of its own, to the last byte.
pub(super) fn text(text: &str) {
    print!("{text}");
}

/// A result for machines: one JSON document.
pub(super) fn json(value: &Value) {
    println!("{value:#}");
}

/// Why it did not work.
pub(super) fn complain(text: &str) {
    eprintln!("ledgerd: {text}");
}

/// A question on a terminal.
pub(super) fn prompt(question: &str) {
    eprint!("{question}");
}
