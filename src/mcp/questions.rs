//! The arguments of the tools. A field that is not here is an error that names those that are.

use crate::query::timeline::TimelineFilter;
use schemars::JsonSchema;
use serde::Deserialize;

/// Which lines of the timeline are wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SearchEvents {
    /// Only what this agent published, such as BRM-CTO.
    actor: Option<String>,
    /// Only records of this task.
    task: Option<String>,
    /// Only this lane: EXEC, VOTE, PROP, CLR, SEC, TOOL, SYS, ROUTE, CORP, N8N, ERR, TOKENS, TRAIL, METRIC or USAGE.
    lane: Option<String>,
    /// Only this outcome, such as SUCCESS, FAILURE, BLOCKED, APPROVED or DENIED. `rejected` means messages that were no good records.
    outcome: Option<String>,
    /// Only from this moment on: a UTC day such as 2026-02-20, or a time such as 2026-02-20T17:47:14Z.
    since: Option<String>,
    /// Only before this moment.
    until: Option<String>,
    /// The `next` of the answer before; leave it out for the newest.
    cursor: Option<String>,
    /// How many lines, 100 at most; 50 by default.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u16>,
}

/// More lines come with the cursor.
pub(crate) const LINES_MAX: u16 = 100;
const LINES_DEFAULT: u16 = 50;

impl SearchEvents {
    pub(crate) fn filter(self) -> Result<TimelineFilter, String> {
        let limit = self.limit.unwrap_or(LINES_DEFAULT);
        if !(1..=LINES_MAX).contains(&limit) {
            return Err(format!("limit is {limit}; it must be from 1 to {LINES_MAX}"));
        }
        let Self { actor, task, lane, outcome, since, until, cursor, .. } = self;
        Ok(TimelineFilter { actor, task, lane, outcome, since, until, cursor, limit: Some(limit) })
    }
}

/// Which dead letters are wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeadLetters {
    /// Only what this agent published.
    pub(crate) actor: Option<String>,
    /// Only this lane, such as EXEC.
    pub(crate) lane: Option<String>,
    /// Only from this moment on: a UTC day, or a time.
    pub(crate) since: Option<String>,
    /// Only before this moment.
    pub(crate) until: Option<String>,
    /// The `next` of the answer before; leave it out for the newest.
    pub(crate) cursor: Option<String>,
    /// How many, 100 at most; 50 by default.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) limit: Option<u16>,
}

impl DeadLetters {
    pub(crate) fn filter(self) -> Result<TimelineFilter, String> {
        let Self { actor, lane, since, until, cursor, limit } = self;
        let outcome = Some(crate::query::line::REJECTED.to_owned());
        SearchEvents { actor, lane, outcome, since, until, cursor, limit, task: None }.filter()
    }
}

/// Which entry is meant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WhichEntry {
    /// Any id: of an event, a trail, a token usage or a tool usage, the key of a metric, the reference of a reject, or a trace.
    pub(crate) id: Option<String>,
    /// The entry's own number in the log, which is never ambiguous.
    pub(crate) leaf_index: Option<u64>,
}

/// Which entry is to be proven.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Prove {
    /// Any id of the entry.
    pub(crate) id: Option<String>,
    /// The entry's own number in the log.
    pub(crate) leaf_index: Option<u64>,
    /// Leave the publisher's bytes and headers out: the proof then shows their SHA-256 alone, and is small.
    pub(crate) without_content: bool,
}

/// Whose story is wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TaskTimeline {
    /// The task, such as TASK-1001.
    pub(crate) task_id: Option<String>,
    /// Or the proposal, such as SRN-TEL-1001.
    pub(crate) proposal_id: Option<String>,
    /// The `next` of the answer before; leave it out for the first steps.
    pub(crate) cursor: Option<String>,
}

/// Whose money is meant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentBudget {
    /// The agent's name, such as SRN-MRS-01.
    pub(crate) agent: String,
    /// How many days back, 90 at most; 7 by default.
    #[schemars(range(min = 1, max = 90))]
    #[serde(default)]
    pub(crate) days: Option<u32>,
}

/// Nothing is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}
