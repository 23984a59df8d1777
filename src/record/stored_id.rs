//! The id of an audit event whose own id is already taken by another event (`audit.repeated_id = "distinct"`).
//!
//! The first event under an id keeps it. Another one is stored as `{event_id}~{8 hex}`: the first eight digits of its
//! fingerprint. If another event has that id too, all 64 digits are used. A publisher can therefore not keep an event
//! out by taking an id first.

use crate::record::digest::{Hash, hex, sha256};
use crate::record::lengths::EVENT_ID_CHARS_MAX;
use crate::record::message::{Message, utc_text};

const SEPARATOR: char = '~';
/// How many digits of the fingerprint are tried, in this order.
const DIGITS: [usize; 2] = [8, 64];

/// What tells an event from the others of its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentFingerprint {
    digest: Hash,
    /// The publisher's name for a message that does not say when it happened.
    pub(crate) message_id: Option<String>,
}

impl ContentFingerprint {
    /// The SHA-256 of the payload. An event without a timestamp does not say when it happened, so each message is an event
    /// of its own: its message id follows the payload, or else the server's time, as `timestamp_text` has it.
    pub(crate) fn of(message: &Message, has_timestamp: bool) -> Self {
        if has_timestamp {
            return Self { digest: sha256(&message.payload), message_id: None };
        }
        let message_id = message.headers.first_message_id().map(str::to_owned);
        let moment = message_id.clone().unwrap_or_else(|| utc_text(message.first_time_ns()));
        Self { digest: sha256(&[&message.payload[..], moment.as_bytes()].concat()), message_id }
    }

    /// Of an event with a timestamp, the SHA-256 of its payload.
    pub(crate) fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// The ids that are tried after the event's own. One that would be too long for its column loses its end to the digits.
    pub(crate) fn ids(&self, event_id: &str) -> [String; DIGITS.len()] {
        let digits = hex(&self.digest);
        DIGITS.map(|count| {
            let kept = event_id.chars().take(EVENT_ID_CHARS_MAX - SEPARATOR.len_utf8() - count);
            kept.chain([SEPARATOR]).chain(digits[..count].chars()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::message::{FIRST_PLACE, Headers, Incarnation};
    use std::sync::Arc;

    fn message(payload: &str, server_time_ns: i64, headers: &[(&str, &str)]) -> Message {
        Message {
            incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 7 },
            sequence: server_time_ns,
            subject: "ledger.ERR.RXY-CEO".to_owned(),
            server_time_ns,
            headers: Headers::from_pairs(headers.iter().copied()),
            payload: payload.to_owned().into(),
        }
    }

    #[test]
    fn an_id_ends_in_the_digits_of_the_payloads_hash_and_fits_its_column() {
        let fingerprint = ContentFingerprint::of(&message("{}", 1, &[]), true);
        let digits = hex(&sha256(b"{}"));
        assert_eq!(fingerprint.ids("SEC-X-1"), [format!("SEC-X-1~{}", &digits[..8]), format!("SEC-X-1~{digits}")]);
        let [short, long] = fingerprint.ids(&"x".repeat(EVENT_ID_CHARS_MAX));
        assert_eq!((short.len(), long.len()), (EVENT_ID_CHARS_MAX, EVENT_ID_CHARS_MAX));
        assert!(short.ends_with(&format!("x~{}", &digits[..8])) && long.ends_with(&format!("x~{digits}")));
    }

    #[test]
    fn without_a_timestamp_each_message_is_another_event_unless_its_id_or_its_requeue_says_otherwise() {
        let of = |time, headers: &[(&str, &str)]| ContentFingerprint::of(&message("{}", time, headers), false).digest;
        assert_ne!(of(1, &[]), of(2, &[]));
        assert_eq!(of(1, &[("Nats-Msg-Id", "a")]), of(2, &[("nats-msg-id", "a")]));
        assert_ne!(of(1, &[("Nats-Msg-Id", "a")]), of(1, &[("Nats-Msg-Id", "b")]));
        assert_eq!(of(1, &[]), of(2, &[(FIRST_PLACE, "7-1-1"), ("Nats-Msg-Id", "requeue-1")]));
        let requeued = [(FIRST_PLACE, "7-1-1"), ("Ledger-Original-Nats-Msg-Id", "a"), ("Nats-Msg-Id", "requeue-1")];
        assert_eq!(of(1, &[("Nats-Msg-Id", "a")]), of(2, &requeued));
        let requeued_twice = [
            (FIRST_PLACE, "7-1-1"),
            ("Ledger-Original-Ledger-Original-Nats-Msg-Id", "a"),
            ("Ledger-Original-Nats-Msg-Id", "requeue-1"),
            ("Nats-Msg-Id", "requeue-2"),
        ];
        assert_eq!(of(1, &[("Nats-Msg-Id", "a")]), of(3, &requeued_twice));
        let twice = |time| ContentFingerprint::of(&message("{}", time, &[]), true);
        assert_eq!(twice(1), twice(2), "one with a timestamp is the same whenever it comes");
    }
}
