//! Cursors of the timeline: how far each source was read. They are opaque to whoever pages.

use std::collections::BTreeMap;

/// The key of the last line that was taken from each source, in the source's own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor(BTreeMap<String, Key>);

/// The place of a line in its source.
pub(crate) type Key = [i64; 3];

/// More sources than there are; a longer cursor is none of ours.
const SOURCES_MAX: usize = 8;

impl Cursor {
    /// Where to go on in a source. `None`: at its beginning.
    pub(crate) fn after(&self, source: &str) -> Option<Key> {
        self.0.get(source).copied()
    }

    pub(crate) fn read_to(&mut self, source: &str, key: Key) {
        self.0.insert(source.to_owned(), key);
    }

    /// `None` for a text that no cursor has.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('_').collect();
        let keys = parts.iter().map(|part| {
            let mut fields = part.split('.');
            let source = fields.next().filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
            let mut number = || fields.next()?.parse::<i64>().ok();
            let key = [number()?, number()?, number()?];
            fields.next().is_none().then(|| (source.to_owned(), key))
        });
        let cursor = Self(keys.collect::<Option<_>>()?);
        (parts.len() <= SOURCES_MAX).then_some(cursor)
    }

    pub(crate) fn text(&self) -> String {
        let keys = self.0.iter().map(|(source, [a, b, c])| format!("{source}.{a}.{b}.{c}"));
        keys.collect::<Vec<_>>().join("_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mut cursor = Cursor::default();
        cursor.read_to("events", [-7, 2, 0]);
        cursor.read_to("TRAIL", [1, i64::MAX, 3]);
        assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        for wrong in ["", "events", "events.1.2", "events.1.2.3.4", "events.1.2.x", "events.1.2.3_", "é.1.2.3"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Cursor::parse(&["a.1.2.3"; 9].join("_")), None);
    }
}
