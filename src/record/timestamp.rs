//! Timestamps of events: ISO 8601 text, kept as it is, and the UTC moment that it names.

use crate::record::reject::{Reason, Rejection, quote};
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Offset;
use jiff::{RoundMode, TimestampRound, Unit};

/// A timestamp: the publisher's text, which the hash covers, and its moment in UTC, which the column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTime {
    text: String,
    utc: DateTime,
}

static PARSER: DateTimeParser = DateTimeParser::new();

impl EventTime {
    /// Reads an ISO 8601 date and time, `2026-02-20T17:47:14.568Z` for one. An offset is converted; without one the text
    /// is taken as UTC, as LDG-002 says of `timestamp`. Digits beyond microseconds are rounded, as PostgreSQL does.
    pub fn parse(text: String) -> Result<Self, Rejection> {
        Self::parse_field("timestamp", text)
    }

    /// The same for a field of another name.
    pub(crate) fn parse_field(field: &str, text: String) -> Result<Self, Rejection> {
        match utc_of(&text) {
            Some(utc) => Ok(Self { text, utc }),
            None => Err(Rejection::new(
                Reason::BadTimestamp,
                &format!("{field} {} is not an ISO 8601 date and time such as 2026-02-20T17:47:14.568Z", quote(&text)),
            )),
        }
    }

    /// The exact text that was published.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The moment in UTC, to the microsecond, as PostgreSQL reads a `timestamp`.
    pub fn utc(&self) -> String {
        self.utc.to_string()
    }

    /// The same as PostgreSQL prints it.
    pub fn utc_printed(&self) -> String {
        printed(self.utc)
    }

    /// The day in UTC, `YYYY-MM-DD`.
    pub fn utc_date(&self) -> String {
        self.utc.date().to_string()
    }
}

/// A `timestamp` as PostgreSQL prints it. Every row has two, so it is written digit by digit.
pub(crate) fn printed(moment: DateTime) -> String {
    let Some(year) = u32::try_from(moment.year()).ok() else { return moment.to_string().replace('T', " ") };
    let part = |number: i8| u32::from(number.unsigned_abs());
    let mut text = *b"0000-00-00 00:00:00.000000";
    for (place, digits, number) in [
        (0, 4, year),
        (5, 2, part(moment.month())),
        (8, 2, part(moment.day())),
        (11, 2, part(moment.hour())),
        (14, 2, part(moment.minute())),
        (17, 2, part(moment.second())),
        (20, 6, moment.subsec_nanosecond().unsigned_abs() / 1000),
    ] {
        let mut rest = number;
        for digit in text[place..place + digits].iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
    }
    let text = std::str::from_utf8(&text).expect("digits");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn utc_of(text: &str) -> Option<DateTime> {
    // The library also takes a space between date and time, and IANA zones in brackets; ISO 8601 knows neither.
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-:.,TtZz".contains(&byte)) {
        return None;
    }
    let pieces = PARSER.parse_pieces(text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time()?);
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    let rounding = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::HalfEven);
    let moment = offset.to_timestamp(civil).ok()?.round(rounding).ok()?;
    let utc = Offset::UTC.to_datetime(moment);
    (1..=9999).contains(&utc.year()).then_some(utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_converted_and_the_text_is_kept() {
        for (text, utc) in [
            ("2026-02-20T17:47:14.568Z", "2026-02-20T17:47:14.568"),
            ("2026-02-20T17:47:14", "2026-02-20T17:47:14"),
            ("2026-02-20T17:47:14.123456+00:00", "2026-02-20T17:47:14.123456"),
            ("2026-02-20T23:47:14-06:30", "2026-02-21T06:17:14"),
            ("20260220T174714Z", "2026-02-20T17:47:14"),
            ("2026-02-20T17:47Z", "2026-02-20T17:47:00"),
            ("2026-02-20T17:47:14.1234565Z", "2026-02-20T17:47:14.123456"),
            ("2026-02-20T17:47:14.9999999Z", "2026-02-20T17:47:15"),
        ] {
            let time = EventTime::parse(text.to_owned()).expect(text);
            assert_eq!((time.text(), time.utc().as_str()), (text, utc));
        }
    }

    #[test]
    fn a_moment_is_printed_as_postgresql_does() {
        for (text, printed) in [
            ("2026-02-20T17:47:14.568Z", "2026-02-20 17:47:14.568"),
            ("2026-02-20T17:47:14.000001Z", "2026-02-20 17:47:14.000001"),
            ("2026-10-10T10:10:10Z", "2026-10-10 10:10:10"),
            ("2026-10-10T00:00:00Z", "2026-10-10 00:00:00"),
            ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00"),
            ("9999-11-30T23:59:59.999999Z", "9999-11-30 23:59:59.999999"),
        ] {
            assert_eq!(EventTime::parse(text.to_owned()).expect(text).utc_printed(), printed);
        }
    }

    #[test]
    fn what_is_no_iso_8601_date_and_time_is_rejected() {
        for text in [
            "",
            "yesterday",
            "2026-02-20",
            "17:47:14Z",
            "2026-02-30T00:00:00Z",
            "2026-02-20T25:00:00Z",
            "20/02/2026T10:00:00",
            "1708451234567",
            "2026-02-20 17:47:14",
            "2026-02-20T17:47:14[Europe/Berlin]",
            "2026-02-20T17:47:14+99:00",
            "-000100-01-01T00:00:00Z",
            "2026-02-20T17:47:14Z ",
            "2026-02-20T17:47:14ZZ",
        ] {
            let rejection = EventTime::parse(text.to_owned()).expect_err(text);
            assert_eq!(rejection.reason(), Reason::BadTimestamp);
        }
    }
}
