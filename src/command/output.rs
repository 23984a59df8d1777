//! The output of commands: results on standard output, as text or JSON; errors on standard error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where commands print")]

use crate::record::reject::is_printable;
use serde_json::Value;
use std::fmt;

pub(crate) fn line(text: impl fmt::Display) {
    println!("{text}");
}

/// A result that is a text of its own, to the last byte.
pub(crate) fn text(text: &str) {
    print!("{text}");
}

/// A result for machines: one JSON document.
pub(crate) fn json(value: &Value) {
    println!("{value:#}");
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
