//! The sources of notifications: the queries that find the next event after a position, and its content.

use crate::config::NotifyEvent;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::query::notifications::{BATCHES_MAX, other_lanes};
use crate::record::message::utc_text;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use strum::{EnumString, IntoStaticStr};

/// Where events come from. Within a source their numbers are in the order of the commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(crate) enum Source {
    /// By the id of `ledger.budget_alert`, which is given under the lock on the tree head.
    Budget,
    /// By the leaf of `ledger.dead_letter`.
    Reject,
    /// By the leaf of the event.
    Blocked,
    /// By the id of `ledger.notice`: what no commit of records causes.
    Notice,
}

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        self.into_str()
    }

    /// Where an event comes from.
    pub(crate) fn of(event: NotifyEvent) -> Self {
        match event {
            NotifyEvent::Budget => Self::Budget,
            NotifyEvent::Reject => Self::Reject,
            NotifyEvent::Blocked => Self::Blocked,
            NotifyEvent::Stall | NotifyEvent::Integrity => Self::Notice,
        }
    }
}

/// An event on its way to a target.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    pub source: Source,
    pub number: i64,
    /// In microseconds since 1970.
    pub occurred_us: i64,
    /// Such as `record.rejected`.
    pub kind: String,
    data: Box<RawValue>,
}

/// The body of a webhook.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: String,
    data: &'a RawValue,
}

impl Notification {
    /// The same for each attempt and each target. After a restore another event may have the number, at another time.
    pub(crate) fn webhook_id(&self) -> String {
        format!("{}-{}-{}", self.source.name(), self.occurred_us, self.number)
    }

    /// The body, which is the same for each attempt.
    pub(crate) fn body(&self) -> String {
        let timestamp = utc_text(self.occurred_us.saturating_mul(1000));
        let body = Body { kind: &self.kind, timestamp, data: &self.data };
        serde_json::to_string(&body).expect("its parts are JSON")
    }

    /// What `ledgerd notify test` sends.
    pub(crate) fn test(target: &str, now_us: i64) -> Self {
        let data = serde_json::json!({ "target": target, "text": "a test of ledgerd: nothing has happened" });
        let data = serde_json::value::to_raw_value(&data).expect("an object");
        Self { source: Source::Notice, number: 0, occurred_us: now_us, kind: "test".to_owned(), data }
    }
}

/// What a source has after a position.
#[derive(Debug)]
pub(crate) struct Found {
    pub next: Option<Notification>,
    /// Nothing is there up to this number; the next look may begin behind it.
    pub passed: i64,
}

/// The first event of a source after a number. Of notices, only `events` are asked for.
pub(crate) async fn next(
    connections: &Connections,
    source: Source,
    after: i64,
    events: &[&str],
) -> Result<Found, DatabaseError> {
    connections
        .run("looking for notifications", async |connection| {
            let statement = match source {
                Source::Budget => BUDGET,
                Source::Reject => REJECT,
                Source::Notice => NOTICE,
                Source::Blocked => return next_blocked(connection, after).await,
            };
            let row = sqlx::query(statement).bind(after).bind(events).fetch_optional(connection).await?;
            let next = row.map(|row| notification(source, &row)).transpose()?;
            Ok(Found { passed: next.as_ref().map_or(after, |next| next.number - 1), next })
        })
        .await
}

fn notification(source: Source, row: &PgRow) -> Result<Notification, sqlx::Error> {
    let data: String = row.try_get("data")?;
    Ok(Notification {
        source,
        number: row.try_get("number")?,
        occurred_us: row.try_get("occurred_us")?,
        kind: row.try_get("kind")?,
        data: RawValue::from_string(data).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

/// Goes through one page of batches.
async fn next_blocked(connection: &mut PgConnection, after: i64) -> Result<Found, sqlx::Error> {
    let asking = sqlx::query(BLOCKED).bind(after).bind(other_lanes()).bind(BATCHES_MAX);
    let Some(row) = asking.fetch_optional(connection).await? else { return Ok(Found { next: None, passed: after }) };
    if row.try_get::<Option<i64>, _>("number")?.is_none() {
        return Ok(Found { next: None, passed: row.try_get::<i64, _>("passed")?.max(after) });
    }
    let next = notification(Source::Blocked, &row)?;
    Ok(Found { passed: next.number - 1, next: Some(next) })
}

const BUDGET: &str = "
    select id as number, (extract(epoch from raised_at) * 1000000)::bigint as occurred_us,
        'budget.status_changed' as kind,
        json_build_object(
            'agent_name', agent_name, 'date', date, 'old_status', old_status, 'new_status', new_status,
            'spent_usd', trim_scale(spent_usd)::text, 'limit_usd', trim_scale(limit_usd)::text, 'limit_key', limit_key
        )::text as data
    from ledger.budget_alert
    where id > $1 and $2::text[] is not null
    order by id
    limit 1";

/// The bytes of a dead letter may hold anything, and are not sent.
const REJECT: &str = "
    with letter as materialized (
        select leaf_index, reason, detail, rejected_at, split_part(dlq_subject, '.', 5) as reference
        from ledger.dead_letter
        where leaf_index > $1 and $2::text[] is not null
        order by leaf_index
        limit 1
    )
    select letter.leaf_index as number, (extract(epoch from rejected_at) * 1000000)::bigint as occurred_us,
        'record.rejected' as kind,
        json_build_object(
            'leaf_index', letter.leaf_index, 'reference', reference, 'reason', reason, 'detail', detail,
            'record_id', entry.record_id, 'lane', split_part(entry.subject, '.', 2),
            'actor', split_part(entry.subject, '.', 3), 'epoch', entry.epoch, 'sequence', entry.sequence
        )::text as data
    from letter
    left join lateral ledger.entry_at(letter.leaf_index) as entry on true";

/// Events are looked up by batch, because their own numbers are not in the order of the commits.
const BLOCKED: &str = "
    with page as materialized (
        select first_leaf, leaves, lane, committed_at, first_row_id, last_row_id, row_ids
        from ledger.batch
        where first_leaf >= (select max(first_leaf) from ledger.batch where first_leaf <= $1 + 1)
        order by first_leaf
        limit $3
    ),
    found as (
        select page.first_leaf + array_position(page.row_ids, event.id) - 1 as leaf_index, page.committed_at, event.*
        from page
        join public.audit_events as event
            on event.outcome = 'BLOCKED' and event.id between page.first_row_id and page.last_row_id
        where page.lane <> all($2) and page.first_leaf + array_position(page.row_ids, event.id) - 1 > $1
        order by 1
        limit 1
    )
    select passed.passed, leaf_index as number, (extract(epoch from committed_at) * 1000000)::bigint as occurred_us,
        'event.blocked' as kind,
        json_build_object(
            'leaf_index', leaf_index, 'event_id', event_id, 'actor', actor, 'action', action, 'outcome', outcome,
            'task_id', task_id, 'timestamp', timestamp_text, 'integrity_hash', integrity_hash,
            -- A receiver may refuse large bodies: what is longer is read from the ledger.
            'details', case when octet_length(details::text) <= 8192 then details end
        )::text as data
    from (select max(first_leaf + leaves) - 1 as passed from page) as passed
    left join found on true
    where passed.passed is not null";

const NOTICE: &str = "
    select id as number, (extract(epoch from raised_at) * 1000000)::bigint as occurred_us, type as kind,
        data::text as data
    from ledger.notice
    where id > $1 and event = any($2)
    order by id
    limit 1";
