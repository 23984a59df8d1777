//! What the tools read from: connections of their own with the reader's login, and the registered agents.

use crate::budget::gate::GateRules;
use crate::budget::status::Budget;
use crate::command::{Exit, Failure, connect, rules};
use crate::config::Config;
use crate::log::queries::LogStore;
use crate::query::Reader;
use crate::record::agents::Agents;

/// Tools that are being answered at a time, on each of two pools.
const CONNECTIONS_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) reader: Reader,
    pub(crate) log: LogStore,
    pub(crate) agents: Agents,
    budget: Budget,
}

impl Sources {
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        let rules = rules::load(config).map_err(|why| Failure::new(Exit::Configuration, why))?;
        Ok(Self {
            reader: Reader(connect::reader(config, CONNECTIONS_MAX)?),
            log: LogStore(connect::reader(config, CONNECTIONS_MAX)?),
            agents: rules.agents,
            budget: config.budget.clone(),
        })
    }

    pub(crate) fn gate_rules(&self) -> GateRules<'_> {
        GateRules { agents: &self.agents, budget: &self.budget }
    }
}
