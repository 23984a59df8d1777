//! Which events are good? LDG-002, table 1: a message in, an audit event or a rejection out.

use super::json::{Object, type_name};
use super::message::{Message, utc_text};
use super::reject::{Reason, Rejection, quote};
use super::rules::Rules;
use super::subject::{Lane, Subject};
use super::timestamp::EventTime;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// An audit event that passed every rule: exactly what its row in `audit_events` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// `{PREFIX}-{ACTOR}-{suffix}`.
    pub event_id: String,
    /// The registered agent.
    pub actor: String,
    /// The action, as the registry knows it.
    pub action: String,
    /// One of the action's outcomes.
    pub outcome: String,
    /// The publisher's own text of the `details` object.
    pub details: Option<String>,
    /// The task this event traces to.
    pub task_id: Option<String>,
    /// When it happened.
    pub time: EventTime,
    /// The publisher gave no timestamp, and the server's was taken: another copy of the same event has another one.
    pub stamped: bool,
    /// The specification's hash, 64 lowercase hexadecimal digits.
    pub integrity_hash: String,
}

/// LDG-002, "Integrity Hash Computation": SHA-256 over the five texts, one after the other, in hexadecimal.
pub fn integrity_hash(event_id: &str, actor: &str, action: &str, outcome: &str, timestamp: &str) -> String {
    let mut hasher = Sha256::new();
    for text in [event_id, actor, action, outcome, timestamp] {
        hasher.update(text);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fields of a message, and whether each must be there.
const FIELDS: [(&str, bool); 8] = [
    ("event_id", true),
    ("actor", true),
    ("action", true),
    ("outcome", true),
    ("details", false),
    ("task_id", false),
    ("timestamp", true),
    ("integrity_hash", false),
];

const EVENT_ID_CHARS_MAX: usize = 255;
/// `actor VARCHAR(50)`.
pub(crate) const ACTOR_CHARS_MAX: usize = 50;
const ACTION_CHARS_MAX: usize = 255;
/// `outcome VARCHAR(32)`.
pub(crate) const OUTCOME_CHARS_MAX: usize = 32;
const TASK_ID_CHARS_MAX: usize = 255;
const TIMESTAMP_CHARS_MAX: usize = 64;
const UNIX_MS_DIGITS: usize = 13;

impl AuditEvent {
    /// Judges an object against every rule of its lane.
    pub(crate) fn judge(object: &Object<'_>, message: &Message, rules: &Rules) -> Result<Self, Rejection> {
        let subject = Subject::parse(&message.subject).ok_or_else(|| {
            Rejection::new(Reason::PrefixMismatch, &format!("subject {} belongs to no lane", quote(&message.subject)))
        })?;
        let stamped = rules.settings.stamp_missing_timestamp && object.get("timestamp").is_none();
        check_fields(object, stamped)?;

        let event_id = text(object, "event_id", EVENT_ID_CHARS_MAX)?;
        let actor = text(object, "actor", ACTOR_CHARS_MAX)?;
        let action = text(object, "action", ACTION_CHARS_MAX)?;
        let outcome = text(object, "outcome", OUTCOME_CHARS_MAX)?;
        let task_id = optional_text(object, "task_id", TASK_ID_CHARS_MAX)?;
        let given_hash = optional_text(object, "integrity_hash", usize::MAX)?;
        let timestamp = if stamped {
            utc_text(message.server_time_ns)
        } else {
            text(object, "timestamp", TIMESTAMP_CHARS_MAX)?.to_owned()
        };

        if actor != subject.actor {
            return Err(Rejection::new(
                Reason::ActorMismatch,
                &format!("actor {} is not {}, the last token of the subject", quote(actor), quote(subject.actor)),
            ));
        }
        rules.agents.admit(actor)?;
        check_event_id(event_id, subject.lane, actor, rules.settings.any_event_id_suffix)?;
        rules.registry.admit(actor, action, outcome, &rules.agents)?;
        let time = EventTime::parse(timestamp)?;
        if let Some(details) = object.get("details") {
            if !details.is_object() {
                return Err(wrong_type("details", "an object", details));
            }
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
            details: object.text_of("details").map(str::to_owned),
            task_id: task_id.map(str::to_owned),
            time,
            stamped,
            integrity_hash,
        })
    }
}

/// The event id of a message that may be bad in any other way.
pub(crate) fn readable_event_id(object: &Object<'_>) -> Option<String> {
    text(object, "event_id", EVENT_ID_CHARS_MAX).ok().filter(|id| !id.is_empty()).map(str::to_owned)
}

fn check_fields(object: &Object<'_>, stamped: bool) -> Result<(), Rejection> {
    for (name, required) in FIELDS {
        if required && object.get(name).is_none() && !(name == "timestamp" && stamped) {
            return Err(Rejection::new(Reason::MissingField, &format!("the field {name} is required and absent")));
        }
    }
    if let Some(unknown) = object.keys().find(|key| FIELDS.iter().all(|(name, _)| name != key)) {
        let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        return Err(Rejection::new(
            Reason::UnknownField,
            &format!("the field {} is unknown; an audit event has {}", quote(unknown), known.join(", ")),
        ));
    }
    Ok(())
}

fn text<'o>(object: &'o Object<'_>, field: &str, chars_max: usize) -> Result<&'o str, Rejection> {
    optional_text(object, field, chars_max)?
        .ok_or_else(|| Rejection::new(Reason::MissingField, &format!("the field {field} is required and absent")))
}

fn optional_text<'o>(object: &'o Object<'_>, field: &str, chars_max: usize) -> Result<Option<&'o str>, Rejection> {
    let Some(value) = object.get(field) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| wrong_type(field, "a string", value))?;
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(Rejection::new(
            Reason::TooLong,
            &format!("{field} has {chars} characters; {chars_max} are allowed"),
        ));
    }
    Ok(Some(text))
}

fn wrong_type(field: &str, expected: &str, found: &Value) -> Rejection {
    Rejection::new(Reason::WrongType, &format!("{field} must be {expected}, and is {}", type_name(found)))
}

/// `{PREFIX}-{ACTOR}-{unix ms, 13 digits}`; with `any_suffix`, any well-formed suffix in the place of the digits.
fn check_event_id(event_id: &str, lane: Lane, actor: &str, any_suffix: bool) -> Result<(), Rejection> {
    let bad = |what: &str| {
        Err(Rejection::new(
            Reason::BadEventId,
            &format!("event_id {} {what}; it must be {lane}-{actor}-{{suffix}}", quote(event_id)),
        ))
    };
    let Some((prefix, rest)) = event_id.split_once('-') else { return bad("has no prefix") };
    let Ok(named) = prefix.parse::<Lane>() else { return bad("begins with no known prefix") };
    if named != lane {
        return Err(Rejection::new(
            Reason::PrefixMismatch,
            &format!("event_id {} has the prefix {named}, and came on the lane {lane}", quote(event_id)),
        ));
    }
    let Some(suffix) = rest.strip_prefix(actor).and_then(|rest| rest.strip_prefix('-')) else {
        return match rest.rsplit_once('-') {
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
        };
    };
    if any_suffix {
        if suffix.is_empty() || !suffix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return bad("must end in a suffix of printable ASCII characters without spaces");
        }
    } else if !is_unix_ms(suffix) {
        return bad("must end in Unix milliseconds of 13 digits");
    }
    Ok(())
}

fn is_unix_ms(text: &str) -> bool {
    text.len() == UNIX_MS_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
