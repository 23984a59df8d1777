//! The story of a task or of a proposal: what was recorded about it in any table, in order, with what it cost and with the
//! references that lead nowhere.

mod steps;

use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::query::line::TimelineLine;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Task,
    Proposal,
}

/// Everything that was recorded about a task or a proposal.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Story {
    pub(crate) about: Subject,
    pub(crate) id: String,
    /// The tasks that it spans.
    pub(crate) tasks: Vec<String>,
    /// The proposals that it speaks of.
    pub(crate) proposals: Vec<String>,
    /// The oldest first.
    pub(crate) steps: Vec<Step>,
    pub(crate) cost: Cost,
    /// How many references lead nowhere.
    pub(crate) dangling: usize,
    /// Whether there is more than is shown: the newest are.
    pub(crate) is_cut: bool,
}

/// One record of a story.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Step {
    /// Which part of the work it is: `Route`, `Proposal`, `Clearance`, `Vote`, `Execution`, and so on.
    pub(crate) stage: String,
    #[serde(flatten)]
    pub(crate) line: TimelineLine,
    pub(crate) proposal_id: Option<String>,
    /// Who voted what.
    pub(crate) votes: BTreeMap<String, String>,
    /// Approvals that the vote needed.
    pub(crate) threshold_required: Option<String>,
    pub(crate) threshold_met: Option<String>,
    /// The events that it names.
    pub(crate) references: Vec<Reference>,
}

/// A name of an event in another record.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Reference {
    /// The field that holds it, such as `council_vote_ref`.
    pub(crate) field: String,
    pub(crate) event_id: String,
    pub(crate) leads_to: ReferenceTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReferenceTarget {
    Recorded,
    /// It was recorded, and was erased by the word of the Architect.
    Erased,
    Nothing,
}

/// The sum of the usages of tokens that name the tasks.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema, FromRow)]
pub(crate) struct Cost {
    pub(crate) calls: i64,
    pub(crate) tokens_input: String,
    pub(crate) tokens_output: String,
    #[serde(rename = "cost_usd")]
    pub(crate) usd: String,
    /// There are more calls than were added up.
    pub(crate) is_partial: bool,
}

/// Tasks or proposals that one story spans.
const SPAN_MAX: usize = 20;
/// Records of each kind that a story shows.
const STEPS_MAX: i64 = 500;
/// Usages that are added up.
const USAGES_MAX: i64 = 20_000;

impl Reader {
    /// The story of a task or a proposal. `None` where no record names it.
    pub(crate) async fn story(&self, about: Subject, id: &str) -> Result<Option<Story>, DatabaseError> {
        self.0.run("reading a story", async |connection| read(connection, about, id).await).await
    }
}

async fn read(connection: &mut PgConnection, about: Subject, id: &str) -> Result<Option<Story>, sqlx::Error> {
    let mut found = steps::Steps::new(STEPS_MAX);
    let (mut tasks, mut proposals) = (BTreeSet::new(), BTreeSet::new());
    match about {
        Subject::Task => {
            tasks.insert(id.to_owned());
            found.of_tasks(connection, &tasks).await?;
            proposals.extend(found.proposals().into_iter().take(SPAN_MAX));
            found.of_proposals(connection, &proposals).await?;
        }
        Subject::Proposal => {
            proposals.insert(id.to_owned());
            found.of_proposals(connection, &proposals).await?;
            tasks.extend(found.tasks().into_iter().take(SPAN_MAX));
            found.of_tasks(connection, &tasks).await?;
        }
    }
    let is_cut = found.is_cut();
    let mut steps = found.told(connection).await?;
    if steps.is_empty() {
        return Ok(None);
    }
    let dangling = settle_references(connection, &mut steps).await?;
    let cost = cost(connection, &tasks).await?;
    let listed = |set: BTreeSet<String>| set.into_iter().collect();
    Ok(Some(Story {
        about,
        id: id.to_owned(),
        tasks: listed(tasks),
        proposals: listed(proposals),
        steps,
        cost,
        dangling,
        is_cut,
    }))
}

/// Finds out which references lead somewhere, and counts those that do not.
async fn settle_references(connection: &mut PgConnection, steps: &mut [Step]) -> Result<usize, sqlx::Error> {
    let named: BTreeSet<String> =
        steps.iter().flat_map(|step| step.references.iter().map(|reference| reference.event_id.clone())).collect();
    let known: Vec<(String, bool)> = sqlx::query_as(
        "select wanted.event_id, event.event_id is null as is_erased
        from unnest($1::text[]) as wanted (event_id)
        left join public.audit_events as event on event.event_id = wanted.event_id
        left join lateral (
            select from ledger.removal where row_key = wanted.event_id and table_name = 'audit_events' limit 1
        ) as removal on event.event_id is null
        where event.event_id is not null or removal is not null",
    )
    .persistent(false)
    .bind(named.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let known: BTreeMap<String, bool> = known.into_iter().collect();
    let mut dangling = 0;
    for reference in steps.iter_mut().flat_map(|step| &mut step.references) {
        reference.leads_to = match known.get(&reference.event_id) {
            Some(false) => ReferenceTarget::Recorded,
            Some(true) => ReferenceTarget::Erased,
            None => ReferenceTarget::Nothing,
        };
        dangling += usize::from(reference.leads_to == ReferenceTarget::Nothing);
    }
    Ok(dangling)
}

async fn cost(connection: &mut PgConnection, tasks: &BTreeSet<String>) -> Result<Cost, sqlx::Error> {
    sqlx::query_as(
        "select count(*) as calls, coalesce(sum(tokens_input), 0)::text as tokens_input,
            coalesce(sum(tokens_output), 0)::text as tokens_output, trim_scale(coalesce(sum(cost_usd), 0))::text as usd,
            count(*) = $2 as is_partial
        from (
            select usage.*
            from unnest($1::text[]) as wanted (task_id)
            cross join lateral (
                select tokens_input, tokens_output, cost_usd
                from ledger.token_usage
                where task_id >= wanted.task_id and task_id <= wanted.task_id
                order by task_id desc
                limit $2
            ) as usage
            limit $2
        ) as usage",
    )
    .persistent(false)
    .bind(tasks.iter().collect::<Vec<_>>())
    .bind(USAGES_MAX)
    .fetch_one(connection)
    .await
}
