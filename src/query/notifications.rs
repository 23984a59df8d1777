//! Notifications: the targets that are told of events, what waits for each, and what became of the last ones.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::record::lane::Lane;
use crate::record::table::Table;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which notifications are shown.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NotificationsFilter {
    /// Only those of this target.
    pub target: Option<String>,
    /// Only those in this state: delivered, waiting, failed or retry.
    pub state: Option<String>,
}

/// Targets, and the last notifications.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Notifications {
    pub targets: Vec<Target>,
    /// The newest first, at most 500. Each target keeps its last 500.
    pub notifications: Vec<SentNotification>,
}

/// Whom the daemon tells of events.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Target {
    pub name: String,
    /// The host of its URL. The rest may be secret, and is not in the database.
    pub host: String,
    pub events: Vec<String>,
    /// `delivering`; `failing`: the last attempt failed; `disabled`: it answered 410 Gone; `removed`: the settings no longer
    /// name it.
    pub state: String,
    /// Notifications that wait. Not counted further than about a thousand, of blocked events than the next 256 batches.
    pub waiting: i64,
    /// Notifications that were accepted.
    pub delivered: i64,
    pub failed_attempts: i64,
    /// Notifications that were given up, and are kept for a retry.
    pub given_up: i64,
    pub last_success_at: Option<String>,
    pub last_failure_at: Option<String>,
    /// The answer to the last attempt that failed.
    pub last_failure: Option<String>,
    /// The instance that delivers.
    pub delivered_by: Option<String>,
    /// How far it was told of each source that it asks for, such as `reject 41`.
    pub positions: Vec<String>,
}

/// A notification and what became of it.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct SentNotification {
    pub target: String,
    /// The header `webhook-id`.
    pub webhook_id: String,
    /// Such as `record.rejected`.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
    /// `budget`, `reject`, `blocked` or `notice`.
    pub source: String,
    /// Its number in the source; of a reject or a blocked event, the leaf.
    pub number: i64,
    pub occurred_at: String,
    /// `delivered`; `waiting`: it is tried again; `failed`: it was given up; `retry`: it is tried once more.
    pub state: String,
    pub attempts: i32,
    pub first_at: String,
    pub last_at: String,
    /// The status and the beginning of the body of the last answer, or why there was none.
    pub answer: String,
    pub took_ms: i32,
}

const LINES_MAX: i64 = 500;
/// As far as each source is counted.
const COUNT_MAX: i64 = 1_000;
/// Batches of one look at blocked events.
pub(crate) const BATCHES_MAX: i64 = 256;

impl Reader {
    pub async fn notifications(&self, filter: &NotificationsFilter) -> Result<Notifications, DatabaseError> {
        Ok(Notifications {
            targets: targets(&self.0, None).await?,
            notifications: self
                .0
                .run("reading notifications", async |connection| {
                    let asking = sqlx::query_as(NOTIFICATIONS).bind(&filter.target).bind(&filter.state).bind(LINES_MAX);
                    asking.fetch_all(connection).await
                })
                .await?,
        })
    }
}

/// All targets, or the one of this name.
pub(crate) async fn targets(connections: &Connections, name: Option<&str>) -> Result<Vec<Target>, DatabaseError> {
    connections
        .run("reading the targets of notifications", async |connection| {
            let asking = sqlx::query_as(TARGETS).bind(name).bind(other_lanes()).bind(COUNT_MAX).bind(BATCHES_MAX);
            asking.fetch_all(connection).await
        })
        .await
}

/// How many notifications wait for a target.
pub(crate) async fn waiting(connections: &Connections, name: &str) -> Result<i64, DatabaseError> {
    Ok(targets(connections, Some(name)).await?.first().map_or(0, |target| target.waiting))
}

/// The lanes whose rows are no audit events.
pub(crate) fn other_lanes() -> Vec<&'static str> {
    let others = Lane::BUILT_IN.into_iter().filter(|lane| lane.table() != Table::AuditEvents);
    others.map(Lane::prefix).collect()
}

const TARGETS: &str = "
    select target.name, host, events,
        case
            when removed_at is not null then 'removed'
            when disabled_at is not null then 'disabled'
            when last_failure_at > coalesce(last_success_at, '-infinity') then 'failing'
            else 'delivering'
        end as state,
        queue.waiting, delivered, failed_attempts,
        (
            select count(*)
            from ledger.notification
            where notification.target = target.name and notification.state = 'failed'
        ) as given_up,
        to_char(last_success_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as last_success_at,
        to_char(last_failure_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as last_failure_at,
        last_failure,
        case when leased_until > clock_timestamp() then leased_by end as delivered_by,
        queue.positions
    from ledger.notify_target as target
    cross join lateral (
        select coalesce(sum(counted.waiting), 0)::bigint as waiting,
            coalesce(array_agg(position.source || ' ' || position.last order by position.source), '{}') as positions
        from ledger.notify_position as position
        cross join lateral (
            select count(*) as waiting
            from (
                (
                    select 1 from ledger.budget_alert
                    where position.source = 'budget' and id > position.last
                    limit $3
                )
                union all
                (
                    select 1 from ledger.dead_letter
                    where position.source = 'reject' and leaf_index > position.last
                    limit $3
                )
                union all
                (
                    select 1 from ledger.notice
                    where position.source = 'notice' and id > position.last and event = any(target.events)
                    limit $3
                )
                union all
                (
                    select 1
                    from (
                        select first_leaf, lane, first_row_id, last_row_id, row_ids
                        from ledger.batch
                        where position.source = 'blocked'
                            and first_leaf >= (select max(first_leaf) from ledger.batch where first_leaf <= position.last + 1)
                        order by first_leaf
                        limit $4
                    ) as batch
                    join public.audit_events as event
                        on event.outcome = 'BLOCKED' and event.id between batch.first_row_id and batch.last_row_id
                    where batch.lane <> all($2)
                        and batch.first_leaf + array_position(batch.row_ids, event.id) - 1 > position.last
                    limit $3
                )
            ) as found
        ) as counted
        where position.target = target.name and position.last is not null
    ) as queue
    where $1::text is null or target.name = $1
    order by removed_at is not null, target.name";

const NOTIFICATIONS: &str = "
    select target, webhook_id, type, source, number, state, attempts, answer, took_ms,
        to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as occurred_at,
        to_char(first_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as first_at,
        to_char(kept.last_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as last_at
    from ledger.notification as kept
    where ($1::text is null or target = $1) and ($2::text is null or state = $2)
    order by kept.last_at desc, kept.occurred_at desc, target, slot
    limit $3";
