//! A dead letter: everything that is needed to understand a reject and to try again.

use crate::record::message::{Headers, Incarnation, Message};
use crate::record::subject::{Subject, safe_token};

/// A reject on its way to the dead-letter stream.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub leaf_index: i64,
    /// Where it goes: no other reject has this subject.
    pub dlq_subject: String,
    pub reason: String,
    pub detail: String,
    /// The stream it came from.
    pub stream: String,
    /// The epoch, by a key that is the same in every database, unlike its number in `ledger.epoch`.
    pub epoch: String,
    pub sequence: i64,
    /// The name that its place gives it.
    pub place: String,
    /// The subject it was published to.
    pub subject: String,
    /// When the server stored it, in nanoseconds since 1970.
    pub server_time_ns: i64,
    /// When it was rejected, in nanoseconds since 1970.
    pub rejected_at_ns: i64,
    pub headers: Headers,
    /// The publisher's bytes.
    pub payload: Vec<u8>,
}

/// `dlq.ledger.<LANE>.<ACTOR>.<reference>`: the reference names the message for ever, in whatever database it is stored.
pub fn dlq_subject(message: &Message, regressions: i32) -> String {
    let (lane, actor) = match Subject::parse(&message.subject) {
        Some(subject) => (subject.lane.prefix(), safe_token(subject.actor)),
        None => ("UNKNOWN", safe_token(message.subject.rsplit('.').next().unwrap_or_default())),
    };
    let key = epoch_key(&message.incarnation, regressions);
    format!("dlq.ledger.{lane}.{actor}.{key}-{}", message.sequence)
}

/// Names an epoch by a key that is the same in every database, unlike its number in `ledger.epoch`.
pub fn epoch_key(incarnation: &Incarnation, regressions: i32) -> String {
    match regressions {
        0 => incarnation.created_ns.to_string(),
        _ => format!("{}r{regressions}", incarnation.created_ns),
    }
}
