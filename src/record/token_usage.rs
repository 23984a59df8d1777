//! Validates token usage (LDG-002, table 2): one model call, to be added to its agent's day.

use crate::record::fields::{Amount, Field, Fields, readable_text};
use crate::record::json::Object;
use crate::record::lengths::{ACTOR_CHARS_MAX, EVENT_ID_CHARS_MAX, TASK_ID_CHARS_MAX, TIMESTAMP_CHARS_MAX};
use crate::record::message::{Message, utc_text};
use crate::record::model_tiers::{TIER_CHARS_MAX, is_tier};
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::rules::Rules;
use crate::record::subject::Subject;
use crate::record::timestamp::EventTime;

/// One model call, as its publisher reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUsage {
    pub agent_name: String,
    /// The publisher's own id; where it gave none, the message's place in its stream.
    pub usage_id: String,
    /// The publisher gave the id.
    pub usage_id_given: bool,
    /// The UTC day: of the timestamp, or else of the moment at which the server stored the message. `YYYY-MM-DD`.
    pub date: String,
    /// Tokens read by the model.
    pub tokens_input: i64,
    /// Tokens written by the model.
    pub tokens_output: i64,
    pub cost: Cost,
    /// The tier, where it was given.
    pub model_tier: Option<String>,
    pub model_used: Option<String>,
    /// The task this usage traces to.
    pub task_id: Option<String>,
    /// What the call was for.
    pub operation_type: Option<String>,
    /// When it happened, where it was given.
    pub time: Option<EventTime>,
    /// When the server stored the message, in nanoseconds since 1970: the rates of that moment count.
    pub published_ns: i64,
    /// Whose limit binds the agent when it has none of its own: its group in the agent registry, in capitals.
    pub budget_group: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// So many USD, as the publisher says.
    Given(Amount),
    /// Tokens at the rates that were in force for this tier.
    AtRatesOf(String),
}

impl Cost {
    pub fn given(&self) -> Option<&Amount> {
        if let Cost::Given(amount) = self { Some(amount) } else { None }
    }

    /// The tier whose rates tell the cost.
    pub fn tier(&self) -> Option<&str> {
        if let Cost::AtRatesOf(tier) = self { Some(tier) } else { None }
    }
}

impl TokenUsage {
    /// The publisher's own text of the timestamp, where it gave one.
    pub fn timestamp_text(&self) -> Option<&str> {
        self.time.as_ref().map(EventTime::text)
    }
}

pub(crate) const FIELDS: [Field; 10] = [
    ("agent_name", true),
    ("tokens_input", true),
    ("tokens_output", true),
    ("usage_id", false),
    ("timestamp", false),
    ("model_tier", false),
    ("model_used", false),
    ("cost_usd", false),
    ("task_id", false),
    ("operation_type", false),
];

pub(crate) const MODEL_CHARS_MAX: usize = 255;
/// One call. More is a slip of the point, and would spoil the day's sum for ever.
pub(crate) const COST_USD_MAX: f64 = 1_000_000.0;

impl TokenUsage {
    /// Judges an object against every rule of its lane.
    pub(crate) fn judge(
        object: &Object<'_>,
        message: &Message,
        subject: Subject<'_>,
        rules: &Rules,
    ) -> Result<Self, Rejection> {
        let fields = Fields::of("a token usage", object, &FIELDS)?;
        let agent_name = fields.text("agent_name", ACTOR_CHARS_MAX)?;
        let given_id = fields.optional_text("usage_id", EVENT_ID_CHARS_MAX)?;
        let tokens_input = fields.count("tokens_input")?;
        let tokens_output = fields.count("tokens_output")?;
        let cost = fields.optional_amount("cost_usd", 0.0..=COST_USD_MAX)?;
        let model_tier = fields.optional_text("model_tier", TIER_CHARS_MAX)?;
        let model_used = fields.optional_text("model_used", MODEL_CHARS_MAX)?;
        let task_id = fields.optional_text("task_id", TASK_ID_CHARS_MAX)?;
        let operation_type = fields.optional_text("operation_type", MODEL_CHARS_MAX)?;
        let timestamp = fields.optional_text("timestamp", TIMESTAMP_CHARS_MAX)?;

        if !rules.settings.writers.token_reporters.iter().any(|reporter| reporter == subject.actor) {
            subject.admit("agent_name", agent_name)?;
        }
        rules.agents.admit(subject.actor)?;
        rules.agents.admit(agent_name)?;
        if given_id == Some("") {
            return Err(Rejection::new(
                Reason::BadEventId,
                "usage_id is empty; leave it out, or give each call its own",
            ));
        }
        if let Some(tier) = model_tier.filter(|tier| !is_tier(tier)) {
            return Err(Rejection::new(
                Reason::DetailsMismatch,
                &format!("model_tier {} is not a name in capitals, such as STANDARD", quote(tier)),
            ));
        }
        let time = timestamp.map(|text| EventTime::parse(text.to_owned())).transpose()?;
        let cost = match cost {
            Some(amount) => Cost::Given(amount),
            None => Cost::AtRatesOf(tier(model_tier, model_used, rules)?),
        };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self {
            agent_name: agent_name.to_owned(),
            usage_id: given_id.map_or_else(|| message.place(), str::to_owned),
            usage_id_given: given_id.is_some(),
            date: match &time {
                Some(time) => time.utc_date(),
                None => utc_text(message.server_time_ns).chars().take("YYYY-MM-DD".len()).collect(),
            },
            tokens_input,
            tokens_output,
            cost,
            model_tier: owned(model_tier),
            model_used: owned(model_used),
            task_id: owned(task_id),
            operation_type: owned(operation_type),
            time,
            published_ns: message.server_time_ns,
            budget_group: rules.agents.group(agent_name).map(str::to_uppercase),
        })
    }
}

/// Whose rates a call without a cost is charged at.
fn tier(given: Option<&str>, model: Option<&str>, rules: &Rules) -> Result<String, Rejection> {
    if let Some(tier) = given {
        return Ok(tier.to_owned());
    }
    let Some(model) = model else {
        return Err(Rejection::new(
            Reason::MissingField,
            "one of cost_usd, model_tier and model_used is required, and all are absent",
        ));
    };
    rules.settings.model_tiers.tier_of(model).map(str::to_owned).ok_or_else(|| {
        Rejection::new(
            Reason::UnknownReference,
            &format!(
                "model_used {} is of no known tier; add a pattern to tokens.model_tiers, set tokens.unknown_model, or send model_tier or cost_usd",
                quote(model)
            ),
        )
    })
}

/// The usage id of a message that may be bad in any other way.
pub(crate) fn readable_usage_id(object: &Object<'_>) -> Option<String> {
    readable_text(object, "usage_id", EVENT_ID_CHARS_MAX)
}
