//! What every page and answer of the console is made from.

use crate::budget::gate::GateRules;
use crate::config::Config;
use crate::console::access::Access;
use crate::console::live::Live;
use crate::console::operator::Operator;
use crate::log::queries::LogStore;
use crate::query::Reader;
use crate::query::stream::StreamView;
use crate::record::agents::Agents;
use std::sync::Arc;

/// The state of the console.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) reader: Reader,
    pub(crate) log: LogStore,
    pub(crate) access: Access,
    /// Who carries out decisions. `None`: this console only reads.
    pub(crate) operator: Option<Operator>,
    pub(crate) live: Live,
    pub(crate) config: Config,
    /// The registered agents.
    pub(crate) agents: Agents,
    /// The message server, where its address is known.
    pub(crate) stream: StreamView,
}

pub(crate) type Shared = Arc<Site>;

impl Site {
    pub(crate) fn gate_rules(&self) -> GateRules<'_> {
        GateRules { agents: &self.agents, budget: &self.config.budget }
    }
}
