//! What every page and answer of the console is made from.

use crate::console::access::Access;
use crate::console::live::Live;
use crate::query::Reader;
use std::sync::Arc;

/// The state of the console.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) reader: Reader,
    pub(crate) access: Access,
    pub(crate) live: Live,
}

pub(crate) type Shared = Arc<Site>;
