//! Finds the records of a story, each by an index: events and usages by their task, events and decision trails by their proposal.

use crate::query::line::{Entry, RecordKind, TimelineLine, entry_columns, lines};
use crate::query::story::{Reference, ReferenceTarget, Step};
use sqlx::{FromRow, PgConnection};
use std::collections::{BTreeMap, BTreeSet};

/// The records found so far, by their leaves.
pub(crate) struct Steps {
    rows: BTreeMap<i64, Row>,
    each_max: i64,
    is_cut: bool,
}

#[derive(FromRow)]
struct Row {
    #[sqlx(flatten)]
    entry: Entry,
    task_id: Option<String>,
    proposal_id: Option<String>,
    /// A JSON object, or nothing.
    votes: Option<String>,
    threshold_required: Option<String>,
    threshold_met: Option<String>,
    reference_fields: Vec<String>,
    referenced_ids: Vec<String>,
}

/// Rows of a table that a lane fills, with their entries in custody. The range of one value makes the plan one through the index,
/// whatever the planner thinks of it; the newest come first, for equal keys are in the order of their rows.
macro_rules! rows_with_entries {
    ($columns:literal, $table:literal, $lane:literal, $key:literal) => {
        concat!(
            "select entry.*, found.*
            from (
                select found.id, found.lane, found.task_id, found.proposal_id, found.votes, found.threshold_required,
                    found.threshold_met, found.reference_fields, found.referenced_ids
                from unnest($1::text[]) as wanted (key)
                cross join lateral (
                    select id, ",
            $lane,
            " as lane, ",
            $columns,
            " from ",
            $table,
            " where ",
            $key,
            " >= wanted.key and ",
            $key,
            " <= wanted.key order by ",
            $key,
            " desc limit $2
                ) as found
                limit $2
            ) as found
            cross join lateral (
                select ",
            entry_columns!(),
            " from ledger.batches_of_rows(found.lane, found.id, found.id) as at_row (first_leaf)
                cross join lateral (select * from ledger.batch as held where held.first_leaf = at_row.first_leaf offset 0) as batch
                cross join lateral (select array_position(batch.row_ids, found.id) as at) as place
                where place.at is not null
                limit 1
            ) as entry"
        )
    };
}

macro_rules! events_by {
    ($key:literal) => {
        rows_with_entries!(
            "task_id::text as task_id, ledger.proposal_of(details) as proposal_id,
            case when jsonb_typeof(details -> 'votes') = 'object' and length((details -> 'votes')::text) < 4000
                then (details -> 'votes')::text end as votes,
            left(details ->> 'threshold_required', 40) as threshold_required,
            left(details ->> 'threshold_met', 40) as threshold_met,
            coalesce((select array_agg(item.key order by item.key) from jsonb_each_text(details) as item
                where item.key like '%\\_ref' and length(item.value) between 1 and 255), '{}') as reference_fields,
            coalesce((select array_agg(item.value order by item.key) from jsonb_each_text(details) as item
                where item.key like '%\\_ref' and length(item.value) between 1 and 255), '{}') as referenced_ids",
            "public.audit_events",
            "split_part(event_id, '-', 1)",
            $key
        )
    };
}

macro_rules! trails_by {
    ($key:literal) => {
        rows_with_entries!(
            "ledger.task_of(proposal) as task_id, ledger.proposal_of(proposal) as proposal_id,
            case when length(council_vote::text) < 4000 then council_vote::text end as votes,
            null::text as threshold_required, null::text as threshold_met,
            case when ledger_ref is null then '{}'::text[] else array['ledger_ref'] end as reference_fields,
            case when ledger_ref is null then '{}'::text[] else array[ledger_ref::text] end as referenced_ids",
            "public.decision_trails",
            "'TRAIL'::text",
            $key
        )
    };
}

const EVENTS_BY_TASK: &str = events_by!("task_id");
const EVENTS_BY_PROPOSAL: &str = events_by!("ledger.proposal_of(details)");
const TRAILS_BY_TASK: &str = trails_by!("ledger.task_of(proposal)");
const TRAILS_BY_PROPOSAL: &str = trails_by!("ledger.proposal_of(proposal)");
const USAGES_BY_TASK: &str = rows_with_entries!(
    "task_id, null::text as proposal_id, null::text as votes, null::text as threshold_required, null::text as threshold_met,
    '{}'::text[] as reference_fields, '{}'::text[] as referenced_ids",
    "ledger.token_usage",
    "'TOKENS'::text",
    "task_id"
);

/// An id as the indexes on ids inside JSON hold it.
const INDEXED_CHARS: usize = 200;

impl Steps {
    pub(crate) fn new(each_max: i64) -> Self {
        Self { rows: BTreeMap::new(), each_max, is_cut: false }
    }

    pub(crate) async fn of_tasks(
        &mut self,
        connection: &mut PgConnection,
        tasks: &BTreeSet<String>,
    ) -> Result<(), sqlx::Error> {
        let ids: Vec<String> = tasks.iter().cloned().collect();
        self.add(connection, EVENTS_BY_TASK, &ids).await?;
        self.add(connection, USAGES_BY_TASK, &ids).await?;
        self.add(connection, TRAILS_BY_TASK, &cut(tasks)).await
    }

    pub(crate) async fn of_proposals(
        &mut self,
        connection: &mut PgConnection,
        proposals: &BTreeSet<String>,
    ) -> Result<(), sqlx::Error> {
        let ids = cut(proposals);
        self.add(connection, EVENTS_BY_PROPOSAL, &ids).await?;
        self.add(connection, TRAILS_BY_PROPOSAL, &ids).await
    }

    async fn add(
        &mut self,
        connection: &mut PgConnection,
        statement: &'static str,
        ids: &[String],
    ) -> Result<(), sqlx::Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let found: Vec<Row> =
            sqlx::query_as(statement).persistent(false).bind(ids).bind(self.each_max).fetch_all(connection).await?;
        self.is_cut |= i64::try_from(found.len()).is_ok_and(|count| count >= self.each_max);
        self.rows.extend(found.into_iter().map(|row| (row.entry.leaf_index, row)));
        Ok(())
    }

    /// Whether there may be more than was read.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(crate) fn proposals(&self) -> BTreeSet<String> {
        self.rows.values().filter_map(|row| row.proposal_id.clone()).filter(|id| !id.is_empty()).collect()
    }

    pub(crate) fn tasks(&self) -> BTreeSet<String> {
        self.rows.values().filter_map(|row| row.task_id.clone()).filter(|id| !id.is_empty()).collect()
    }

    /// In the order of their times.
    pub(crate) async fn told(self, connection: &mut PgConnection) -> Result<Vec<Step>, sqlx::Error> {
        let entries: Vec<&Entry> = self.rows.values().map(|row| &row.entry).collect();
        let found = lines(connection, &entries).await?;
        let mut steps: Vec<Step> =
            self.rows.into_values().zip(found).filter_map(|(row, line)| Some(row.step(line?))).collect();
        steps.sort_by_key(|step| (step.line.at_us, step.line.leaf_index));
        Ok(steps)
    }
}

fn cut(ids: &BTreeSet<String>) -> Vec<String> {
    ids.iter().map(|id| id.chars().take(INDEXED_CHARS).collect()).collect()
}

impl Row {
    fn step(self, line: TimelineLine) -> Step {
        let votes: BTreeMap<String, serde_json::Value> =
            self.votes.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let said = |vote: serde_json::Value| vote.as_str().map_or_else(|| vote.to_string(), str::to_owned);
        let references = self.reference_fields.into_iter().zip(self.referenced_ids);
        let reference = |(field, event_id)| Reference { field, event_id, leads_to: ReferenceTarget::Nothing };
        Step {
            stage: stage(&line),
            proposal_id: self.proposal_id,
            votes: votes.into_iter().map(|(voter, vote)| (voter, said(vote))).collect(),
            threshold_required: self.threshold_required,
            threshold_met: self.threshold_met,
            references: references.map(reference).collect(),
            line,
        }
    }
}

fn stage(line: &TimelineLine) -> String {
    let stage = match (line.kind, line.lane.as_str()) {
        (RecordKind::TokenUsage, _) => "Token cost",
        (RecordKind::DecisionTrail, _) => "Decision",
        (_, "ROUTE") => "Route",
        (_, "PROP") => "Proposal",
        (_, "CLR") => "Clearance",
        (_, "VOTE") => "Vote",
        (_, "EXEC") => "Execution",
        (_, "TOOL") => "Tool",
        (_, "SEC") => "Security",
        (_, "ERR") => "Error",
        (_, prefix) => prefix,
    };
    stage.to_owned()
}
