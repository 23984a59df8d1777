//! The five tables of the specification.

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
