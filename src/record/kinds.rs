//! Records: one kind for each table of the specification.

use crate::record::event::{AuditEvent, readable_event_id};
use crate::record::json::Object;
use crate::record::message::Message;
use crate::record::metric::{Metric, readable_key};
use crate::record::reject::Rejection;
use crate::record::rules::Rules;
use crate::record::subject::Subject;
use crate::record::table::Table;
use crate::record::token_usage::{TokenUsage, readable_usage_id};
use crate::record::tool_usage::{ToolUsage, readable_id};
use crate::record::trail::{Trail, readable_trail_id};

/// A record that passed every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A row of `audit_events`.
    Event(AuditEvent),
    /// A call to be added to its day in `token_ledger`.
    TokenUsage(TokenUsage),
    /// A row of `decision_trails`.
    Trail(Trail),
    /// A row of `economic_metrics`.
    Metric(Metric),
    /// A row of `tool_usage_ledger`.
    ToolUsage(ToolUsage),
}

impl Record {
    /// Judges an object against every rule of the lane it came on.
    pub(crate) fn judge(
        object: &Object<'_>,
        message: &Message,
        subject: Subject<'_>,
        rules: &Rules,
    ) -> Result<Self, Rejection> {
        Ok(match subject.lane.table() {
            Table::AuditEvents => Record::Event(AuditEvent::judge(object, message, subject, rules)?),
            Table::TokenLedger => Record::TokenUsage(TokenUsage::judge(object, message, subject, rules)?),
            Table::DecisionTrails => Record::Trail(Trail::judge(object, subject, rules)?),
            Table::EconomicMetrics => Record::Metric(Metric::judge(object, message, subject, rules)?),
            Table::ToolUsageLedger => Record::ToolUsage(ToolUsage::judge(object, message, subject, rules)?),
        })
    }

    /// Its own name: what tells it from the other records of its table. Only a metric's key stands for many rows.
    pub fn id(&self) -> &str {
        match self {
            Record::Event(event) => &event.event_id,
            Record::TokenUsage(usage) => &usage.usage_id,
            Record::Trail(trail) => &trail.trail_id,
            Record::Metric(metric) => &metric.key,
            Record::ToolUsage(usage) => &usage.id,
        }
    }

    /// Whether what is stored of it follows from records that were published before it: usage that is charged at rates does.
    pub fn follows_from_others(&self) -> bool {
        matches!(self, Record::TokenUsage(usage) if usage.cost.tier().is_some())
    }

    /// The table it belongs into.
    pub fn table(&self) -> Table {
        match self {
            Record::Event(_) => Table::AuditEvents,
            Record::TokenUsage(_) => Table::TokenLedger,
            Record::Trail(_) => Table::DecisionTrails,
            Record::Metric(_) => Table::EconomicMetrics,
            Record::ToolUsage(_) => Table::ToolUsageLedger,
        }
    }
}

/// The id of a message that may be bad in any other way.
pub(crate) fn readable_record_id(object: &Object<'_>, table: Table) -> Option<String> {
    match table {
        Table::AuditEvents => readable_event_id(object),
        Table::TokenLedger => readable_usage_id(object),
        Table::DecisionTrails => readable_trail_id(object),
        Table::EconomicMetrics => readable_key(object),
        Table::ToolUsageLedger => readable_id(object),
    }
}

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod tests;
