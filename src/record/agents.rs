//! The actors that may write: the agents of `agent_schema.yaml`, and the extra actors of the configuration.

use crate::record::lengths::ACTOR_CHARS_MAX;
use crate::record::reject::{Reason, Rejection, first_line, quote};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};

#[derive(Clone, Debug)]
pub struct Agents {
    by_sim_id: HashMap<String, Agent>,
    /// Agents of these statuses may not write.
    refused_statuses: Vec<String>,
}

#[derive(Clone, Debug)]
struct Agent {
    status: String,
    parent: Option<String>,
    /// The list it stands in; an extra actor stands in none.
    group: Option<String>,
}

/// The part of `agent_schema.yaml` that the ledger reads; the file holds a schema beside it.
#[derive(Deserialize)]
struct AgentSchema {
    registered_agents: HashMap<String, Vec<RegisteredAgent>>,
}

#[derive(Deserialize)]
struct RegisteredAgent {
    sim_id: String,
    status: String,
    #[serde(default)]
    parent: Option<String>,
}

/// That of an extra actor.
const ACTIVE: &str = "active";
/// LDG-002 says *registered*; these two have left.
const REFUSED_STATUSES: [&str; 2] = ["retired", "inactive"];

/// The longest chain of parents that is followed; a longer one is a loop in the file.
const ANCESTORS_MAX: usize = 8;

impl Agents {
    /// Reads `agent_schema.yaml`. `extra` are actors that write without being listed in it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the file.
    pub fn parse(yaml: &str, extra: &[String]) -> Result<Self, String> {
        let schema: AgentSchema = serde_saphyr::from_str(yaml).map_err(|error| first_line(&error))?;
        let mut by_sim_id = HashMap::new();
        let listed = schema.registered_agents.into_iter();
        for (group, agent) in
            listed.flat_map(|(group, agents)| agents.into_iter().map(move |agent| (group.clone(), agent)))
        {
            let sim_id = agent.sim_id;
            if sim_id.is_empty() || sim_id.chars().count() > ACTOR_CHARS_MAX {
                return Err(format!("sim_id {} must have 1 to {ACTOR_CHARS_MAX} characters", quote(&sim_id)));
            }
            let entry = Agent { status: agent.status, parent: agent.parent, group: Some(group) };
            if by_sim_id.insert(sim_id.clone(), entry).is_some() {
                return Err(format!("the agent {sim_id} is registered twice"));
            }
        }
        if by_sim_id.is_empty() {
            return Err("registered_agents lists no agent".to_owned());
        }
        for sim_id in extra {
            by_sim_id.insert(sim_id.clone(), Agent { status: ACTIVE.to_owned(), parent: None, group: None });
        }
        Ok(Self { by_sim_id, refused_statuses: REFUSED_STATUSES.map(str::to_owned).to_vec() })
    }

    /// With other statuses whose agents may not write.
    #[must_use]
    pub fn refusing(self, refused_statuses: Vec<String>) -> Self {
        Self { refused_statuses, ..self }
    }

    /// How many actors are known, whether they may write or not.
    pub fn len(&self) -> usize {
        self.by_sim_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_sim_id.is_empty()
    }

    /// Passes an actor that is registered, and whose status is not refused.
    pub(crate) fn admit(&self, actor: &str) -> Result<(), Rejection> {
        match self.by_sim_id.get(actor) {
            None => Err(Rejection::new(
                Reason::UnknownActor,
                &format!(
                    "actor {} is not registered in agent_schema.yaml, nor an extra actor of the configuration",
                    quote(actor)
                ),
            )),
            Some(agent) if self.refuses(agent) => Err(Rejection::new(
                Reason::InactiveActor,
                &format!(
                    "actor {} has status {}; registry.refused_statuses refuses {}",
                    quote(actor),
                    quote(&agent.status),
                    self.refused_statuses.join(", ")
                ),
            )),
            Some(_) => Ok(()),
        }
    }

    fn refuses(&self, agent: &Agent) -> bool {
        self.refused_statuses.contains(&agent.status)
    }

    /// Those who may write, in the order of their names.
    pub fn writing(&self) -> Vec<&str> {
        let admitted = self.by_sim_id.iter().filter(|(_, agent)| !self.refuses(agent));
        let mut writing: Vec<&str> = admitted.map(|(sim_id, _)| sim_id.as_str()).collect();
        writing.sort_unstable();
        writing
    }

    /// Whether the agent is listed, whatever its status.
    pub fn is_registered(&self, sim_id: &str) -> bool {
        self.by_sim_id.contains_key(sim_id)
    }

    /// Everybody who is listed, whatever the status, in the order of their names.
    pub(crate) fn registered(&self) -> Vec<&str> {
        let mut registered: Vec<&str> = self.by_sim_id.keys().map(String::as_str).collect();
        registered.sort_unstable();
        registered
    }

    /// The names of the lists, in their order.
    pub(crate) fn groups(&self) -> Vec<&str> {
        let groups: BTreeSet<&str> = self.by_sim_id.values().filter_map(|agent| agent.group.as_deref()).collect();
        groups.into_iter().collect()
    }

    /// The list in which the agent stands: `council`, `subagents`, …
    pub fn group(&self, sim_id: &str) -> Option<&str> {
        self.by_sim_id.get(sim_id)?.group.as_deref()
    }

    /// Whether there is such a list, its name written in capitals.
    pub(crate) fn has_group_in_capitals(&self, group: &str) -> bool {
        self.by_sim_id.values().any(|agent| agent.group.as_deref().is_some_and(|name| name.to_uppercase() == group))
    }

    /// The members of a list, in the order of their names.
    pub fn members(&self, group: &str) -> Vec<&str> {
        let is_member = |agent: &Agent| agent.group.as_deref() == Some(group);
        let mut members: Vec<&str> =
            self.by_sim_id.iter().filter(|(_, agent)| is_member(agent)).map(|(sim_id, _)| sim_id.as_str()).collect();
        members.sort_unstable();
        members
    }

    /// The actor, its parent, the parent's parent: whose rights it has.
    pub(crate) fn lineage<'a>(&'a self, actor: &'a str) -> impl Iterator<Item = &'a str> {
        let parent = |sim_id: &&'a str| self.by_sim_id.get(*sim_id).and_then(|agent| agent.parent.as_deref());
        std::iter::successors(Some(actor), parent).take(ANCESTORS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "schema: {x: 1}
registered_agents:
  council:
    - {sim_id: BRM-CTO, status: active, tier: TIER_1_COUNCIL}
  subagents:
    - {sim_id: BRM-WFB-01, status: active, parent: BRM-CTO}
    - {sim_id: BRM-OLD-01, status: retired, parent: BRM-CTO}
    - {sim_id: BRM-NEW-01, status: dev, parent: BRM-CTO}
";

    #[test]
    fn an_actor_must_be_registered_and_not_have_left() {
        let agents = Agents::parse(FILE, &["ARCHITECT".to_owned()]).expect("the file is good");
        let reason = |agents: &Agents, actor| agents.admit(actor).err().map(|rejection| rejection.reason());
        assert_eq!(reason(&agents, "BRM-CTO"), None);
        assert_eq!(reason(&agents, "ARCHITECT"), None);
        assert_eq!(reason(&agents, "BRM-NEW-01"), None);
        assert_eq!(reason(&agents, "BRM-OLD-01"), Some(Reason::InactiveActor));
        assert_eq!(reason(&agents, "brm-cto"), Some(Reason::UnknownActor));
        let stricter = agents.clone().refusing(vec!["dev".to_owned()]);
        assert_eq!(reason(&stricter, "BRM-NEW-01"), Some(Reason::InactiveActor));
        assert_eq!(stricter.writing(), ["ARCHITECT", "BRM-CTO", "BRM-OLD-01", "BRM-WFB-01"]);
        assert_eq!(agents.lineage("BRM-WFB-01").collect::<Vec<_>>(), ["BRM-WFB-01", "BRM-CTO"]);
    }

    #[test]
    fn a_parent_that_is_its_own_ancestor_ends_the_lineage() {
        let agents =
            Agents::parse("registered_agents: {a: [{sim_id: A, status: active, parent: A}]}", &[]).expect("readable");
        assert_eq!(agents.lineage("A").count(), ANCESTORS_MAX);
    }

    #[test]
    fn a_broken_file_says_what_is_wrong() {
        for (file, says) in [
            ("", "unexpected end"),
            ("registered_agents: {}", "no agent"),
            (
                "registered_agents: {a: [{sim_id: A, status: active}, {sim_id: A, status: dev}]}",
                "A is registered twice",
            ),
            ("registered_agents: {a: [{sim_id: A}]}", "status"),
        ] {
            let error = Agents::parse(file, &[]).expect_err(file);
            assert!(error.contains(says), "{file}: {error}");
        }
    }
}
