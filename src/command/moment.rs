//! Moments in options: ISO 8601; in UTC where they name no offset; a day alone begins at midnight.

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
