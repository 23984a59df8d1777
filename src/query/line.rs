//! Lines of the timeline: what each entry of custody says, in the words of its table.

use crate::record::lane::Lane;
use crate::record::subject::lane_of;
use crate::record::table::Table;
use crate::record::timestamp::EventTime;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use std::collections::HashMap;
use utoipa::ToSchema;

/// What an entry is a record of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecordKind {
    Event,
    TokenUsage,
    DecisionTrail,
    Metric,
    ToolUse,
}

impl RecordKind {
    fn of_lane(lane: &str) -> Self {
        match lane.parse::<Lane>().map(Lane::table) {
            Ok(Table::TokenLedger) => Self::TokenUsage,
            Ok(Table::DecisionTrails) => Self::DecisionTrail,
            Ok(Table::EconomicMetrics) => Self::Metric,
            Ok(Table::ToolUsageLedger) => Self::ToolUse,
            // A lane that a registry file has added is known to the daemon alone.
            Ok(Table::AuditEvents) | Err(_) => Self::Event,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::TokenUsage => "token usage",
            Self::DecisionTrail => "decision trail",
            Self::Metric => "metric",
            Self::ToolUse => "tool use",
        }
    }
}

/// One line of the timeline: a record, or a reject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
pub(crate) struct TimelineLine {
    /// The place in the ledger's log.
    pub(crate) leaf_index: i64,
    /// In UTC. The time that an event or a usage of tokens gives; otherwise when the stream took the record, or when it was rejected.
    pub(crate) time: String,
    #[serde(skip)]
    pub(crate) at_us: i64,
    /// Who published it: the last token of its subject.
    pub(crate) actor: String,
    pub(crate) lane: String,
    pub(crate) kind: RecordKind,
    /// What an event did.
    pub(crate) action: Option<String>,
    /// The event's or the trail's own; `recorded` where a record has none; `rejected`.
    pub(crate) outcome: String,
    /// Why it was rejected: a code, and a sentence.
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) task_id: Option<String>,
    /// The event's, trail's or usage's id, or the metric's key.
    pub(crate) record_id: Option<String>,
    /// What a record that is no event says, in short.
    pub(crate) summary: Option<String>,
    /// The W3C trace that its header `traceparent` names.
    pub(crate) trace_id: Option<String>,
}

/// The outcome of a line whose message was rejected.
pub(crate) const REJECTED: &str = "rejected";
/// The outcome of a record that has none of its own.
pub(crate) const RECORDED: &str = "recorded";

impl TimelineLine {
    pub(crate) fn is_reject(&self) -> bool {
        self.reason.is_some()
    }

    /// What it is, in few words: the action of an event, the kind of any other record.
    pub(crate) fn what(&self) -> &str {
        self.action.as_deref().unwrap_or(self.kind.name())
    }
}

/// An entry of custody, without its bytes.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Entry {
    pub(crate) leaf_index: i64,
    pub(crate) subject: String,
    pub(crate) server_time_ns: i64,
    /// r recorded, d duplicate, x rejected.
    pub(crate) disposition: String,
    pub(crate) record_id: Option<String>,
    pub(crate) row_id: Option<i64>,
    pub(crate) trace_id: Option<String>,
}

/// The columns of an [`Entry`]: of a `batch`, the item at `place.at`.
macro_rules! entry_columns {
    () => {
        "batch.first_leaf + place.at - 1 as leaf_index,
        batch.subjects[place.at] as subject,
        batch.server_times_ns[place.at] as server_time_ns,
        batch.dispositions[place.at]::text as disposition,
        batch.record_ids[place.at] as record_id,
        batch.row_ids[place.at] as row_id,
        ledger.trace_id(batch.headers[place.at]) as trace_id"
    };
}
pub(crate) use entry_columns;

/// What the tables say of some entries, by row or by leaf.
#[derive(Default)]
struct Facts {
    events: HashMap<i64, EventFacts>,
    usages: HashMap<i64, UsageFacts>,
    trails: HashMap<i64, TrailFacts>,
    metrics: HashMap<i64, MetricFacts>,
    rejects: HashMap<i64, RejectFacts>,
}

#[derive(FromRow)]
struct EventFacts {
    id: i64,
    action: String,
    outcome: String,
    task_id: Option<String>,
    at_us: i64,
}

#[derive(FromRow)]
struct UsageFacts {
    id: i64,
    task_id: Option<String>,
    timestamp_text: Option<String>,
    summary: String,
}

#[derive(FromRow)]
struct TrailFacts {
    id: i64,
    outcome: String,
    task_id: Option<String>,
    proposal_id: Option<String>,
}

#[derive(FromRow)]
struct MetricFacts {
    id: i64,
    metric_value: String,
}

#[derive(FromRow)]
struct RejectFacts {
    leaf_index: i64,
    reason: String,
    detail: String,
    at_us: i64,
}

/// The lines of entries, in the order of these. A duplicate, and a record whose row was erased, gives none.
pub(crate) async fn lines(
    connection: &mut PgConnection,
    entries: &[&Entry],
) -> Result<Vec<Option<TimelineLine>>, sqlx::Error> {
    let facts = facts(connection, entries).await?;
    Ok(entries.iter().map(|entry| facts.line(entry)).collect())
}

async fn facts(connection: &mut PgConnection, entries: &[&Entry]) -> Result<Facts, sqlx::Error> {
    let rows = |kind| -> Vec<i64> {
        let of_kind =
            |entry: &&&Entry| entry.disposition == "r" && RecordKind::of_lane(lane_of(&entry.subject)) == kind;
        entries.iter().filter(of_kind).filter_map(|entry| entry.row_id).collect()
    };
    let rejected: Vec<i64> =
        entries.iter().filter(|entry| entry.disposition == "x").map(|entry| entry.leaf_index).collect();
    let mut facts = Facts::default();
    let ids = rows(RecordKind::Event);
    if !ids.is_empty() {
        let found: Vec<EventFacts> = sqlx::query_as(
            "select id, action, outcome, task_id, (extract(epoch from timestamp) * 1000000)::bigint as at_us
            from public.audit_events
            where id = any ($1)",
        )
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        facts.events = found.into_iter().map(|event| (event.id, event)).collect();
    }
    let ids = rows(RecordKind::TokenUsage);
    if !ids.is_empty() {
        let found: Vec<UsageFacts> = sqlx::query_as(
            "select id, task_id, timestamp_text,
                format('%s tokens in, %s out, %s USD', tokens_input, tokens_output, trim_scale(cost_usd)) as summary
            from ledger.token_usage
            where id = any ($1)",
        )
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        facts.usages = found.into_iter().map(|usage| (usage.id, usage)).collect();
    }
    let ids = rows(RecordKind::DecisionTrail);
    if !ids.is_empty() {
        let found: Vec<TrailFacts> = sqlx::query_as(
            "select id, outcome, ledger.task_of(proposal) as task_id, ledger.proposal_of(proposal) as proposal_id
            from public.decision_trails
            where id = any ($1)",
        )
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        facts.trails = found.into_iter().map(|trail| (trail.id, trail)).collect();
    }
    let ids = rows(RecordKind::Metric);
    if !ids.is_empty() {
        let found: Vec<MetricFacts> = sqlx::query_as(
            "select id, trim_scale(metric_value)::text as metric_value from public.economic_metrics where id = any ($1)",
        )
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        facts.metrics = found.into_iter().map(|metric| (metric.id, metric)).collect();
    }
    if !rejected.is_empty() {
        let found: Vec<RejectFacts> = sqlx::query_as(
            "select leaf_index, reason, detail, (extract(epoch from rejected_at) * 1000000)::bigint as at_us
            from ledger.dead_letter
            where leaf_index = any ($1)",
        )
        .bind(rejected)
        .fetch_all(&mut *connection)
        .await?;
        facts.rejects = found.into_iter().map(|reject| (reject.leaf_index, reject)).collect();
    }
    Ok(facts)
}

impl Facts {
    fn line(&self, entry: &Entry) -> Option<TimelineLine> {
        let mut tokens = entry.subject.splitn(3, '.').skip(1);
        let (prefix, actor) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
        let plain = TimelineLine {
            leaf_index: entry.leaf_index,
            time: String::new(),
            at_us: entry.server_time_ns / 1000,
            actor: actor.to_owned(),
            lane: prefix.to_owned(),
            kind: RecordKind::of_lane(prefix),
            action: None,
            outcome: RECORDED.to_owned(),
            reason: None,
            detail: None,
            task_id: None,
            record_id: entry.record_id.clone(),
            summary: None,
            trace_id: entry.trace_id.clone(),
        };
        let line = match entry.disposition.as_str() {
            "r" => self.recorded(plain, entry.row_id)?,
            "x" => self.rejected(plain)?,
            _ => return None,
        };
        Some(TimelineLine { time: utc(line.at_us), ..line })
    }

    fn recorded(&self, line: TimelineLine, row_id: Option<i64>) -> Option<TimelineLine> {
        if line.kind == RecordKind::ToolUse {
            return Some(line);
        }
        let row = row_id?;
        Some(match line.kind {
            RecordKind::Event => {
                let event = self.events.get(&row)?;
                TimelineLine {
                    at_us: event.at_us,
                    action: Some(event.action.clone()),
                    outcome: event.outcome.clone(),
                    task_id: event.task_id.clone(),
                    ..line
                }
            }
            RecordKind::TokenUsage => {
                let usage = self.usages.get(&row)?;
                let at_us = usage.timestamp_text.as_deref().and_then(at_us).unwrap_or(line.at_us);
                TimelineLine { at_us, task_id: usage.task_id.clone(), summary: Some(usage.summary.clone()), ..line }
            }
            RecordKind::DecisionTrail => {
                let trail = self.trails.get(&row)?;
                TimelineLine {
                    outcome: trail.outcome.clone(),
                    task_id: trail.task_id.clone(),
                    summary: trail.proposal_id.as_ref().map(|id| format!("proposal {id}")),
                    ..line
                }
            }
            RecordKind::Metric => {
                let metric = self.metrics.get(&row)?;
                let key = line.record_id.as_deref().unwrap_or_default();
                TimelineLine { summary: Some(format!("{key} = {}", metric.metric_value)), ..line }
            }
            RecordKind::ToolUse => line,
        })
    }

    fn rejected(&self, line: TimelineLine) -> Option<TimelineLine> {
        let reject = self.rejects.get(&line.leaf_index)?;
        Some(TimelineLine {
            at_us: reject.at_us,
            outcome: REJECTED.to_owned(),
            reason: Some(reject.reason.clone()),
            detail: Some(reject.detail.clone()),
            ..line
        })
    }
}

/// The moment of a timestamp that was accepted, in microseconds since 1970.
pub(crate) fn at_us(timestamp: &str) -> Option<i64> {
    let utc: jiff::Timestamp = format!("{}Z", EventTime::parse(timestamp.to_owned()).ok()?.utc()).parse().ok()?;
    Some(utc.as_microsecond())
}

/// A moment as text: `2026-02-20T17:47:14.568Z`.
pub(crate) fn utc(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us).map_or_else(|_| at_us.to_string(), |moment| moment.to_string())
}
