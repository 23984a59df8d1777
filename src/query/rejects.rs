//! The rejects: which reasons and agents they are of, one by one, and what was decided about each.

use crate::dead_letter::queries::{self as letters, Filter, Leaves, LetterSummary, Resolved, Shown};
use crate::dead_letter::resolution::{DecisionOutcome, LetterState};
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::query::fault_place::fault_place;
use crate::query::published::Published;
use crate::record::message::Headers;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which rejects are shown.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RejectFilter {
    /// Only those of this reason, such as `unknown_action`.
    pub reason: Option<String>,
    /// Only those of this agent, the last token of the subject.
    pub actor: Option<String>,
    /// Only those in this state: open, unfinished, requeued or discarded.
    pub state: Option<String>,
    /// Where the page before ended, as it said.
    pub cursor: Option<String>,
}

/// The newest rejects by reason and agent, and a page of those that match.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RejectsPage {
    /// How many rejects the groups are made of: the newest, at most 10,000.
    pub counted: i64,
    /// Whether these are all that there are.
    pub counted_all: bool,
    pub groups: Vec<RejectGroup>,
    /// The newest first.
    pub rejects: Vec<RejectLine>,
    /// For the next page. Each page looks at 10,000 rejects at most, so a page may be empty and have another behind it.
    pub next_cursor: Option<String>,
}

/// The rejects of one reason and one agent, among those that were counted.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub(crate) struct RejectGroup {
    pub reason: String,
    pub actor: String,
    pub count: i64,
    pub open: i64,
    pub unfinished: i64,
    pub requeued: i64,
    pub discarded: i64,
    pub first_seen: String,
    pub last_seen: String,
    /// The newest of them.
    pub example_leaf_index: i64,
    pub example_detail: String,
    /// Where that one was published as a reject.
    pub example_subject: String,
}

/// One reject of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RejectLine {
    pub leaf_index: i64,
    /// Names it in `ledgerd dlq`.
    pub reference: String,
    pub reason: String,
    pub detail: String,
    pub subject: String,
    pub sequence: i64,
    pub record_id: Option<String>,
    pub rejected_at: String,
    /// Whether it reached its subject.
    pub published: bool,
    /// open, unfinished, requeued or discarded.
    pub state: &'static str,
}

/// A reject with its bytes and its decisions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Reject {
    pub summary: RejectLine,
    pub dlq_subject: String,
    pub message: Published,
    /// The bytes around the fault, where the detail says where it is.
    pub fault: Option<MarkedFault>,
    pub decisions: Vec<RejectDecision>,
}

/// A message cut at its fault; bytes that are no text are escaped.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MarkedFault {
    pub before: String,
    pub fault: String,
    pub after: String,
}

/// What was decided about a reject.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RejectDecision {
    /// `REQUEUED` or `DISCARDED`.
    pub action: String,
    pub by: String,
    pub why: Option<String>,
    pub decided_at: String,
    /// The event that records it.
    pub event_id: String,
    /// Where the message is in the stream.
    pub sequence: Option<i64>,
    /// What became of it: awaited, accepted or rejected.
    pub outcome: Option<&'static str>,
    /// The reference of the reject that it became.
    pub rejected_as: Option<String>,
}

/// Rejects that one answer looks at: enough for a picture, and bounded however many there are.
const WINDOW: i64 = 10_000;
const GROUPS_MAX: i64 = 200;
const LINES_MAX: i64 = 25;

const GROUPS: &str = r#"
    with counted as materialized (
        select leaf_index, reason, split_part(dlq_subject, '.', 4) as actor, detail, dlq_subject, rejected_at
        from ledger.dead_letter
        order by leaf_index desc
        limit $1
    ),
    decided as (
        select distinct on (leaf_index) leaf_index, action, settled_at
        from ledger.resolution
        where leaf_index >= (select min(leaf_index) from counted)
        order by leaf_index, round desc
    )
    select reason, actor, count(*) as count,
        count(*) filter (where action is null) as open,
        count(*) filter (where action = 'REQUEUED' and settled_at is null) as unfinished,
        count(*) filter (where action = 'REQUEUED' and settled_at is not null) as requeued,
        count(*) filter (where action = 'DISCARDED') as discarded,
        to_char(min(rejected_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as first_seen,
        to_char(max(rejected_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as last_seen,
        max(leaf_index) as example_leaf_index,
        (array_agg(detail order by leaf_index desc))[1] as example_detail,
        (array_agg(dlq_subject order by leaf_index desc))[1] as example_subject
    from counted
    left join decided using (leaf_index)
    group by reason, actor
    order by open desc, count desc, reason, actor
    limit $2"#;

impl Reader {
    /// The rejects that match, with the picture of the newest.
    pub(crate) async fn rejects(&self, filter: &RejectFilter) -> Result<RejectsPage, DatabaseError> {
        let groups: Vec<RejectGroup> = self
            .0
            .run("counting rejects", async |connection| {
                sqlx::query_as(GROUPS).bind(WINDOW).bind(GROUPS_MAX).fetch_all(connection).await
            })
            .await?;
        let counted = self.window(i64::MAX).await?.map_or(0, |window| window.rejects);
        let (rejects, next_cursor) = self.lines(filter).await?;
        Ok(RejectsPage { counted, counted_all: counted < WINDOW, groups, rejects, next_cursor })
    }

    async fn lines(&self, filter: &RejectFilter) -> Result<(Vec<RejectLine>, Option<String>), DatabaseError> {
        let said = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        let before = filter.cursor.as_deref().and_then(|cursor| cursor.parse().ok()).unwrap_or(i64::MAX);
        let Some(window) = self.window(before).await? else { return Ok((Vec::new(), None)) };
        // A state that is none matches nothing.
        let states = said(&filter.state).map(|name| LetterState::named(&name).into_iter().collect());
        let wanted = Filter { reason: said(&filter.reason), actor: said(&filter.actor), states, ..Filter::default() };
        let found = letters::newest_within(&self.0, &wanted, window.leaves, LINES_MAX).await?;
        let is_page_full = i64::try_from(found.len()).is_ok_and(|lines| lines == LINES_MAX);
        let next = match found.last() {
            Some(last) if is_page_full => Some(last.leaf_index),
            _ => (window.rejects == WINDOW).then_some(window.leaves.after + 1),
        };
        Ok((found.into_iter().map(RejectLine::from).collect(), next.map(|leaf| leaf.to_string())))
    }

    async fn window(&self, before: i64) -> Result<Option<Window>, DatabaseError> {
        let query = "
            select min(leaf_index), max(leaf_index), count(*)
            from (select leaf_index from ledger.dead_letter where leaf_index < $1 order by leaf_index desc limit $2) as newest";
        let bounds: (Option<i64>, Option<i64>, i64) = self
            .0
            .run("looking how far rejects go back", async |connection| {
                sqlx::query_as(query).bind(before).bind(WINDOW).fetch_one(connection).await
            })
            .await?;
        let (Some(first), Some(last), count) = bounds else { return Ok(None) };
        Ok(Some(Window { leaves: Leaves { after: first - 1, up_to: last }, rejects: count }))
    }

    /// The reject of a leaf.
    pub(crate) async fn reject(&self, leaf_index: i64) -> Result<Option<Reject>, DatabaseError> {
        let Some(found) = letters::at_leaf(&self.0, leaf_index).await? else { return Ok(None) };
        Ok(Some(Reject::of(letters::show(&self.0, found).await?)))
    }
}

/// The leaves that one page looks at.
struct Window {
    leaves: Leaves,
    /// How many these are.
    rejects: i64,
}

impl From<LetterSummary> for RejectLine {
    fn from(letter: LetterSummary) -> Self {
        Self {
            leaf_index: letter.leaf_index,
            reference: letter.reference,
            reason: letter.reason,
            detail: letter.detail,
            subject: letter.subject,
            sequence: letter.sequence,
            record_id: letter.record_id,
            rejected_at: letter.rejected_at,
            published: letter.published,
            state: letter.state.name(),
        }
    }
}

impl Reject {
    fn of(shown: Shown) -> Self {
        let Shown { listed, dlq_subject, headers, payload, resolutions } = shown;
        let text = |bytes: &[u8]| Published::of(Some(bytes), &Headers::NONE).payload.unwrap_or_default();
        let fault = fault_place(&payload, &listed.detail).map(|place| MarkedFault {
            before: text(&payload[..place.start]),
            fault: text(&payload[place.clone()]),
            after: text(&payload[place.end..]),
        });
        Self {
            message: Published::of(Some(&payload), &Headers::from_stored(headers)),
            fault,
            dlq_subject,
            decisions: resolutions.into_iter().map(RejectDecision::from).collect(),
            summary: listed.into(),
        }
    }
}

impl From<Resolved> for RejectDecision {
    fn from(resolved: Resolved) -> Self {
        let (outcome, rejected_as) = match resolved.outcome {
            None => (None, None),
            Some(DecisionOutcome::Awaited) => (Some("awaited"), None),
            Some(DecisionOutcome::Accepted) => (Some("accepted"), None),
            Some(DecisionOutcome::Rejected(reference)) => (Some("rejected"), Some(reference)),
        };
        Self {
            action: resolved.action,
            by: resolved.by,
            why: resolved.why,
            decided_at: resolved.decided_at,
            event_id: resolved.event_id,
            sequence: resolved.sequence,
            outcome,
            rejected_as,
        }
    }
}
