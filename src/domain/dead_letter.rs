//! What does a reject carry to its subject? Everything that is needed to understand it and to try again.

use super::message::Headers;

/// A reject on its way to the dead-letter stream.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its leaf.
    pub leaf_index: i64,
    /// Where it goes: no other reject has this subject.
    pub dlq_subject: String,
    /// The stable code.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// The stream it came from.
    pub stream: String,
    /// The epoch, by a key that is the same in every database, unlike its number in `ledger.epoch`.
    pub epoch: String,
    /// Its sequence there.
    pub sequence: i64,
    /// The subject it was published to.
    pub subject: String,
    /// When the server stored it, in nanoseconds since 1970.
    pub server_time_ns: i64,
    /// When it was rejected, in nanoseconds since 1970.
    pub rejected_at_ns: i64,
    /// The publisher's headers.
    pub headers: Headers,
    /// The publisher's bytes.
    pub payload: Vec<u8>,
}
