//! The Action Registry of LDG-002 as data: actions, their outcomes, the actors that may use them, and the structure of
//! their details.

use crate::record::agents::Agents;
use crate::record::json_value::Json;
use crate::record::lane::Lane;
use crate::record::lengths::OUTCOME_CHARS_MAX;
use crate::record::reject::{Reason, Rejection, first_line, quote};
use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The registry, its schemas compiled.
#[derive(Debug, Default)]
pub struct Registry {
    grants: BTreeMap<ActionName, Vec<Grant>>,
    details: BTreeMap<ActionName, Details>,
    /// Who may publish under each prefix that a file adds.
    prefixes: BTreeMap<Lane, Vec<Actors>>,
}

/// The structure of an action's details.
#[derive(Debug)]
struct Details {
    schema: Value,
    validator: Validator,
}

/// One row of the specification's tables: these actors may use the action with these outcomes.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    actors: Actors,
    pub(crate) outcomes: Vec<String>,
}

impl Grant {
    /// Whether an actor, or an agent above it, has it.
    pub(crate) fn admits(&self, actor: &str, agents: &Agents) -> bool {
        self.actors.admit(actor, agents)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Actors {
    Any(AnyActor),
    Listed(Vec<String>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum AnyActor {
    #[serde(rename = "any")]
    Any,
}

impl Actors {
    fn admit(&self, actor: &str, agents: &Agents) -> bool {
        match self {
            Actors::Any(AnyActor::Any) => true,
            Actors::Listed(listed) => agents.lineage(actor).any(|ancestor| listed.iter().any(|name| name == ancestor)),
        }
    }
}

/// An action as the registry writes it: a name, or a pattern such as `TOOL_REQUEST_{TOOL_NAME}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ActionName {
    Exact(String),
    /// What stands before the placeholder.
    Prefixed(String),
}

impl ActionName {
    fn parse(text: &str) -> Result<Self, String> {
        let (stem, name) = match text.split_once('{') {
            Some((stem, hole)) if hole.ends_with('}') && hole.len() > 1 => (stem, Self::Prefixed(stem.to_owned())),
            Some(_) => return Err(format!("action {} may hold one {{PLACEHOLDER}}, at its end", quote(text))),
            None => (text, Self::Exact(text.to_owned())),
        };
        if is_screaming_snake_case(stem) {
            Ok(name)
        } else {
            Err(format!("action {} is not SCREAMING_SNAKE_CASE", quote(text)))
        }
    }

    pub(crate) fn matches(&self, action: &str) -> bool {
        match self {
            ActionName::Exact(name) => name == action,
            ActionName::Prefixed(prefix) => action.strip_prefix(prefix.as_str()).is_some_and(fills_a_hole),
        }
    }
}

fn is_screaming_snake_case(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What may stand in the place of a placeholder: a tool's name in capitals, which may hold a hyphen, a dot, a slash or a colon.
fn fills_a_hole(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-./:".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryFile {
    #[serde(default)]
    groups: Vec<Group>,
    #[serde(default)]
    details: BTreeMap<String, Value>,
    #[serde(default)]
    prefixes: BTreeMap<String, PrefixEntry>,
}

/// A prefix of audit events beyond those of LDG-002.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrefixEntry {
    actors: Actors,
    #[serde(default, rename = "description")]
    _description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    actors: Actors,
    actions: BTreeMap<String, Action>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    outcomes: Vec<String>,
    #[serde(default, rename = "description")]
    _description: String,
}

impl Registry {
    /// Reads registry files. A later file adds groups to the earlier ones, and replaces the details of an action.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and in which group.
    pub fn parse(files: &[&str]) -> Result<Self, String> {
        let mut registry = Self::default();
        for file in files {
            registry.extend(file)?;
        }
        if registry.grants.is_empty() {
            return Err("the registry holds no action".to_owned());
        }
        Ok(registry)
    }

    /// Adds one file.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and in which group.
    pub fn extend(&mut self, yaml: &str) -> Result<(), String> {
        let file: RegistryFile = serde_saphyr::from_str(yaml).map_err(|error| first_line(&error))?;
        for group in file.groups {
            for (action, entry) in group.actions {
                let fault = |what: &str| format!("group {}, action {action}: {what}", quote(&group.name));
                if entry.outcomes.is_empty() {
                    return Err(fault("at least one outcome must be allowed"));
                }
                if let Some(outcome) =
                    entry.outcomes.iter().find(|name| !is_screaming_snake_case(name) || name.len() > OUTCOME_CHARS_MAX)
                {
                    return Err(fault(&format!(
                        "outcome {} must be 1 to {OUTCOME_CHARS_MAX} of A-Z 0-9 _",
                        quote(outcome)
                    )));
                }
                let name = ActionName::parse(&action).map_err(|why| fault(&why))?;
                let grant = Grant { actors: group.actors.clone(), outcomes: entry.outcomes };
                self.grants.entry(name).or_default().push(grant);
            }
        }
        for (prefix, PrefixEntry { actors, .. }) in file.prefixes {
            let lane = Lane::add(&prefix).map_err(|why| format!("prefix {}: {why}", quote(&prefix)))?;
            self.prefixes.entry(lane).or_default().push(actors);
        }
        for (action, schema) in file.details {
            let fault = |what: &str| format!("details of {action}: {what}");
            let name = ActionName::parse(&action).map_err(|why| fault(&why))?;
            let validator = jsonschema::validator_for(&schema).map_err(|error| fault(&error.to_string()))?;
            self.details.insert(name, Details { schema, validator });
        }
        Ok(())
    }

    /// The lanes of the prefixes that the files add.
    pub fn added_lanes(&self) -> impl Iterator<Item = Lane> + '_ {
        self.prefixes.keys().copied()
    }

    /// Whether an actor may publish under a prefix that a file adds.
    pub(crate) fn may_publish(&self, lane: Lane, actor: &str, agents: &Agents) -> bool {
        self.prefixes.get(&lane).is_some_and(|lists| lists.iter().any(|actors| actors.admit(actor, agents)))
    }

    /// Each action with its grants.
    pub(crate) fn actions(&self) -> impl Iterator<Item = (&ActionName, &[Grant])> {
        self.grants.iter().map(|(name, grants)| (name, grants.as_slice()))
    }

    /// The schemas of details. Of several that match an action, the first counts.
    pub(crate) fn details_schemas(&self) -> impl Iterator<Item = (&ActionName, &Value)> {
        self.details.iter().map(|(name, details)| (name, &details.schema))
    }

    /// How many actions are known; a pattern counts once.
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether no action is known.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Passes an action that `actor` may use with `outcome`.
    pub(crate) fn admit(&self, actor: &str, action: &str, outcome: &str, agents: &Agents) -> Result<(), Rejection> {
        let known: Vec<_> =
            self.grants.iter().filter(|(name, _)| name.matches(action)).flat_map(|(_, grants)| grants).collect();
        if known.is_empty() {
            return Err(Rejection::new(
                Reason::UnknownAction,
                &format!("action {} is not in the Action Registry", quote(action)),
            ));
        }
        let granted: Vec<_> = known.into_iter().filter(|grant| grant.actors.admit(actor, agents)).collect();
        if granted.is_empty() {
            return Err(Rejection::new(
                Reason::ActionNotAllowed,
                &format!("action {} is not open to {}, nor to an agent above it", quote(action), quote(actor)),
            ));
        }
        let allowed: Vec<_> = granted.iter().flat_map(|grant| &grant.outcomes).map(String::as_str).collect();
        if !allowed.contains(&outcome) {
            return Err(Rejection::new(
                Reason::OutcomeNotAllowed,
                &format!(
                    "outcome {} is not one of {} for action {}",
                    quote(outcome),
                    allowed.join(", "),
                    quote(action)
                ),
            ));
        }
        Ok(())
    }

    /// Passes details that have the structure of their action. An action without a schema takes any object.
    pub(crate) fn check_details(&self, action: &str, details: &Json<'_>) -> Result<(), Rejection> {
        let mismatch = |what: &str| Err(Rejection::new(Reason::DetailsMismatch, what));
        // An exact name goes before a pattern, as `ActionName` sorts.
        let validator =
            self.details.iter().find(|(name, _)| name.matches(action)).map(|(_, details)| &details.validator);
        let is_vote = action == "VOTE_RECORDED";
        if validator.is_none() && !is_vote {
            return Ok(());
        }
        let details = details.to_value();
        if let Some(error) = validator.and_then(|validator| validator.iter_errors(&details).next()) {
            let place = error.instance_path().as_str().replace('/', ".");
            return mismatch(&format!("details{place} of {action}: {error}"));
        }
        if is_vote && let Some(contradiction) = contradiction_in_vote(&details) {
            return mismatch(&contradiction);
        }
        Ok(())
    }
}

/// `threshold_met` must say what the votes say (LDG-002, details of `VOTE_RECORDED`).
fn contradiction_in_vote(details: &Value) -> Option<String> {
    let votes = details.get("votes")?.as_object()?;
    // JSON Schema takes 2.0 for an integer.
    let required = details.get("threshold_required")?.as_f64()?;
    let claimed = details.get("threshold_met")?.as_bool()?;
    let approvals = votes.values().filter(|vote| vote.as_str() == Some("APPROVED")).count();
    (claimed != (f64::from(u32::try_from(approvals).unwrap_or(u32::MAX)) >= required)).then(|| {
        format!("details.threshold_met is {claimed}, but {approvals} of the votes are APPROVED and threshold_required is {required}")
    })
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
