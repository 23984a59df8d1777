//! A message as it arrived, unchecked: its bytes, and the metadata from the server.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// One incarnation of a stream: its name and the moment the server made it. A stream that is deleted and made anew
/// counts its sequences from 1 again, so a sequence means something only within its incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation {
    pub stream: Arc<str>,
    /// When the server made it, in nanoseconds since 1970.
    pub created_ns: i64,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.stream, utc_text(self.created_ns))
    }
}

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub incarnation: Incarnation,
    pub sequence: i64,
}

/// A message as the stream holds it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The stream it came from.
    pub incarnation: Incarnation,
    /// Its sequence in the stream, from 1.
    pub sequence: i64,
    /// The subject it was published to.
    pub subject: String,
    /// When the server stored it, in nanoseconds since 1970.
    pub server_time_ns: i64,
    pub headers: Headers,
    /// The publisher's bytes.
    pub payload: Bytes,
}

/// The header in which a requeue says where its message came first.
pub const FIRST_PLACE: &str = "Ledger-Requeued-Place";
/// The publisher's own name for the message, which the stream remembers for a while.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// What a requeue puts before the names of headers that would take effect.
pub const ORIGINAL: &str = "Ledger-Original-";
/// The message id of a requeue begins so.
const REQUEUE_ID: &str = "requeue-";

impl Message {
    /// The message's place in its stream's incarnation, as a name that it has in every database. What was published again has
    /// the name of the first: where a new database takes that one after all, the two are one record.
    pub fn place(&self) -> String {
        place(self.incarnation.created_ns, self.sequence, self.server_time_ns, &self.headers)
    }

    /// When the server stored the message, or the first one where it was published again, in nanoseconds since 1970.
    pub fn first_time_ns(&self) -> i64 {
        let first = requeued_from(&self.headers).and_then(|place| place.rsplit('-').next()?.parse().ok());
        first.unwrap_or(self.server_time_ns)
    }
}

/// The place of a message with these headers.
pub fn place(created_ns: i64, sequence: i64, server_time_ns: i64, headers: &Headers) -> String {
    match requeued_from(headers) {
        Some(first) => first.to_owned(),
        // The time tells two messages apart that had one sequence, before and after the stream lost data.
        None => format!("{created_ns}-{sequence}-{server_time_ns}"),
    }
}

/// Where the message came first, if it was published again.
fn requeued_from(headers: &Headers) -> Option<&str> {
    let named = headers.pairs().into_iter().flatten().find(|(name, _)| *name == FIRST_PLACE).map(|(_, value)| value);
    named.filter(|value| is_place(value))
}

fn is_place(text: &str) -> bool {
    let is_number = |part: &&str| part.parse::<i64>().is_ok_and(|number| number.to_string() == **part);
    text.split('-').filter(is_number).count() == 3 && text.split('-').count() == 3
}

/// A subject as text that PostgreSQL can store: the server admits U+0000 in it, and no lane or actor has it.
pub fn storable_subject(subject: &str) -> String {
    subject.replace('\0', "\u{fffd}")
}

/// The publisher's headers: sorted `Name: value` lines, or the raw block where it could not be parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Option<Vec<u8>>);

impl Headers {
    pub const NONE: Headers = Headers(None);

    /// Parsed headers. They are sorted by name, because the client does not keep the order of names; the values of one
    /// name keep theirs.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by_key(|(name, _)| *name);
        if pairs.is_empty() {
            return Self::NONE;
        }
        Self(Some(pairs.into_iter().flat_map(|(name, value)| format!("{name}: {value}\r\n").into_bytes()).collect()))
    }

    /// A header block as the server holds it, from `NATS/1.0` to the empty line. It is parsed where it can be.
    pub fn from_block(block: &[u8]) -> Self {
        match parse_block(block) {
            Some(pairs) => Self::from_pairs(pairs),
            None => Self(Some(block.to_vec())),
        }
    }

    /// As they were stored in custody.
    pub fn from_stored(stored: Option<Vec<u8>>) -> Self {
        Self(stored)
    }

    /// The bytes to store; `None` when the publisher set no header.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    /// The names and values; `None` where the block could not be parsed.
    pub fn pairs(&self) -> Option<Vec<(&str, &str)>> {
        let Some(bytes) = &self.0 else { return Some(Vec::new()) };
        let text = std::str::from_utf8(bytes).ok()?;
        if text.starts_with("NATS/1.0") {
            return None;
        }
        text.split_terminator("\r\n").map(|line| line.split_once(": ").filter(is_well_formed)).collect()
    }

    /// A line each, `Name: value`; or the block, escaped, where it could not be parsed.
    pub fn lines(&self) -> Vec<String> {
        match self.pairs() {
            Some(pairs) => pairs.into_iter().map(|(name, value)| format!("{name}: {value}")).collect(),
            None => vec![self.as_bytes().unwrap_or_default().escape_ascii().to_string()],
        }
    }

    /// The message id that the publisher gave. A message that was published again has one of ours, and carries the
    /// publisher's under a longer name; each further requeue adds to that name.
    pub fn first_message_id(&self) -> Option<&str> {
        if requeued_from(self).is_none() {
            return self.value(MESSAGE_ID).filter(|id| !id.is_empty());
        }
        let is_publishers = |(name, value): &(&str, &str)| {
            name.trim_start_matches(ORIGINAL).eq_ignore_ascii_case(MESSAGE_ID) && !value.starts_with(REQUEUE_ID)
        };
        let named = self.pairs()?.into_iter().filter(is_publishers).max_by_key(|(name, _)| name.len());
        named.map(|(_, id)| id).filter(|id| !id.is_empty())
    }

    /// The first value of a name, in whatever case it was written.
    pub fn value(&self, wanted: &str) -> Option<&str> {
        self.pairs()?.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }
}

/// The pairs of a well-formed block without a status; `None` for any other.
fn parse_block(block: &[u8]) -> Option<Vec<(&str, &str)>> {
    let text = std::str::from_utf8(block).ok()?.strip_prefix("NATS/1.0\r\n")?.strip_suffix("\r\n")?;
    text.split_terminator("\r\n")
        .map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())).filter(is_well_formed))
        .collect()
}

/// A pair that any client can carry. A lone carriage return in a value makes some of them panic.
fn is_well_formed((name, value): &(&str, &str)) -> bool {
    let good_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    good_name && !value.contains(|character: char| character.is_control() && character != '\t')
}

/// A moment as ISO 8601 text in UTC, with all its nanoseconds.
pub fn utc_text(unix_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns))
        .map_or_else(|_| unix_ns.to_string(), |moment| moment.to_string())
}

/// The moment that ISO 8601 text of a server names, in nanoseconds since 1970.
pub fn unix_ns(utc_text: &str) -> Option<i64> {
    let moment: jiff::Timestamp = utc_text.parse().ok()?;
    i64::try_from(moment.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_the_same_whichever_way_they_were_read() {
        let parsed = Headers::from_pairs([("Nats-Msg-Id", "1"), ("A", "x: y"), ("A", "z")]);
        let block = Headers::from_block(b"NATS/1.0\r\nNats-Msg-Id: 1\r\nA: x: y\r\nA:z\r\n\r\n");
        assert_eq!(parsed, block);
        assert_eq!(parsed.pairs(), Some(vec![("A", "x: y"), ("A", "z"), ("Nats-Msg-Id", "1")]));
        assert_eq!(Headers::NONE.pairs(), Some(vec![]));
    }

    #[test]
    fn what_was_published_again_has_the_name_of_the_first() {
        assert_eq!(place(1, 2, 3, &Headers::NONE), "1-2-3");
        for (header, expected) in [("4-5-6", "4-5-6"), ("4-5", "1-2-3"), ("4-5-x", "1-2-3"), ("4-5-+6", "1-2-3")] {
            assert_eq!(place(1, 2, 3, &Headers::from_pairs([("A", "b"), (FIRST_PLACE, header)])), expected);
        }
    }

    #[test]
    fn a_block_that_cannot_be_parsed_is_kept_as_it_is() {
        for block in [
            &b"NATS/1.0\r\nA: \xff\r\n\r\n"[..],
            b"NATS/1.0 404\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\nA: x\ry\r\n\r\n",
            b"garbage",
        ] {
            let headers = Headers::from_block(block);
            assert_eq!(headers.as_bytes(), Some(block));
            assert_eq!(headers.pairs(), None);
        }
    }
}
