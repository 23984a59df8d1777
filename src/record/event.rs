//! Validates audit events (LDG-002, table 1): takes a message, and returns an audit event or a rejection.

use crate::record::digest::hex;
use crate::record::fields::{Field, Fields, readable_text};
use crate::record::json::Object;
use crate::record::lane::Lane;
use crate::record::lengths::{
    ACTOR_CHARS_MAX, EVENT_ID_CHARS_MAX, OUTCOME_CHARS_MAX, TASK_ID_CHARS_MAX, TIMESTAMP_CHARS_MAX,
};
use crate::record::message::{Message, utc_text};
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::rules::Rules;
use crate::record::stored_id::ContentFingerprint;
use crate::record::subject::Subject;
use crate::record::table::Table;
use crate::record::timestamp::EventTime;
use sha2::{Digest, Sha256};

/// An audit event that passed every rule: exactly what its row in `audit_events` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// `{PREFIX}-{ACTOR}-{suffix}`, as the publisher gave it.
    pub event_id: String,
    pub actor: String,
    /// The action, as the registry knows it.
    pub action: String,
    /// One of the action's outcomes.
    pub outcome: String,
    /// The publisher's own text of the `details` object.
    pub details: Option<String>,
    /// The task this event traces to.
    pub task_id: Option<String>,
    pub time: EventTime,
    /// The publisher gave no timestamp, and the server's was taken: another copy of the same event has another one.
    pub stamped: bool,
    /// The specification's hash, 64 lowercase hexadecimal digits.
    pub integrity_hash: String,
    /// What tells it from others of its id, where these are no conflict.
    pub fingerprint: Option<ContentFingerprint>,
}

/// LDG-002, "Integrity Hash Computation": SHA-256 over the five texts, one after the other, in hexadecimal.
pub fn integrity_hash(event_id: &str, actor: &str, action: &str, outcome: &str, timestamp: &str) -> String {
    let mut hasher = Sha256::new();
    for text in [event_id, actor, action, outcome, timestamp] {
        hasher.update(text);
    }
    hex(&hasher.finalize())
}

/// The fields of a message, and whether each must be there.
pub(crate) const FIELDS: [Field; 8] = [
    ("event_id", true),
    ("actor", true),
    ("action", true),
    ("outcome", true),
    ("details", false),
    ("task_id", false),
    ("timestamp", true),
    ("integrity_hash", false),
];

pub(crate) const ACTION_CHARS_MAX: usize = 255;
pub(crate) const UNIX_MS_DIGITS: usize = 13;

impl AuditEvent {
    /// Judges an object against every rule of its lane.
    pub(crate) fn judge(
        object: &Object<'_>,
        message: &Message,
        subject: Subject<'_>,
        rules: &Rules,
    ) -> Result<Self, Rejection> {
        let stamped = rules.settings.stamp_missing_timestamp && object.get("timestamp").is_none();
        let known = FIELDS.map(|(name, required)| (name, required && !(stamped && name == "timestamp")));
        let fields = Fields::of("an audit event", object, &known)?;

        let event_id = fields.text("event_id", EVENT_ID_CHARS_MAX)?;
        let actor = fields.text("actor", ACTOR_CHARS_MAX)?;
        let action = fields.text("action", ACTION_CHARS_MAX)?;
        let outcome = fields.text("outcome", OUTCOME_CHARS_MAX)?;
        let task_id = fields.optional_text("task_id", TASK_ID_CHARS_MAX)?;
        let given_hash = fields.optional_text("integrity_hash", usize::MAX)?;
        let timestamp = if stamped {
            utc_text(message.first_time_ns())
        } else {
            fields.text("timestamp", TIMESTAMP_CHARS_MAX)?.to_owned()
        };

        subject.admit("actor", actor)?;
        rules.agents.admit(actor)?;
        check_event_id(event_id, subject.lane, actor, rules.settings.any_event_id)?;
        rules.registry.admit(actor, action, outcome, &rules.agents)?;
        let time = EventTime::parse(timestamp)?;
        let details = fields.optional_object("details")?;
        if let Some((details, _)) = details {
            rules.registry.check_details(action, details)?;
        }
        let integrity_hash = integrity_hash(event_id, actor, action, outcome, time.text());
        if let Some(given) = given_hash
            && !given.eq_ignore_ascii_case(&integrity_hash)
        {
            return Err(Rejection::new(
                Reason::HashMismatch,
                &format!("integrity_hash is {}, and the specification's formula yields {integrity_hash}", quote(given)),
            ));
        }
        Ok(Self {
            event_id: event_id.to_owned(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            outcome: outcome.to_owned(),
            details: details.map(|(_, text)| text.to_owned()),
            task_id: task_id.map(str::to_owned),
            time,
            stamped,
            integrity_hash,
            fingerprint: rules.settings.distinct_repeated_ids.then(|| ContentFingerprint::of(message, !stamped)),
        })
    }

    /// The same event under another id.
    #[must_use]
    pub fn stored_as(mut self, event_id: String) -> Self {
        self.integrity_hash = integrity_hash(&event_id, &self.actor, &self.action, &self.outcome, self.time.text());
        self.event_id = event_id;
        self
    }
}

/// The event id of a message that may be bad in any other way.
pub(crate) fn readable_event_id(object: &Object<'_>) -> Option<String> {
    readable_text(object, "event_id", EVENT_ID_CHARS_MAX)
}

/// `{PREFIX}-{ACTOR}-{unix ms, 13 digits}`; with `any`, the lane's prefix and then any printable ASCII characters, or none.
fn check_event_id(event_id: &str, lane: Lane, actor: &str, any: bool) -> Result<(), Rejection> {
    let form = if any { format!("{lane}-{{printable ASCII}}") } else { format!("{lane}-{actor}-{{suffix}}") };
    let bad = |what: &str| {
        Err(Rejection::new(Reason::BadEventId, &format!("event_id {} {what}; it must be {form}", quote(event_id))))
    };
    let Some((prefix, rest)) = event_id.split_once('-') else { return bad("has no prefix") };
    let named = prefix.parse::<Lane>().ok().filter(|lane| lane.table() == Table::AuditEvents);
    let Some(named) = named else { return bad("begins with no known prefix") };
    if named != lane {
        return Err(Rejection::new(
            Reason::PrefixMismatch,
            &format!("event_id {} has the prefix {named}, and came on the lane {lane}", quote(event_id)),
        ));
    }
    if any {
        let is_printable = rest.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        return if is_printable { Ok(()) } else { bad("has characters that are no printable ASCII") };
    }
    match rest.strip_prefix(actor).and_then(|rest| rest.strip_prefix('-')) {
        Some(suffix) if is_unix_ms(suffix) => Ok(()),
        Some(_) => bad("must end in Unix milliseconds of 13 digits"),
        None => match rest.rsplit_once('-') {
            Some((other, suffix)) if is_unix_ms(suffix) => Err(Rejection::new(
                Reason::ActorMismatch,
                &format!(
                    "event_id {} names the actor {}, and the actor is {}",
                    quote(event_id),
                    quote(other),
                    quote(actor)
                ),
            )),
            _ => bad("does not name the actor after its prefix"),
        },
    }
}

pub(crate) fn is_unix_ms(text: &str) -> bool {
    text.len() == UNIX_MS_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
