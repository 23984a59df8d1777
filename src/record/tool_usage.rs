//! Validates tool usage (the document `tool_usage_ledger`): one use of a tool, with its tokens, cost and duration.

use crate::record::digest::hex;
use crate::record::fields::{Amount, Field, Fields, as_uuid};
use crate::record::json::Object;
use crate::record::lengths::TIMESTAMP_CHARS_MAX;
use crate::record::message::{Message, utc_text};
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::rules::Rules;
use crate::record::subject::Subject;
use crate::record::timestamp::EventTime;
use sha2::{Digest as _, Sha256};

/// A use of a tool that passed every rule: exactly what its row in `tool_usage_ledger` says. The ids are lowercase UUIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolUsage {
    /// The publisher's own id; where it gave none, one that is derived from the message's place in its stream.
    pub id: String,
    pub agent_id: String,
    pub venture_id: Option<String>,
    pub tool_id: String,
    pub tokens_consumed: i64,
    /// USD it took; the column keeps six places.
    pub cost_usd: Option<Amount>,
    /// Milliseconds it took.
    pub execution_ms: Option<i64>,
    /// When, in UTC: as given, or else when the server stored the message.
    pub created_at: String,
    pub created_at_given: bool,
}

pub(crate) const FIELDS: [Field; 8] = [
    ("agent_id", true),
    ("tool_id", true),
    ("id", false),
    ("venture_id", false),
    ("tokens_consumed", false),
    ("cost_usd", false),
    ("execution_ms", false),
    ("created_at", false),
];

/// `cost_usd NUMERIC(10,6)`: what rounds up to 10,000 does not fit.
pub(crate) const COST_USD_MAX: f64 = 9_999.999_999;

impl ToolUsage {
    /// Judges an object against every rule of its lane.
    pub(crate) fn judge(
        object: &Object<'_>,
        message: &Message,
        subject: Subject<'_>,
        rules: &Rules,
    ) -> Result<Self, Rejection> {
        let fields = Fields::of("a tool usage", object, &FIELDS)?;
        let given_id = optional_uuid(&fields, "id", Reason::BadEventId)?;
        let agent_id = uuid(&fields, "agent_id")?;
        let tool_id = uuid(&fields, "tool_id")?;
        let venture_id = optional_uuid(&fields, "venture_id", Reason::WrongType)?;
        let tokens_consumed = fields.optional_count("tokens_consumed")?.unwrap_or(0);
        let cost_usd = fields.optional_amount("cost_usd", 0.0..=COST_USD_MAX)?;
        let execution_ms = fields.optional_count("execution_ms")?;
        let created_at = fields.optional_text("created_at", TIMESTAMP_CHARS_MAX)?;

        // The registries of tools know agents by UUID: the subject names the agent so too, or it names a registered actor.
        if let Some(publisher) = as_uuid(subject.actor) {
            if publisher != agent_id {
                subject.admit("agent_id", &agent_id)?;
            }
        } else {
            rules.agents.admit(subject.actor)?;
            rules.settings.writers.admit_to_tool_usage(subject.actor, &agent_id)?;
        }
        let time = created_at.map(|text| EventTime::parse_field("created_at", text.to_owned())).transpose()?;
        Ok(Self {
            id: given_id.unwrap_or_else(|| derived_uuid(message)),
            agent_id,
            venture_id,
            tool_id,
            tokens_consumed,
            cost_usd,
            execution_ms,
            created_at: match &time {
                Some(time) => format!("{}Z", time.utc()),
                None => utc_text(message.server_time_ns),
            },
            created_at_given: time.is_some(),
        })
    }
}

/// The id of a message that may be bad in any other way.
pub(crate) fn readable_id(object: &Object<'_>) -> Option<String> {
    as_uuid(object.get("id")?.as_str()?)
}

fn uuid(fields: &Fields<'_, '_>, field: &str) -> Result<String, Rejection> {
    let text = fields.text(field, usize::MAX)?;
    as_uuid(text).ok_or_else(|| no_uuid(field, text, Reason::WrongType))
}

fn optional_uuid(fields: &Fields<'_, '_>, field: &str, reason: Reason) -> Result<Option<String>, Rejection> {
    let Some(text) = fields.optional_text(field, usize::MAX)? else { return Ok(None) };
    as_uuid(text).map(Some).ok_or_else(|| no_uuid(field, text, reason))
}

fn no_uuid(field: &str, found: &str, reason: Reason) -> Rejection {
    let detail =
        format!("{field} is {}; it must be a UUID, such as 123e4567-e89b-42d3-a456-426614174000", quote(found));
    Rejection::new(reason, &detail)
}

/// RFC 9562, version 8: the same for the same message in every database, so that a replay finds its row again. The subject is in it,
/// for anybody may name the place of another's message in a header, and nobody publishes on another's subject.
pub(crate) fn derived_uuid(message: &Message) -> String {
    let digest = Sha256::digest(format!("ledgerd tool usage {} {}", message.subject, message.place()));
    let mut bytes: [u8; 16] = digest[..16].try_into().expect("a digest has 32 bytes");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
