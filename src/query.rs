//! Questions about the record, one file each. The console, the API, MCP and the commands ask them with a reader's login.

mod custody;
mod fault_place;
pub(crate) mod lanes;
pub(crate) mod line;
pub(crate) mod log_command;
pub(crate) mod money;
pub(crate) mod notifications;
pub(crate) mod published;
pub(crate) mod record;
pub(crate) mod rejects;
pub(crate) mod search;
pub(crate) mod show_command;
pub(crate) mod story;
pub(crate) mod stream;
pub(crate) mod timeline;

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
