//! The five tables of the specification, and the rows that records make in the database.

use strum::{IntoStaticStr, VariantArray};

/// The tables of the specification: each lane fills one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Table {
    /// LDG-002, table 1.
    AuditEvents,
    /// LDG-002, table 2.
    TokenLedger,
    /// LDG-002, table 3.
    DecisionTrails,
    /// LDG-002, table 4.
    EconomicMetrics,
    /// The document `tool_usage_ledger`.
    ToolUsageLedger,
}

impl Table {
    /// Every table, in the order of the specification.
    pub const ALL: &[Table] = Self::VARIANTS;

    /// Its name in the schema `public`.
    pub const fn name(self) -> &'static str {
        self.into_str()
    }
}

/// The rows that the records of a table make: one row for each record, named by its column `id`.
#[derive(Clone, Copy, Debug)]
pub struct RecordRows {
    /// Their table, with its schema. The rows of `token_ledger` are sums of days, so single usages have a table of their own.
    pub stored_in: &'static str,
    /// Whether `id` is a UUID that names the record, and no number that the table gives.
    pub has_uuid: bool,
    /// The columns by which a record is known besides `id`.
    pub own_key: &'static [&'static str],
    /// The columns that follow from the record, besides `id`.
    pub columns: &'static [&'static str],
}

impl RecordRows {
    /// The name of the table as people write it: without the schema `public`.
    pub fn name(&self) -> &'static str {
        self.stored_in.strip_prefix("public.").unwrap_or(self.stored_in)
    }

    /// The type of `id`.
    pub const fn id_type(&self) -> &'static str {
        if self.has_uuid { "uuid" } else { "bigint" }
    }
}

impl Table {
    /// The rows of its records.
    pub const fn rows(self) -> RecordRows {
        match self {
            Table::AuditEvents => RecordRows {
                stored_in: "public.audit_events",
                has_uuid: false,
                own_key: &["event_id"],
                columns: &[
                    "event_id",
                    "actor",
                    "action",
                    "outcome",
                    "details",
                    "task_id",
                    "timestamp",
                    "integrity_hash",
                    "created_at",
                    "timestamp_text",
                ],
            },
            Table::TokenLedger => RecordRows {
                stored_in: "ledger.token_usage",
                has_uuid: false,
                own_key: &["agent_name", "usage_id", "usage_id_given"],
                columns: &[
                    "agent_name",
                    "usage_id",
                    "usage_id_given",
                    "date",
                    "tokens_input",
                    "tokens_output",
                    "model_tier",
                    "model_used",
                    "task_id",
                    "operation_type",
                    "timestamp_text",
                    "cost_given",
                    "cost_usd",
                    "input_rate_id",
                    "output_rate_id",
                ],
            },
            Table::DecisionTrails => RecordRows {
                stored_in: "public.decision_trails",
                has_uuid: false,
                own_key: &["trail_id"],
                columns: &["trail_id", "council_vote", "proposal", "outcome", "ledger_ref", "created_at"],
            },
            Table::EconomicMetrics => RecordRows {
                stored_in: "public.economic_metrics",
                has_uuid: false,
                own_key: &[],
                columns: &["metric_key", "metric_value", "period", "set_by", "created_at", "published_ns"],
            },
            Table::ToolUsageLedger => RecordRows {
                stored_in: "public.tool_usage_ledger",
                has_uuid: true,
                own_key: &[],
                columns: &[
                    "agent_id",
                    "venture_id",
                    "tool_id",
                    "tokens_consumed",
                    "cost_usd",
                    "execution_ms",
                    "created_at",
                ],
            },
        }
    }
}
