//! The schema of decision trails.

use crate::record::event::UNIX_MS_DIGITS;
use crate::record::lengths::EVENT_ID_CHARS_MAX;
use crate::record::rules::Rules;
use crate::record::trail::{COUNCIL, FIELDS, OUTCOMES, VOTES};
use crate::schema::fields::{named, object, one_of, text, text_like};
use serde_json::{Map, Value, json};

/// The schema, without what every record has in common.
pub(crate) fn schema(rules: &Rules) -> Map<String, Value> {
    let agents = &rules.agents;
    let writing = agents.writing();
    let council: Vec<&str> = agents.members(COUNCIL).into_iter().filter(|member| writing.contains(member)).collect();
    let properties = named([
        ("trail_id", text_like(&format!("^TRAIL-[\\s\\S]+-[0-9]{{{UNIX_MS_DIGITS}}}$"), EVENT_ID_CHARS_MAX)),
        (
            "council_vote",
            json!({ "type": "object", "propertyNames": { "enum": council }, "additionalProperties": one_of(&VOTES) }),
        ),
        (
            "proposal",
            json!({
                "type": "object", "required": ["proposal_id"],
                "properties": { "proposal_id": { "type": "string", "minLength": 1 } },
            }),
        ),
        ("outcome", one_of(&OUTCOMES)),
        ("ledger_ref", text(EVENT_ID_CHARS_MAX)),
    ]);
    let mut schema = object("The council's votes on a proposal (LDG-002, table 3).", &FIELDS, properties);
    // Nobody's votes decide nothing.
    schema.insert("if".to_owned(), json!({ "properties": { "outcome": { "enum": ["APPROVED", "REJECTED"] } } }));
    schema.insert("then".to_owned(), json!({ "properties": { "council_vote": { "minProperties": 1 } } }));
    schema
}
