//! The rules in force: registered agents, the Action Registry, limits and leniencies.

use crate::record::agents::Agents;
use crate::record::model_tiers::ModelTiers;
use crate::record::registry::Registry;
use crate::record::writers::Writers;

/// Everything that a verdict depends on besides the message.
#[derive(Debug)]
pub struct Rules {
    pub agents: Agents,
    pub registry: Registry,
    pub settings: RuleSettings,
}

/// Limits and leniencies of the judging.
#[derive(Clone, Debug)]
pub struct RuleSettings {
    /// The largest payload, in bytes.
    pub record_bytes_max: usize,
    /// The deepest nesting of objects and arrays.
    pub nesting_max: usize,
    /// Any printable text may follow the prefix of an `event_id`, not only the actor and Unix milliseconds.
    pub any_event_id: bool,
    /// A missing timestamp becomes the time at which the server stored the message.
    pub stamp_missing_timestamp: bool,
    /// Another event under a stored id is stored under an id of its own, and is no conflict.
    pub distinct_repeated_ids: bool,
    /// Which tier a model is of.
    pub model_tiers: ModelTiers,
    /// Who may write records that the Action Registry does not know.
    pub writers: Writers,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            record_bytes_max: 256 * 1024,
            nesting_max: 32,
            any_event_id: false,
            stamp_missing_timestamp: false,
            distinct_repeated_ids: false,
            model_tiers: ModelTiers::default(),
            writers: Writers::default(),
        }
    }
}
