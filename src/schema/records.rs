//! The JSON Schemas of the five kinds of records.

use crate::record::rules::Rules;
use crate::record::table::Table;
use crate::schema::fields::{Definitions, STORABLE, storable};
use crate::schema::{event, metric, token_usage, tool_usage, trail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use strum::{IntoStaticStr, VariantArray};

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, ValueEnum, VariantArray)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub(crate) enum Kind {
    /// A row of `audit_events`
    AuditEvent,
    /// A model call, which `token_ledger` sums up
    TokenUsage,
    /// A row of `decision_trails`
    DecisionTrail,
    /// A row of `economic_metrics`
    Metric,
    /// A row of `tool_usage_ledger`
    ToolUsage,
}

impl Kind {
    pub(crate) fn of(table: Table) -> Self {
        match table {
            Table::AuditEvents => Self::AuditEvent,
            Table::TokenLedger => Self::TokenUsage,
            Table::DecisionTrails => Self::DecisionTrail,
            Table::EconomicMetrics => Self::Metric,
            Table::ToolUsageLedger => Self::ToolUsage,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        self.into_str()
    }

    /// Its schema, for a document that keeps the common parts there.
    fn schema(self, rules: &Rules, definitions: Definitions) -> Map<String, Value> {
        let mut schema = match self {
            Self::AuditEvent => event::schema(rules),
            Self::TokenUsage => token_usage::schema(rules),
            Self::DecisionTrail => trail::schema(rules),
            Self::Metric => metric::schema(rules),
            Self::ToolUsage => tool_usage::schema(),
        };
        schema.insert("title".to_owned(), json!(self.name()));
        let parts = schema.entry("allOf").or_insert_with(|| json!([]));
        let Value::Array(parts) = parts else { unreachable!("each kind writes a list") };
        parts.insert(0, definitions.reference(STORABLE));
        schema
    }
}

/// The schemas of all kinds, and the one that they share, by name.
pub(crate) fn definitions(rules: &Rules, at: Definitions) -> Map<String, Value> {
    let kinds = Kind::VARIANTS.iter().map(|kind| (kind.name().to_owned(), Value::Object(kind.schema(rules, at))));
    kinds.chain([(STORABLE.to_owned(), storable(at))]).collect()
}

/// What is judged besides.
const COMMENT: &str = "A schema says which records can be stored. The ledger also judges what takes more than the record: \
    that its text is strict JSON in UTF-8, within the limits of bytes and nesting, with no key twice and no number that a double \
    cannot hold; that the actor is the last token of the subject, and that its lane is the one of the event_id; that the year \
    has a 29th of February; that integrity_hash is the hash, that a trail_id names its proposal_id, that threshold_met says what the votes \
    say, and that a period is the month of its metric_key; that what it refers to is there; and that its id has no other content.";

/// One kind as a document of its own, or all.
pub(crate) fn json_schema(kind: Option<Kind>, rules: &Rules) -> Value {
    let at = Definitions::OF_JSON_SCHEMA;
    let (mut document, shared) = if let Some(kind) = kind {
        (kind.schema(rules, at), Map::from_iter([(STORABLE.to_owned(), storable(at))]))
    } else {
        let references: Vec<Value> = Kind::VARIANTS.iter().map(|kind| at.reference(kind.name())).collect();
        let root = Map::from_iter([
            ("title".to_owned(), json!("A record of ledgerd")),
            ("anyOf".to_owned(), Value::Array(references)),
        ]);
        (root, definitions(rules, at))
    };
    document.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    document.insert("$comment".to_owned(), json!(COMMENT));
    document.insert("$defs".to_owned(), Value::Object(shared));
    Value::Object(document)
}
