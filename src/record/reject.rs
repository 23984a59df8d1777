//! The reasons for rejects: the stable codes, and one sentence for each.

use std::fmt;
use strum::{IntoStaticStr, VariantArray};

/// The cause of a reject. The codes are a contract: they are stored, published and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Reason {
    /// The message is not UTF-8.
    NotUtf8,
    /// The message is not one JSON value.
    MalformedJson,
    /// The message is longer, or nested deeper, than the limits allow.
    TooLarge,
    /// An object names a key twice.
    DuplicateKey,
    /// A string holds U+0000, which PostgreSQL cannot store.
    NulCharacter,
    /// A number that a double cannot hold exactly.
    NumberOutOfRange,
    /// A required field is absent.
    MissingField,
    /// A field that LDG-002 does not know.
    UnknownField,
    /// A field holds another JSON type than it must.
    WrongType,
    /// A field has more characters than its column.
    TooLong,
    /// `event_id` is not `{PREFIX}-{ACTOR}-{unix ms}`.
    BadEventId,
    /// The prefix of `event_id` is another lane's.
    PrefixMismatch,
    /// The actor in the payload, the subject and the event id are not one.
    ActorMismatch,
    /// The actor is not registered.
    UnknownActor,
    /// The actor is registered, and not active.
    InactiveActor,
    /// The action is not in the registry.
    UnknownAction,
    /// The actor may not use this action.
    ActionNotAllowed,
    /// The action does not know this outcome.
    OutcomeNotAllowed,
    /// The timestamp is not ISO 8601.
    BadTimestamp,
    /// The given `integrity_hash` is not what the specification's formula yields.
    HashMismatch,
    /// `details` does not have the structure that its action prescribes.
    DetailsMismatch,
    /// The id is stored already, with other content.
    Conflict,
    /// The record refers to something that does not exist (yet).
    UnknownReference,
    /// PostgreSQL refused the record alone, and took others.
    DatabaseRejected,
}

impl Reason {
    /// Every reason, in the order of the contract.
    pub const ALL: &[Reason] = Self::VARIANTS;

    /// The code that is stored and published.
    pub const fn code(self) -> &'static str {
        self.into_str()
    }
}

impl Reason {
    /// The reason that has this code.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A reason and one sentence that names the field, what was found and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: Reason,
    detail: String,
}

/// The longest detail. It travels in a header, and must not let a publisher fill the dead-letter stream.
pub const DETAIL_BYTES_MAX: usize = 500;

/// The longest quotation of a publisher's text within a detail.
const QUOTE_CHARS_MAX: usize = 60;

impl Rejection {
    /// `detail` may quote the publisher: it is cut at [`DETAIL_BYTES_MAX`], and control characters become spaces.
    pub fn new(reason: Reason, detail: &str) -> Self {
        let mut clean = String::with_capacity(detail.len().min(DETAIL_BYTES_MAX));
        for character in detail.chars() {
            let character = if is_printable(character) { character } else { ' ' };
            if clean.len() + character.len_utf8() > DETAIL_BYTES_MAX - '…'.len_utf8() {
                clean.push('…');
                break;
            }
            clean.push(character);
        }
        Self { reason, detail: clean.trim().to_owned() }
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// Neither a control character nor one that reorders or hides the text around it.
pub(crate) fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Quotes a publisher's text for a detail: short, and in quotation marks.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        None => format!("\"{text}\""),
        Some((cut, _)) => format!("\"{}…\"", &text[..cut]),
    }
}

/// What a YAML error says and where, without the picture of the place.
pub(crate) fn first_line(error: &impl fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_one_short_line_whatever_the_publisher_wrote() {
        let rejection =
            Rejection::new(Reason::UnknownField, &format!("a\r\nLedger-Reason: x\u{202e}{}", "é".repeat(900)));
        assert!(rejection.detail().len() <= DETAIL_BYTES_MAX);
        assert!(rejection.detail().chars().all(is_printable));
        assert!(rejection.detail().ends_with('…'));
    }

    #[test]
    fn every_reason_is_listed_once() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
    }
}
