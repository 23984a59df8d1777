//! What every page and answer of the console is made from.

use crate::console::access::Access;
use crate::console::operator::Operator;
use crate::log::queries::LogStore;
use crate::query::Reader;
use std::sync::Arc;

/// The state of the console.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) reader: Reader,
    pub(crate) log: LogStore,
    pub(crate) access: Access,
    /// Who carries out decisions. `None`: this console only reads.
    pub(crate) operator: Option<Operator>,
}

pub(crate) type Shared = Arc<Site>;
