//! The schema of audit events: what the Action Registry admits, by action, actor and outcome, and the structure of details.

use crate::record::event::{ACTION_CHARS_MAX, FIELDS, UNIX_MS_DIGITS};
use crate::record::lane::Lane;
use crate::record::lengths::{ACTOR_CHARS_MAX, EVENT_ID_CHARS_MAX, OUTCOME_CHARS_MAX, TASK_ID_CHARS_MAX};
use crate::record::registry::{ActionName, Grant};
use crate::record::rules::Rules;
use crate::record::table::Table;
use crate::schema::fields::{any_of, literally, named, object, one_of, text, text_like, timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The schema, without what every record has in common.
pub(crate) fn schema(rules: &Rules) -> Map<String, Value> {
    let settings = &rules.settings;
    let stamped = settings.stamp_missing_timestamp;
    let fields = FIELDS.map(|(name, required)| (name, required && !(stamped && name == "timestamp")));
    let actors = rules.agents.writing();
    let actions: Vec<(&ActionName, &[Grant])> = rules.registry.actions().collect();
    let outcomes: BTreeSet<&str> = actions.iter().flat_map(|(_, grants)| outcomes(grants.iter())).collect();
    let properties = named([
        ("event_id", text_like(&event_id(&audit_prefixes(), settings.any_event_id), EVENT_ID_CHARS_MAX)),
        ("actor", one_of(&actors)),
        ("action", known_action(&actions)),
        ("outcome", json!({ "type": "string", "maxLength": OUTCOME_CHARS_MAX, "enum": outcomes })),
        ("details", json!({ "type": "object" })),
        ("task_id", text(TASK_ID_CHARS_MAX)),
        ("timestamp", timestamp()),
        ("integrity_hash", json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" })),
    ]);
    let mut schema = object("An audit event (LDG-002, table 1).", &fields, properties);
    schema["properties"]["actor"]["maxLength"] = json!(ACTOR_CHARS_MAX);
    let mut parts: Vec<Value> = actions.iter().map(|(name, _)| granted(name, &actions, &actors, rules)).collect();
    parts.extend(details(rules));
    if !settings.any_event_id {
        parts.extend(actors.iter().map(|actor| id_names_the_actor(actor)));
    }
    schema.insert("allOf".to_owned(), Value::Array(parts));
    schema
}

/// The event ids of a lane.
pub(crate) fn of_lane(lane: Lane) -> Value {
    json!({ "properties": { "event_id": { "pattern": format!("^{}-", lane.prefix()) } } })
}

fn audit_prefixes() -> String {
    let lanes = Lane::all().into_iter().filter(|lane| lane.table() == Table::AuditEvents);
    any_of(lanes.map(Lane::prefix))
}

fn event_id(prefixes: &str, any: bool) -> String {
    if any { format!("^({prefixes})-[ -~]*$") } else { format!("^({prefixes})-[\\s\\S]+-[0-9]{{{UNIX_MS_DIGITS}}}$") }
}

fn id_names_the_actor(actor: &str) -> Value {
    let pattern = format!("^[A-Z0-9]+-{}-[0-9]{{{UNIX_MS_DIGITS}}}$", literally(actor));
    json!({
        "if": { "properties": { "actor": { "const": actor } }, "required": ["actor"] },
        "then": { "properties": { "event_id": { "pattern": pattern } } },
    })
}

fn known_action(actions: &[(&ActionName, &[Grant])]) -> Value {
    let names: Vec<&str> = actions.iter().filter_map(|(name, _)| exact(name)).collect();
    let mut forms = vec![json!({ "enum": names })];
    forms.extend(actions.iter().filter(|(name, _)| exact(name).is_none()).map(|(name, _)| named_so(name)));
    json!({ "type": "string", "maxLength": ACTION_CHARS_MAX, "anyOf": forms })
}

fn exact(name: &ActionName) -> Option<&str> {
    if let ActionName::Exact(name) = name { Some(name) } else { None }
}

fn named_so(name: &ActionName) -> Value {
    match name {
        ActionName::Exact(name) => json!({ "const": name }),
        ActionName::Prefixed(stem) => json!({ "pattern": format!("^{}[A-Z0-9_./:-]+$", literally(stem)) }),
    }
}

/// Whether every action of this name is one of the other too.
fn is_within(name: &ActionName, other: &ActionName) -> bool {
    match name {
        ActionName::Exact(name) => other.matches(name),
        ActionName::Prefixed(stem) => name == other || other.matches(stem),
    }
}

fn is_narrower(name: &ActionName, than: &ActionName) -> bool {
    name != than && is_within(name, than)
}

/// The actions of this name that no narrower name has.
fn when_named<'a>(name: &ActionName, others: impl Iterator<Item = &'a ActionName>) -> Value {
    let others: Vec<Value> = others.map(named_so).collect();
    let mut action = named_so(name);
    if !others.is_empty() {
        action["not"] = json!({ "anyOf": others });
    }
    json!({ "properties": { "action": action }, "required": ["action"] })
}

fn outcomes<'a>(grants: impl Iterator<Item = &'a Grant>) -> BTreeSet<&'a str> {
    grants.flat_map(|grant| &grant.outcomes).map(String::as_str).collect()
}

/// Who may use an action, with which outcomes. An action that several names fit has the grants of all.
fn granted(name: &ActionName, actions: &[(&ActionName, &[Grant])], actors: &[&str], rules: &Rules) -> Value {
    let grants: Vec<&Grant> =
        actions.iter().filter(|(other, _)| is_within(name, other)).flat_map(|(_, grants)| *grants).collect();
    // Actors with the same outcomes stand together.
    let mut groups: Vec<(BTreeSet<&str>, Vec<&str>)> = Vec::new();
    for actor in actors {
        let own = outcomes(grants.iter().copied().filter(|grant| grant.admits(actor, &rules.agents)));
        if own.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(outcomes, _)| *outcomes == own) {
            Some((_, members)) => members.push(actor),
            None => groups.push((own, vec![actor])),
        }
    }
    let alternative = |(outcomes, members): &(BTreeSet<&str>, Vec<&str>)| {
        let mut properties = json!({ "outcome": { "enum": outcomes } });
        if members.len() < actors.len() {
            properties["actor"] = json!({ "enum": members });
        }
        json!({ "properties": properties })
    };
    let alternatives: Vec<Value> = groups.iter().map(alternative).collect();
    let then = match <[Value; 1]>::try_from(alternatives) {
        Ok([only]) => only,
        Err(alternatives) if alternatives.is_empty() => json!(false),
        Err(alternatives) => json!({ "anyOf": alternatives }),
    };
    let narrower = actions.iter().map(|(other, _)| *other).filter(|other| is_narrower(other, name));
    json!({ "if": when_named(name, narrower), "then": then })
}

/// The structure of details, where the registry prescribes one. Of several names that fit an action the first counts.
fn details(rules: &Rules) -> Vec<Value> {
    let schemas: Vec<(&ActionName, &Value)> = rules.registry.details_schemas().collect();
    let of_name = |(place, (name, schema)): (usize, &(&ActionName, &Value))| {
        let earlier = schemas[..place].iter().map(|(other, _)| *other);
        let earlier = earlier.filter(|other| is_within(other, name) || is_within(name, other));
        // Null is the same as absent.
        let details = json!({ "if": { "type": "object" }, "then": resource(name, schema) });
        json!({ "if": when_named(name, earlier), "then": { "properties": { "details": details } } })
    };
    schemas.iter().enumerate().map(of_name).collect()
}

/// A schema that refers to its own parts keeps them only as a resource of its own.
fn resource(name: &ActionName, schema: &Value) -> Value {
    let mut schema = schema.clone();
    let is_named = schema.get("$id").is_some();
    if !is_named && has_reference(&schema) {
        let (ActionName::Exact(name) | ActionName::Prefixed(name)) = name;
        schema["$id"] = json!(format!("urn:ledgerd:details:{name}"));
    }
    schema
}

fn has_reference(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.contains_key("$ref") || members.contains_key("$dynamicRef") || members.values().any(has_reference)
        }
        Value::Array(items) => items.iter().any(has_reference),
        _ => false,
    }
}
