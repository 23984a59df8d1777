//! Questions about the record, one file each. The console, the API, MCP and the commands ask them with a reader's login.

pub(crate) mod activity;
pub(crate) mod cards;
pub(crate) mod checkpoints;
pub(crate) mod facts;
pub(crate) mod glance;
pub(crate) mod kept_checkpoint;
pub(crate) mod lanes;
pub(crate) mod money;
pub(crate) mod now;
pub(crate) mod runs;
pub(crate) mod spending;
pub(crate) mod stream;
pub(crate) mod timeline;
pub(crate) mod troubles;
pub(crate) mod trust;

use crate::postgres::connections::Connections;

/// Reads the record, and writes nothing.
#[derive(Debug)]
pub struct Reader(pub Connections);
