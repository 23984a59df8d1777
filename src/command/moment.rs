//! Parses ISO 8601 times in command options. A time without an offset is in UTC, and a date alone means its midnight.

use crate::command::{Exit, Failure};
use crate::record::timestamp::EventTime;

/// A moment in UTC as PostgreSQL reads it.
pub(crate) fn utc(option: &str, text: &str) -> Result<String, Failure> {
    // A day alone begins at midnight.
    let whole = if text.len() == "YYYY-MM-DD".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = EventTime::parse(whole);
    let time = time.map_err(|_| Failure::new(Exit::Usage, format!("--{option} {text} is no ISO 8601 moment")))?;
    Ok(time.utc())
}
