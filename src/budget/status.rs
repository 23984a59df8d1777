//! The thresholds of LDG-002's `budget_status`, and the content of a budget alert.

use crate::record::subject::safe_token;
use serde_json::{Value, json};

/// Thresholds, in per cent of the daily limit, and the groups that share one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub yellow_percent: i32,
    pub red_percent: i32,
    pub exceeded_percent: i32,
    /// Groups of the agent registry, in capitals, whose members share their group's limit. In the others each has its own.
    pub shared_groups: Vec<String>,
}

/// A change of a day's status, on its way to those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its number in the database.
    pub id: i64,
    pub agent_name: String,
    /// The UTC day, `YYYY-MM-DD`.
    pub date: String,
    /// GREEN, YELLOW, RED or EXCEEDED.
    pub old_status: String,
    pub new_status: String,
    /// What was spent, exactly; by the whole group, where the limit is shared.
    pub spent_usd: String,
    pub limit_usd: String,
    /// The metric that set the limit.
    pub limit_key: String,
    /// When, in microseconds since 1970.
    pub raised_at_us: i64,
}

impl Alert {
    pub fn subject(&self) -> String {
        format!("alert.budget.{}", safe_token(&self.agent_name))
    }

    /// The same alert never has another id, and no other alert has it, in whatever database.
    pub fn message_id(&self) -> String {
        format!("budget-alert-{}-{}", self.raised_at_us, self.id)
    }

    pub fn payload(&self) -> Value {
        json!({
            "agent_name": self.agent_name, "date": self.date, "old_status": self.old_status, "new_status": self.new_status,
            "spent_usd": self.spent_usd, "limit_usd": self.limit_usd, "limit_key": self.limit_key,
            "raised_at": crate::record::message::utc_text(self.raised_at_us * 1000),
        })
    }
}
