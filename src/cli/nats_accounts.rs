//! `ledgerd nats-accounts`: prints the accounts of `nats/agents.conf`, for the actors and the writers of the
//! configuration.

use crate::command::{Exit, Failure, output, rules};
use crate::config::Config;
use crate::nats::accounts::{Actor, configuration};
use crate::record::own_lanes::own_lanes;

pub(crate) fn run(config: &Config) -> Result<(), Failure> {
    let broken = |why: String| Failure::new(Exit::Configuration, why);
    let rules = rules::load(config).map_err(broken)?;
    let actor = |name: &str| Actor {
        name: name.to_owned(),
        lanes: own_lanes(name, &rules),
        // Those who write without being agents are people, and what tells people.
        watches_all_budgets: config.registry.extra_actors.iter().any(|extra| extra == name),
    };
    let actors: Vec<Actor> = rules.agents.writing().into_iter().map(actor).collect();
    output::text(&configuration(&actors).map_err(broken)?);
    Ok(())
}
