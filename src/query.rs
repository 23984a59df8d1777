//! Questions about the record, one file each. The console, the API, MCP and the commands ask them with a reader's login.

pub(crate) mod activity;
pub(crate) mod cards;
pub(crate) mod checkpoints;
mod custody;
pub(crate) mod facts;
mod fault_place;
pub(crate) mod glance;
pub(crate) mod kept_checkpoint;
pub(crate) mod lanes;
pub(crate) mod line;
pub(crate) mod log_command;
pub(crate) mod money;
pub(crate) mod notifications;
pub(crate) mod now;
pub(crate) mod published;
pub(crate) mod record;
pub(crate) mod rejects;
pub(crate) mod runs;
pub(crate) mod search;
pub(crate) mod show_command;
pub(crate) mod spend_command;
pub(crate) mod spending;
pub(crate) mod story;
pub(crate) mod stream;
pub(crate) mod timeline;
pub(crate) mod troubles;
pub(crate) mod trust;

use crate::postgres::connections::Connections;

/// Reads the record, and writes nothing.
#[derive(Debug)]
pub(crate) struct Reader(pub(crate) Connections);

/// A question that cannot be asked: which field is wrong, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {what}")]
pub(crate) struct BadQuestion {
    field: &'static str,
    what: &'static str,
}

impl BadQuestion {
    pub(crate) fn new(field: &'static str, what: &'static str) -> Self {
        Self { field, what }
    }
}
