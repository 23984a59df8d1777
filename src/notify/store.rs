//! The statements on the targets: who delivers to each, how far it was told, and what became of its notifications.

use crate::config::{NotifyEvent, NotifyTarget};
use crate::notify::sender::{Attempt, Verdict};
use crate::notify::sources::{Notification, Source};
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::digest::{hex, sha256};
use sqlx::Row;
use std::collections::BTreeSet;
use std::time::Duration;

/// Notifications that are kept of each target.
const SLOTS: i32 = 500;
/// Beyond an attempt, a lease lasts this long, and is renewed when so much of it is left.
const LEASE_SLACK: Duration = Duration::from_secs(10);
const LEASE_LEFT_MIN: Duration = Duration::from_secs(3);

/// The targets in PostgreSQL, as one instance sees them.
#[derive(Debug)]
pub(crate) struct NotifyStore {
    pub connections: Connections,
    pub instance: String,
}

/// What the holder of a lease must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leased {
    /// The target has answered 410.
    pub is_disabled: bool,
    /// An operator wants an attempt at once.
    pub retry: bool,
}

/// What is done with a notification after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    /// It is tried again.
    Waiting,
    /// It was given up.
    Failed,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

/// The sources that a target asks for.
pub(crate) fn sources(events: &BTreeSet<NotifyEvent>) -> BTreeSet<Source> {
    events.iter().map(|event| Source::of(*event)).collect()
}

impl NotifyStore {
    /// Writes down which targets there are. A new one, and a source that is new to one, begins at the present.
    pub(crate) async fn register(&self, targets: &[NotifyTarget]) -> Result<(), DatabaseError> {
        self.connections
            .run("registering the targets of notifications", async |connection| {
                for target in targets {
                    let events: Vec<&str> = target.events.iter().map(|event| event.name()).collect();
                    let sources: Vec<&str> = sources(&target.events).into_iter().map(Source::name).collect();
                    sqlx::query(REGISTER)
                        .bind(&target.name)
                        .bind(target.host())
                        .bind(hex(&sha256(target.url.as_str().as_bytes())))
                        .bind(events)
                        .bind(sources)
                        .execute(&mut *connection)
                        .await?;
                }
                let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
                sqlx::query(
                    "update ledger.notify_target set removed_at = clock_timestamp()
                    where name <> all($1) and removed_at is null",
                )
                .bind(names)
                .execute(connection)
                .await?;
                Ok(())
            })
            .await
    }

    /// Takes or renews the lease of a target for an attempt. `None`: another instance delivers.
    pub(crate) async fn lease(&self, target: &NotifyTarget) -> Result<Option<Leased>, DatabaseError> {
        let row = self
            .connections
            .run("leasing a target of notifications", async |connection| {
                sqlx::query(LEASE)
                    .bind(&target.name)
                    .bind(&self.instance)
                    .bind((target.timeout + LEASE_SLACK).as_secs_f64())
                    .bind((target.timeout + LEASE_LEFT_MIN).as_secs_f64())
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        let leased = row.map(|row| {
            Ok::<_, sqlx::Error>(Leased { is_disabled: row.try_get("is_disabled")?, retry: row.try_get("retry")? })
        });
        leased.transpose().map_err(DatabaseError::new)
    }

    /// Lets another instance deliver at once.
    pub(crate) async fn release(&self, target: &str) -> Result<(), DatabaseError> {
        self.connections
            .run("releasing a target of notifications", async |connection| {
                let releasing = "update ledger.notify_target set leased_by = null where name = $1 and leased_by = $2";
                sqlx::query(releasing).bind(target).bind(&self.instance).execute(connection).await.map(drop)
            })
            .await
    }

    /// How far the target was told of each source.
    pub(crate) async fn positions(&self, target: &str) -> Result<Vec<(Source, i64)>, DatabaseError> {
        let reading = self.connections.run("reading the positions of a target", async |connection| {
            let asking = "select source, last from ledger.notify_position where target = $1 and last is not null";
            sqlx::query_as(asking).bind(target).fetch_all(connection).await
        });
        let positions: Vec<(String, i64)> = reading.await?;
        Ok(positions.into_iter().filter_map(|(source, last)| Some((source.parse().ok()?, last))).collect())
    }

    /// Moves a position over what the target need not hear of.
    pub(crate) async fn pass(&self, target: &str, source: Source, to: i64) -> Result<(), DatabaseError> {
        self.connections
            .run("moving the position of a target", async |connection| {
                let moving = "update ledger.notify_position set last = $3
                    from ledger.notify_target
                    where target = $1 and source = $2 and last < $3 and name = target and leased_by = $4";
                let moving = sqlx::query(moving).bind(target).bind(source.name()).bind(to).bind(&self.instance);
                moving.execute(connection).await.map(drop)
            })
            .await
    }

    /// Writes down what became of an attempt, and moves the position unless it is to be tried again. False: the lease is lost, and
    /// nothing was written.
    pub(crate) async fn settle(
        &self,
        target: &str,
        notification: &Notification,
        attempt: &Attempt,
        fate: Fate,
    ) -> Result<bool, DatabaseError> {
        self.connections
            .run("noting an attempt at a notification", async |connection| {
                let written = sqlx::query(SETTLE)
                    .bind(target)
                    .bind(&self.instance)
                    .bind(fate.name())
                    .bind(notification.source.name())
                    .bind(notification.number)
                    .bind(notification.webhook_id())
                    .bind(&notification.kind)
                    .bind(notification.occurred_us)
                    .bind(&attempt.answer)
                    .bind(i32::try_from(attempt.took.as_millis()).unwrap_or(i32::MAX))
                    .bind(attempt.verdict == Verdict::Gone)
                    .bind(SLOTS)
                    .execute(connection)
                    .await?;
                Ok(written.rows_affected() > 0)
            })
            .await
    }

    /// The oldest notification that an operator wants tried once more: where it is found.
    pub(crate) async fn next_retry(&self, target: &str) -> Result<Option<(Source, i64)>, DatabaseError> {
        let reading = self.connections.run("looking for notifications to retry", async |connection| {
            let asking = "select source, number from ledger.notification where target = $1 and state = 'retry'
                order by occurred_at, number limit 1";
            sqlx::query_as(asking).bind(target).fetch_optional(connection).await
        });
        let found: Option<(String, i64)> = reading.await?;
        Ok(found.and_then(|(source, number)| Some((source.parse().ok()?, number))))
    }

    /// What was to be retried was, or is not there any more.
    pub(crate) async fn end_retry(&self, target: &str) -> Result<(), DatabaseError> {
        self.connections
            .run("ending a retry", async |connection| {
                let ending = "with gone as (
                        update ledger.notification set state = 'failed' where target = $1 and state = 'retry'
                    )
                    update ledger.notify_target set retry_at = null where name = $1 and leased_by = $2";
                sqlx::query(ending).bind(target).bind(&self.instance).execute(connection).await.map(drop)
            })
            .await
    }
}

/// Enables a target again, and has what it was not told tried once more. Gives the number of those; `None`: there is no such target.
pub(crate) async fn retry(connections: &Connections, target: &str) -> Result<Option<i64>, DatabaseError> {
    connections
        .run("retrying notifications", async |connection| {
            sqlx::query_scalar(
                "with again as (
                    update ledger.notification set state = 'retry' where target = $1 and state = 'failed' returning 1
                )
                update ledger.notify_target set disabled_at = null, retry_at = clock_timestamp() where name = $1
                returning (select count(*) from again)",
            )
            .bind(target)
            .fetch_optional(connection)
            .await
        })
        .await
}

const REGISTER: &str = "
    with target as (
        insert into ledger.notify_target as known (name, host, url_sha256, events)
        values ($1, $2, $3, $4)
        on conflict (name) do update
        set host = excluded.host, url_sha256 = excluded.url_sha256, events = excluded.events, removed_at = null,
            disabled_at = case when known.url_sha256 = excluded.url_sha256 then known.disabled_at end
    )
    insert into ledger.notify_position as known (target, source, last)
    select $1, present.source, case when present.source = any($5) then present.number end
    from (
        values
            ('budget', (select coalesce(max(id), 0) from ledger.budget_alert)),
            ('reject', (select size - 1 from ledger.tree_head)),
            ('blocked', (select size - 1 from ledger.tree_head)),
            ('notice', (select coalesce(max(id), 0) from ledger.notice))
    ) as present (source, number)
    on conflict (target, source) do update
    set last = case when known.source = any($5) then coalesce(known.last, excluded.last) end";

/// A lease that lasts long enough is left as it is.
const LEASE: &str = "
    with wanted as materialized (
        select name, leased_by = $2 and leased_until > clock_timestamp() + $4 * interval '1 second' as is_good,
            disabled_at is not null as is_disabled, retry_at is not null as retry
        from ledger.notify_target
        where name = $1 and removed_at is null
    ),
    renewed as (
        update ledger.notify_target as target
        set leased_by = $2, leased_until = clock_timestamp() + $3 * interval '1 second'
        from wanted
        where target.name = wanted.name and wanted.is_good is not true
            and (target.leased_by is null or target.leased_by = $2 or target.leased_until < clock_timestamp())
        returning target.name
    )
    select is_disabled, retry from wanted where is_good or exists (select from renewed)";

/// A failed notification keeps its slot longer than a delivered one.
const SETTLE: &str = "
    with target as (
        update ledger.notify_target
        set delivered = delivered + ($3 = 'delivered')::integer,
            failed_attempts = failed_attempts + ($3 <> 'delivered')::integer,
            last_success_at = case when $3 = 'delivered' then clock_timestamp() else last_success_at end,
            last_failure_at = case when $3 = 'delivered' then last_failure_at else clock_timestamp() end,
            last_failure = case when $3 = 'delivered' then last_failure else $9 end,
            disabled_at = case when $11 then clock_timestamp() else disabled_at end
        where name = $1 and leased_by = $2
        returning name
    ),
    moved as (
        update ledger.notify_position as position
        set last = $5
        from target
        where position.target = target.name and position.source = $4 and position.last < $5 and $3 <> 'waiting'
    ),
    slot as materialized (
        select possible.slot
        from generate_series(1, $12) as possible (slot)
        left join ledger.notification as kept on kept.target = $1 and kept.slot = possible.slot
        order by kept.webhook_id is not distinct from $6 desc, kept.slot is not null, kept.state in ('failed', 'retry'),
            kept.last_at, possible.slot
        limit 1
    )
    insert into ledger.notification as kept (
        target, slot, source, number, webhook_id, type, occurred_at, state, attempts, first_at, last_at, answer, took_ms
    )
    select target.name, slot.slot, $4, $5, $6, $7, to_timestamp(0) + $8 * interval '1 microsecond', $3, 1,
        clock_timestamp(), clock_timestamp(), $9, $10
    from target cross join slot
    on conflict (target, slot) do update
    set source = excluded.source, number = excluded.number, webhook_id = excluded.webhook_id, type = excluded.type,
        occurred_at = excluded.occurred_at, state = excluded.state, last_at = excluded.last_at,
        answer = excluded.answer, took_ms = excluded.took_ms,
        attempts = case when kept.webhook_id = excluded.webhook_id then kept.attempts else 0 end + 1,
        first_at = case when kept.webhook_id = excluded.webhook_id then kept.first_at else excluded.first_at end";
