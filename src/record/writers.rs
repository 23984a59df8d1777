//! The write permissions for lanes whose records the Action Registry does not know: lists of actors for each kind of
//! record.

use crate::record::agents::Agents;
use crate::record::fields::as_uuid;
use crate::record::metric_key::Kind;
use crate::record::reject::{Reason, Rejection, first_line, quote};
use std::collections::BTreeMap;

/// Each list is exact: what an agent may set, its sub-agents may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Report the token usage of others.
    pub token_reporters: Vec<String>,
    pub trails: Vec<String>,
    pub daily_limits: Vec<String>,
    pub token_rates: Vec<String>,
    /// Set revenue, operating cost and capital.
    pub finances: Vec<String>,
    /// Report the tool usage of any agent; `*` stands for every registered actor.
    pub usage_reporters: Vec<String>,
    /// The `agent_id` of each actor, in lower case; none where nobody has said which is whose.
    pub usage_agents: Option<BTreeMap<String, String>>,
}

/// Stands for every registered actor in `usage.reporters`.
const EVERY_ACTOR: &str = "*";

/// Reads which `agent_id` is whose: lines `SIM_ID: UUID`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn usage_agents(yaml: &str, agents: &Agents) -> Result<BTreeMap<String, String>, String> {
    let file: BTreeMap<String, String> = serde_saphyr::from_str(yaml).map_err(|error| first_line(&error))?;
    let parsed = file.into_iter().map(|(actor, agent_id)| {
        if !agents.is_registered(&actor) {
            return Err(format!("{} is no registered actor", quote(&actor)));
        }
        match as_uuid(&agent_id) {
            Some(uuid) => Ok((actor, uuid)),
            None => Err(format!("the agent_id of {} is {}, which is no UUID", quote(&actor), quote(&agent_id))),
        }
    });
    parsed.collect()
}

impl Writers {
    pub(crate) fn admit_to_trails(&self, actor: &str) -> Result<(), Rejection> {
        admit(&self.trails, actor, "record decision trails", "trails.writers")
    }

    pub(crate) fn may_record_trails(&self, actor: &str) -> bool {
        is_listed(&self.trails, actor)
    }

    /// Whether there is any metric that the actor may set.
    pub(crate) fn may_set_metrics(&self, actor: &str) -> bool {
        [&self.daily_limits, &self.token_rates, &self.finances].into_iter().any(|list| is_listed(list, actor))
    }

    /// Whether every registered actor may name any `agent_id`.
    pub fn usage_is_open(&self) -> bool {
        is_listed(&self.usage_reporters, EVERY_ACTOR)
    }

    /// Passes a reporter, and whoever reports its own use of a tool.
    pub(crate) fn admit_to_tool_usage(&self, actor: &str, agent_id: &str) -> Result<(), Rejection> {
        if self.usage_is_open() || is_listed(&self.usage_reporters, actor) {
            return Ok(());
        }
        match &self.usage_agents {
            None => Err(Rejection::new(
                Reason::ActionNotAllowed,
                &format!(
                    "{} may not report the use of tools: usage.reporters does not list it, and usage.agents_file is not set",
                    quote(actor)
                ),
            )),
            Some(agents) => match agents.get(actor) {
                Some(own) if own == agent_id => Ok(()),
                Some(own) => Err(Rejection::new(
                    Reason::ActorMismatch,
                    &format!("agent_id is {agent_id}, and in usage.agents_file {} is {own}", quote(actor)),
                )),
                None => Err(Rejection::new(
                    Reason::ActionNotAllowed,
                    &format!(
                        "usage.agents_file has no agent_id for {}, and usage.reporters does not list it",
                        quote(actor)
                    ),
                )),
            },
        }
    }

    pub(crate) fn admit_to_metric(&self, kind: Kind, actor: &str) -> Result<(), Rejection> {
        match kind {
            Kind::DailyLimit => admit(&self.daily_limits, actor, "set daily limits", "metrics.daily_limit_setters"),
            Kind::TokenRate => admit(&self.token_rates, actor, "set token rates", "metrics.token_rate_setters"),
            Kind::VentureRevenue | Kind::OperatingCost | Kind::VentureCapital => {
                admit(&self.finances, actor, "set revenue, cost and capital", "metrics.finance_setters")
            }
        }
    }
}

fn is_listed(list: &[String], actor: &str) -> bool {
    list.iter().any(|name| name == actor)
}

fn admit(list: &[String], actor: &str, may: &str, setting: &str) -> Result<(), Rejection> {
    if is_listed(list, actor) {
        return Ok(());
    }
    let detail = format!("{} may not {may}; {setting} allows {}", quote(actor), list.join(", "));
    Err(Rejection::new(Reason::ActionNotAllowed, &detail))
}
