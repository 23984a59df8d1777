//! The verdict on a message: a record, or a reject with its reason. Judging is total and pure, on any bytes.

use crate::record::envelope;
use crate::record::json::Object;
use crate::record::kinds::{Record, readable_record_id};
use crate::record::message::Message;
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::rules::Rules;
use crate::record::subject::Subject;
use crate::record::table::Table;

/// What becomes of a message: one of these two, always.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost every message is a record")]
pub enum Verdict {
    /// It passed every rule.
    Record(Record),
    /// It did not. The record id is kept where it could be read.
    Reject {
        rejection: Rejection,
        /// The id the publisher gave it.
        record_id: Option<String>,
    },
}

impl Rules {
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
