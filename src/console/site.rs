//! What every page and answer of the console is made from.

use crate::console::access::Access;
use crate::query::Reader;
use std::sync::Arc;

/// The state of the console.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) reader: Reader,
    pub(crate) access: Access,
}

pub(crate) type Shared = Arc<Site>;
