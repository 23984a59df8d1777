//! The schema of tool usage.

use crate::record::tool_usage::{COST_USD_MAX, FIELDS};
use crate::schema::fields::{amount, count, named, object, timestamp, uuid};
use serde_json::{Map, Value};

/// The schema, without what every record has in common.
pub(crate) fn schema() -> Map<String, Value> {
    let properties = named([
        ("agent_id", uuid()),
        ("tool_id", uuid()),
        ("id", uuid()),
        ("venture_id", uuid()),
        ("tokens_consumed", count()),
        ("cost_usd", amount(&(0.0..=COST_USD_MAX))),
        ("execution_ms", count()),
        ("created_at", timestamp()),
    ]);
    object("A use of a tool (the document tool_usage_ledger).", &FIELDS, properties)
}
