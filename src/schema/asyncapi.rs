//! The `AsyncAPI` 3.0 document of the subjects: what the ledger receives on its lanes, and what it sends.

use crate::record::lane::Lane;
use crate::record::message::MESSAGE_ID;
use crate::record::own_lanes::own_lanes;
use crate::record::receipt::{HEADER as RECEIPT_HEADER, YES};
use crate::record::reject::Reason;
use crate::record::rules::Rules;
use crate::record::table::Table;
use crate::schema::event;
use crate::schema::fields::{Definitions, timestamp};
use crate::schema::records::{Kind, definitions};
use serde_json::{Map, Value, json};

const AT: Definitions = Definitions::OF_ASYNCAPI;

pub(crate) fn document(rules: &Rules) -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    for lane in Lane::all() {
        let name = lane.prefix();
        channels.insert(name.to_owned(), channel_of(lane, rules));
        operations.insert(format!("receive{name}"), operation("receive", name));
        messages.insert(name.to_owned(), record_message(lane, rules));
    }
    for sent in [dead_letters(), receipts(), alerts()] {
        let Sent { name, address, parameters, message, description } = sent;
        let channel = json!({
            "address": address, "parameters": parameters, "description": description,
            "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
        });
        channels.insert(name.to_owned(), channel);
        operations.insert(format!("send{name}"), operation("send", name));
        messages.insert(name.to_owned(), message);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "ledgerd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every message on a lane becomes one durable row, a record or a dead letter. NATS JetStream carries them.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas(rules) },
    })
}

/// The schemas of the records, and those of what the ledger itself writes.
fn schemas(rules: &Rules) -> Map<String, Value> {
    let mut schemas = definitions(rules, AT);
    schemas.insert(RECEIPT.to_owned(), receipt());
    schemas.insert(ALERT.to_owned(), alert());
    schemas
}

fn operation(action: &str, channel: &str) -> Value {
    json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") } })
}

fn channel_of(lane: Lane, rules: &Rules) -> Value {
    let name = lane.prefix();
    let own: Vec<&str> =
        rules.agents.writing().into_iter().filter(|actor| own_lanes(actor, rules).contains(&lane)).collect();
    let mut actor = json!({ "description": "Who publishes: the credentials decide." });
    // By default a lane takes what any registered agent may say, so the list says who is given the subject, and is no rule.
    if !own.is_empty() {
        actor["examples"] = json!(own);
    }
    if let Some(field) = actor_field(lane.table()) {
        actor["location"] = json!(format!("$message.payload#/{field}"));
    }
    json!({
        "address": format!("ledger.{name}.{{actor}}"),
        "description": format!("The lane {name}, which fills the table {}.", lane.table().name()),
        "parameters": { "actor": actor },
        "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
    })
}

/// The field of a payload that must be the last token of the subject.
fn actor_field(table: Table) -> Option<&'static str> {
    match table {
        Table::AuditEvents => Some("actor"),
        Table::EconomicMetrics => Some("set_by"),
        // A reporter may name another agent, and a trail or a use of a tool does not name its publisher.
        Table::TokenLedger | Table::DecisionTrails | Table::ToolUsageLedger => None,
    }
}

fn record_message(lane: Lane, rules: &Rules) -> Value {
    let kind = AT.reference(Kind::of(lane.table()).name());
    let payload =
        if lane.table() == Table::AuditEvents { json!({ "allOf": [kind, event::of_lane(lane)] }) } else { kind };
    json!({
        "name": lane.prefix(),
        "description": format!("One record of at most {} bytes, without an envelope.", rules.settings.record_bytes_max),
        "headers": {
            "type": "object",
            "properties": {
                MESSAGE_ID: { "type": "string", "description": "The stream takes a second message of this id for the same." },
                RECEIPT_HEADER: { "type": "string", "const": YES, "description": "Asks for a receipt." },
            },
        },
        "payload": payload,
    })
}

/// What the ledger publishes.
struct Sent {
    name: &'static str,
    address: &'static str,
    parameters: Value,
    message: Value,
    description: &'static str,
}

const RECEIPT: &str = "receipt";
const ALERT: &str = "budget-alert";

fn dead_letters() -> Sent {
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let text = || json!({ "type": "string" });
    let message = json!({
        "name": "DeadLetter",
        "description": "The publisher's own bytes, whatever they are, and its headers beside these.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "required": ["Ledger-Reason", "Ledger-Detail", "Ledger-Stream", "Ledger-Epoch", "Ledger-Sequence", "Ledger-Subject",
                "Ledger-Received-At", "Ledger-Rejected-At"],
            "properties": {
                "Ledger-Reason": { "type": "string", "enum": reasons },
                "Ledger-Detail": text(), "Ledger-Stream": text(), "Ledger-Epoch": text(), "Ledger-Sequence": text(),
                "Ledger-Subject": text(), "Ledger-Received-At": timestamp(), "Ledger-Rejected-At": timestamp(),
            },
        },
        "payload": { "description": "Any bytes." },
    });
    Sent {
        name: "DeadLetter",
        address: "dlq.ledger.{lane}.{actor}.{reference}",
        parameters: json!({
            "lane": { "description": "The lane that it came on, or UNKNOWN." },
            "actor": { "description": "Who published it." },
            "reference": { "description": "Names the message for ever: its epoch and its sequence." },
        }),
        message,
        description: "A message that is no record, with the reason.",
    }
}

fn receipts() -> Sent {
    Sent {
        name: "Receipt",
        address: "receipt.{actor}.{record}",
        parameters: json!({
            "actor": { "description": "Who published the record." },
            "record": { "description": "The record's id, its message id, or seq- and its sequence." },
        }),
        message: json!({ "name": "Receipt", "payload": AT.reference(RECEIPT) }),
        description: "What became of a message whose publisher asked.",
    }
}

fn receipt() -> Value {
    let text = || json!({ "type": ["string", "null"] });
    let digest = |nullable: bool| {
        let of_type = if nullable { json!(["string", "null"]) } else { json!("string") };
        json!({ "type": of_type, "pattern": "^[0-9a-f]{64}$" })
    };
    json!({
        "title": RECEIPT,
        "type": "object",
        "required": ["status", "leaf_hash", "leaf_index", "committed_at", "stream", "sequence", "subject"],
        "properties": {
            "status": { "type": "string", "enum": ["LOGGED", "DUPLICATE", "REJECTED"] },
            "event_id": text(),
            "integrity_hash": digest(true),
            "leaf_hash": digest(false),
            "leaf_index": { "type": "integer", "minimum": 0 },
            "payload_sha256": digest(true),
            "committed_at": timestamp(),
            "reason": text(),
            "detail": text(),
            "stream": { "type": "string" },
            "sequence": { "type": "integer", "minimum": 1 },
            "subject": { "type": "string" },
        },
    })
}

fn alerts() -> Sent {
    Sent {
        name: "BudgetAlert",
        address: "alert.budget.{agent}",
        parameters: json!({ "agent": { "description": "Whose day it is." } }),
        message: json!({ "name": "BudgetAlert", "payload": AT.reference(ALERT) }),
        description: "A change of a day's status.",
    }
}

fn alert() -> Value {
    let status = || json!({ "type": "string", "enum": ["GREEN", "YELLOW", "RED", "EXCEEDED"] });
    let usd = || json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$" });
    let properties = json!({
        "agent_name": { "type": "string" }, "date": { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" },
        "old_status": status(), "new_status": status(), "spent_usd": usd(), "limit_usd": usd(),
        "limit_key": { "type": "string" }, "raised_at": timestamp(),
    });
    let required: Vec<&str> = properties.as_object().into_iter().flat_map(|it| it.keys()).map(String::as_str).collect();
    json!({ "title": ALERT, "type": "object", "required": required, "properties": properties })
}
