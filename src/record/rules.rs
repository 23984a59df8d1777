//! Whether a message is good: the rules in force, and the verdict they give: total and pure, on any bytes.

use crate::record::agents::Agents;
use crate::record::envelope;
use crate::record::json::Object;
use crate::record::message::Message;
use crate::record::model_tiers::ModelTiers;
use crate::record::record::{Record, readable_record_id};
use crate::record::registry::Registry;
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::subject::{Subject, Table};
use crate::record::writers::Writers;

/// Everything that a verdict depends on besides the message.
#[derive(Debug)]
pub struct Rules {
    /// Who may write.
    pub agents: Agents,
    /// What may be said.
    pub registry: Registry,
    /// Limits and leniencies.
    pub settings: Settings,
}

/// Limits and leniencies of the judging.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest payload, in bytes.
    pub record_bytes_max: usize,
    /// The deepest nesting of objects and arrays.
    pub nesting_max: usize,
    /// Any printable text may follow the prefix of an `event_id`, not only the actor and Unix milliseconds.
    pub any_event_id: bool,
    /// A missing timestamp becomes the time at which the server stored the message.
    pub stamp_missing_timestamp: bool,
    /// Another event under a stored id is stored under an id of its own, and is no conflict.
    pub distinct_repeated_ids: bool,
    /// Which tier a model is of.
    pub model_tiers: ModelTiers,
    /// Who may write records that the Action Registry does not know.
    pub writers: Writers,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            record_bytes_max: 256 * 1024,
            nesting_max: 32,
            any_event_id: false,
            stamp_missing_timestamp: false,
            distinct_repeated_ids: false,
            model_tiers: ModelTiers::default(),
            writers: Writers::default(),
        }
    }
}

/// What becomes of a message: one of these two, always.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost every message is a record")]
pub enum Verdict {
    /// It passed every rule.
    Record(Record),
    /// It did not. The record id is kept where it could be read.
    Reject {
        /// Why.
        rejection: Rejection,
        /// The id the publisher gave it.
        record_id: Option<String>,
    },
}

impl Rules {
    /// Judges a message.
    pub fn judge(&self, message: &Message) -> Verdict {
        let reject = |rejection, record_id| Verdict::Reject { rejection, record_id };
        let limit = self.settings.record_bytes_max;
        let length = message.payload.len();
        if length > limit {
            let detail = format!("the message has {length} bytes; {limit} are allowed");
            return reject(Rejection::new(Reason::TooLarge, &detail), None);
        }
        let object = match Object::parse(&message.payload, self.settings.nesting_max) {
            Ok(object) => object,
            Err(rejection) => return reject(rejection, None),
        };
        let Some(subject) = Subject::parse(&message.subject) else {
            let detail = format!("subject {} belongs to no lane", quote(&message.subject));
            let record_id = readable_record_id(&object, Table::AuditEvents);
            return reject(Rejection::new(Reason::PrefixMismatch, &detail), record_id);
        };
        match Record::judge(&object, message, subject, self) {
            Ok(record) => Verdict::Record(record),
            Err(rejection) => {
                let record_id = readable_record_id(&object, subject.lane.table());
                reject(envelope::explain(&object, rejection), record_id)
            }
        }
    }
}

impl Verdict {
    /// The record's own id, where it could be read.
    pub fn record_id(&self) -> Option<&str> {
        match self {
            Verdict::Record(record) => Some(record.id()),
            Verdict::Reject { record_id, .. } => record_id.as_deref(),
        }
    }
}
