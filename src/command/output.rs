//! The output of commands: results on standard output, as text or JSON; errors on standard error.
//!
//! Whoever reads standard output may leave, as `head` does. Then the command goes on without a word, and its exit code tells what it
//! found; one that would go on for ever asks [`is_closed`].
#![expect(clippy::print_stderr, reason = "this is where commands print")]

use crate::record::reject::is_printable;
use serde_json::Value;
use std::fmt;
use std::io::{ErrorKind, Write as _, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

/// Nobody reads standard output any more.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// It could not be written otherwise: a full disk, for one.
static FAILED: AtomicBool = AtomicBool::new(false);

pub(crate) fn line(text: impl fmt::Display) {
    write(format_args!("{text}\n"));
}

/// A result that is a text of its own, to the last byte.
pub(crate) fn text(text: &str) {
    write(format_args!("{text}"));
}

/// A result for machines: one JSON document.
pub(crate) fn json(value: &Value) {
    write(format_args!("{value:#}\n"));
}

fn write(text: fmt::Arguments<'_>) {
    if is_closed() || has_failed() {
        return;
    }
    let mut out = stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED.store(true, Ordering::Relaxed),
        Err(error) => {
            FAILED.store(true, Ordering::Relaxed);
            complain(&format!("standard output cannot be written: {error}"));
        }
    }
}

/// Whether nobody reads what is printed.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Whether a result was lost.
pub(crate) fn has_failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Why it did not work.
pub(crate) fn complain(text: &str) {
    eprintln!("ledgerd: {text}");
}

/// A question on a terminal.
pub(crate) fn prompt(question: &str) {
    eprint!("{question}");
}

/// A stranger's text on one line: what would move the cursor, or hide or reorder what stands around it, is shown escaped.
pub(crate) fn safe(text: &str) -> String {
    escaped(text, |_| false)
}

/// The same of a text of several lines.
pub(crate) fn safe_lines(text: &str) -> String {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

/// A publisher's bytes, escaped and indented: no line of theirs can be taken for one of ours.
pub(crate) fn indented(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => safe_lines(text).lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"),
        Err(_) => format!("    {}", bytes.escape_ascii()),
    }
}

fn escaped(text: &str, passes: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) || passes(character) {
            safe.push(character);
        } else {
            safe.extend(character.escape_unicode());
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_publisher_reaches_the_terminal_as_an_instruction() {
        let text = "a\u{1b}[2J\r\u{9b}1m\u{202e}b\nc\t\u{0}é";
        assert_eq!(safe_lines(text), "a\\u{1b}[2J\\u{d}\\u{9b}1m\\u{202e}b\nc\t\\u{0}é");
        assert_eq!(safe(text), "a\\u{1b}[2J\\u{d}\\u{9b}1m\\u{202e}b\\u{a}c\\u{9}\\u{0}é");
    }
}
