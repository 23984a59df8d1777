//! Which files make the rules? Reads them from where the configuration says, or from the program itself.

use crate::config::Config;
use crate::domain::agents::Agents;
use crate::domain::registry::Registry;
use crate::domain::rules::{Rules, Settings};
use std::path::Path;

const SHIPPED_ACTIONS: &str = include_str!("../../registry/actions.yaml");
const SHIPPED_AGENTS: &str = include_str!("../../registry/agent_schema.yaml");

/// The rules in force.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(super) fn load(config: &Config) -> Result<Rules, String> {
    let files = &config.registry;
    let mut texts = vec![read(files.actions.as_deref(), SHIPPED_ACTIONS)?];
    for extra in &files.actions_extra {
        texts.push(read(Some(extra), "")?);
    }
    let actions: Vec<&str> = texts.iter().map(String::as_str).collect();
    let registry = Registry::parse(&actions).map_err(|why| {
        let named: Vec<String> =
            files.actions.iter().chain(&files.actions_extra).map(|path| path.display().to_string()).collect();
        format!("the Action Registry {}: {why}", named.join(", "))
    })?;
    let agents = Agents::parse(&read(files.agents.as_deref(), SHIPPED_AGENTS)?, &files.extra_actors)
        .map_err(|why| format!("the agents {}: {why}", files.agents.as_deref().unwrap_or(Path::new("")).display()))?;
    Ok(Rules { agents, registry, settings: config.settings.clone() })
}

/// The rules that ship with the program, for what the program itself records.
pub(super) fn shipped() -> Rules {
    let architect = ["ARCHITECT".to_owned()];
    Rules {
        agents: Agents::parse(SHIPPED_AGENTS, &architect).expect("the shipped file is good, as a test shows"),
        registry: Registry::parse(&[SHIPPED_ACTIONS]).expect("the shipped file is good, as a test shows"),
        settings: Settings::default(),
    }
}

fn read(file: Option<&Path>, shipped: &str) -> Result<String, String> {
    match file {
        None => Ok(shipped.to_owned()),
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display())),
    }
}
