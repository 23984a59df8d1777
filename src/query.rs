//! Questions about the record, one file each. The console, the API, MCP and the commands ask them with a reader's login.

mod fault_place;
pub(crate) mod published;
pub(crate) mod record;
pub(crate) mod rejects;
pub(crate) mod timeline;

use crate::postgres::connections::Connections;

/// Reads the record, and writes nothing.
#[derive(Debug)]
pub struct Reader(pub Connections);
