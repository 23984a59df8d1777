//! How does an audit event become its row? The statements on `public.audit_events`.

use super::{Comparison, Keyed, RowIds, column};
use crate::domain::event::AuditEvent;
use sqlx::PgConnection;

pub(super) struct AuditEvents;

impl Keyed for AuditEvents {
    type Record = AuditEvent;
    const KEY: &'static str = "event_id";

    fn shown(event: &AuditEvent) -> &str {
        &event.event_id
    }

    fn key(event: &AuditEvent) -> String {
        event.event_id.clone()
    }

    async fn insert(connection: &mut PgConnection, events: &[&AuditEvent]) -> Result<RowIds, sqlx::Error> {
        let utc: Vec<String> = events.iter().map(|event| event.time.utc()).collect();
        let rows: Vec<(String, i64)> = sqlx::query_as(
        "insert into public.audit_events
            (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash, created_at, timestamp_text)
        select event_id, actor, action, outcome, details::jsonb, task_id, utc::timestamp, integrity_hash,
            current_timestamp at time zone 'UTC', timestamp_text
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
            as new (event_id, actor, action, outcome, details, task_id, utc, integrity_hash, timestamp_text)
        on conflict (event_id) do nothing
        returning event_id, id",
    )
    .bind(column(events, |event| event.event_id.as_str()))
    .bind(column(events, |event| event.actor.as_str()))
    .bind(column(events, |event| event.action.as_str()))
    .bind(column(events, |event| event.outcome.as_str()))
    .bind(column(events, |event| event.details.as_deref()))
    .bind(column(events, |event| event.task_id.as_deref()))
    .bind(&utc)
    .bind(column(events, |event| event.integrity_hash.as_str()))
    .bind(column(events, |event| event.time.text()))
    .fetch_all(connection)
    .await?;
        Ok(rows.into_iter().map(|(event_id, id)| (event_id, Some(id))).collect())
    }

    async fn compare(connection: &mut PgConnection, events: &[&AuditEvent]) -> Result<Vec<Comparison>, sqlx::Error> {
        sqlx::query_as(
        "select
            again.position,
            array_remove(array[
                case when stored.actor is distinct from again.actor then 'actor' end,
                case when stored.action is distinct from again.action then 'action' end,
                case when stored.outcome is distinct from again.outcome then 'outcome' end,
                case when stored.details is distinct from again.details::jsonb then 'details' end,
                case when stored.task_id is distinct from again.task_id then 'task_id' end,
                case when stored.timestamp_text is distinct from again.timestamp_text and not again.stamped then 'timestamp' end
            ], null) as differing
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[])
            with ordinality
            as again (event_id, actor, action, outcome, details, task_id, timestamp_text, stamped, position)
        join public.audit_events as stored on stored.event_id = again.event_id",
    )
    .bind(column(events, |event| event.event_id.as_str()))
    .bind(column(events, |event| event.actor.as_str()))
    .bind(column(events, |event| event.action.as_str()))
    .bind(column(events, |event| event.outcome.as_str()))
    .bind(column(events, |event| event.details.as_deref()))
    .bind(column(events, |event| event.task_id.as_deref()))
    .bind(column(events, |event| event.time.text()))
    .bind(column(events, |event| event.stamped))
    .fetch_all(connection)
    .await
    }
}

/// Inserts a good record into a transaction that is never committed: the newest row's own values, under a new id and with
/// the longest id and task that the specification allows. A table that refuses this is at fault, and no record is.
pub(super) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into public.audit_events
            (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash, timestamp_text)
        select
            rpad('probe-' || gen_random_uuid(), 255, '-'),
            coalesce(newest.actor, 'ARCHITECT'),
            coalesce(newest.action, 'SECRET_ROTATED'),
            coalesce(newest.outcome, 'SUCCESS'),
            newest.details,
            rpad('probe-' || gen_random_uuid(), 255, '-'),
            coalesce(newest.timestamp, current_timestamp at time zone 'UTC'),
            repeat('0', 64),
            coalesce(newest.timestamp_text, current_timestamp::text)
        from (values (1)) as always_one_row
        left join (select * from public.audit_events order by id desc limit 1) as newest on true",
    )
    .execute(connection)
    .await?;
    Ok(())
}
