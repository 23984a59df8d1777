//! The schema of token usage.

use crate::record::lengths::{EVENT_ID_CHARS_MAX, TASK_ID_CHARS_MAX};
use crate::record::model_tiers::TIER_CHARS_MAX;
use crate::record::rules::Rules;
use crate::record::token_usage::{COST_USD_MAX, FIELDS, MODEL_CHARS_MAX};
use crate::schema::fields::{amount, count, named, object, one_of, text, text_like, timestamp};
use serde_json::{Map, Value, json};

/// The schema, without what every record has in common.
pub(crate) fn schema(rules: &Rules) -> Map<String, Value> {
    let mut usage_id = text(EVENT_ID_CHARS_MAX);
    usage_id["minLength"] = json!(1);
    let properties = named([
        ("agent_name", one_of(&rules.agents.writing())),
        ("tokens_input", count()),
        ("tokens_output", count()),
        ("usage_id", usage_id),
        ("timestamp", timestamp()),
        ("model_tier", text_like("^[A-Z][A-Z0-9_]*$", TIER_CHARS_MAX)),
        ("model_used", text(MODEL_CHARS_MAX)),
        ("cost_usd", amount(&(0.0..=COST_USD_MAX))),
        ("task_id", text(TASK_ID_CHARS_MAX)),
        ("operation_type", text(MODEL_CHARS_MAX)),
    ]);
    let mut schema = object("A model call, which is added to its agent's day (LDG-002, table 2).", &FIELDS, properties);
    // One of them says what the call cost.
    let given = ["cost_usd", "model_tier", "model_used"]
        .map(|field| json!({ "required": [field], "properties": { field: { "type": ["string", "number"] } } }));
    schema.insert("anyOf".to_owned(), json!(given));
    schema
}
