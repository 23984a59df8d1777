//! Loads the rule files: from the configured paths, or else the copies that the program contains.

use crate::config::Config;
use crate::record::agents::Agents;
use crate::record::reference;
use crate::record::registry::Registry;
use crate::record::rules::{RuleSettings, Rules};
use crate::record::writers;
use std::collections::BTreeMap;
use std::path::Path;

const SHIPPED_ACTIONS: &str = include_str!("../../registry/actions.yaml");
const REFERENCE_METRICS: &str = include_str!("../../registry/reference_metrics.yaml");
const SHIPPED_AGENTS: &str = include_str!("../../registry/agent_schema.yaml");
/// What the public repository's agents emit beyond the specification.
const HEGEMON_ACTIONS: &str = include_str!("../../registry/hegemon.yaml");
/// Its name in the configuration.
const HEGEMON_FILE: &str = "registry/hegemon.yaml";

/// The rules in force.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(crate) fn load(config: &Config) -> Result<Rules, String> {
    let files = &config.registry;
    let mut texts = vec![read(files.actions.as_deref(), SHIPPED_ACTIONS)?];
    for extra in &files.actions_extra {
        let is_ours = extra == Path::new(HEGEMON_FILE);
        texts.push(read(Some(extra.as_path()).filter(|_| !is_ours), HEGEMON_ACTIONS)?);
    }
    let mut registry = Registry::default();
    let names =
        std::iter::once(files.actions.as_deref()).chain(files.actions_extra.iter().map(|path| Some(path.as_path())));
    for (text, file) in texts.iter().zip(names) {
        registry.extend(text).map_err(|why| format!("{}: {why}", name(file, "the shipped Action Registry")))?;
    }
    if registry.is_empty() {
        return Err(format!("{}: the registry holds no action", name(files.actions.as_deref(), "the Action Registry")));
    }
    let agents = read(files.agents.as_deref(), SHIPPED_AGENTS)?;
    let agents = Agents::parse(&agents, &files.extra_actors)
        .map_err(|why| format!("{}: {why}", name(files.agents.as_deref(), "the shipped agents")))?
        .refusing(files.refused_statuses.clone());
    let mut settings = config.judging.clone();
    if let Some(file) = &files.usage_agents {
        let usage_agents = writers::usage_agents(&read(Some(file), "")?, &agents);
        settings.writers.usage_agents =
            Some(usage_agents.map_err(|why| format!("usage.agents_file: {}: {why}", file.display()))?);
    }
    Ok(Rules { agents, registry, settings })
}

/// The reference limits and rates, for the agents of the configuration.
pub(crate) fn reference_metrics(config: &Config) -> Result<BTreeMap<String, String>, String> {
    reference::metrics(REFERENCE_METRICS, &load(config)?.agents)
}

fn name(file: Option<&Path>, shipped: &str) -> String {
    file.map_or_else(|| shipped.to_owned(), |path| path.display().to_string())
}

/// The rules that ship with the program, for what the program itself records.
pub(crate) fn shipped() -> Rules {
    let architect = ["ARCHITECT".to_owned()];
    Rules {
        agents: Agents::parse(SHIPPED_AGENTS, &architect).expect("the shipped file is good, as a test shows"),
        registry: Registry::parse(&[SHIPPED_ACTIONS]).expect("the shipped file is good, as a test shows"),
        settings: RuleSettings::default(),
    }
}

fn read(file: Option<&Path>, shipped: &str) -> Result<String, String> {
    match file {
        None => Ok(shipped.to_owned()),
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display())),
    }
}
