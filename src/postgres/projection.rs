//! How does an audit event become its row? The statements on `public.audit_events`.

use crate::domain::event::AuditEvent;
use crate::domain::reject::{Reason, Rejection};
use sqlx::{PgConnection, Row};
use std::collections::HashMap;

/// What the table said to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// A new row, with this id.
    New(i64),
    /// The same event is there.
    Same,
    /// The id is there with other content.
    Conflict(Rejection),
}

/// Inserts the events, and says for each, in their order, what became of it. `None` for one whose id another transaction
/// took away again in the meantime: try again.
pub(super) async fn place(
    connection: &mut PgConnection,
    events: &[&AuditEvent],
) -> Result<Vec<Option<Placed>>, sqlx::Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    // Sorted by key, so that two transactions never wait for each other. An id that stands twice is inserted once.
    let mut firsts: Vec<usize> = (0..events.len()).collect();
    firsts.sort_by_key(|&index| (&events[index].event_id, index));
    firsts.dedup_by_key(|index| &events[*index].event_id);
    let sorted: Vec<&AuditEvent> = firsts.iter().map(|&index| events[index]).collect();
    let ids = insert(connection, &sorted).await?;

    let mut placed: Vec<Option<Placed>> = vec![None; events.len()];
    for index in firsts {
        placed[index] = ids.get(events[index].event_id.as_str()).map(|id| Placed::New(*id));
    }
    let known: Vec<usize> = (0..events.len()).filter(|&index| placed[index].is_none()).collect();
    if !known.is_empty() {
        let again: Vec<&AuditEvent> = known.iter().map(|&index| events[index]).collect();
        for (position, verdict) in compare(connection, &again).await? {
            placed[known[position]] = Some(verdict);
        }
    }
    Ok(placed)
}

async fn insert(connection: &mut PgConnection, events: &[&AuditEvent]) -> Result<HashMap<String, i64>, sqlx::Error> {
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
    Ok(rows.into_iter().collect())
}

/// Compares events with the rows that hold their ids. A statement of its own: the insert does not see a row that another
/// transaction committed while it ran.
async fn compare(connection: &mut PgConnection, events: &[&AuditEvent]) -> Result<Vec<(usize, Placed)>, sqlx::Error> {
    let rows = sqlx::query(
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
    .await?;
    rows.iter()
        .map(|row| {
            let position: i64 = row.try_get("position")?;
            let position = usize::try_from(position - 1).expect("ordinality counts from 1");
            let differing: Vec<String> = row.try_get("differing")?;
            let verdict = if differing.is_empty() {
                Placed::Same
            } else {
                let id = &events[position].event_id;
                let detail = format!("event_id \"{id}\" is stored already, with another {}", differing.join(", "));
                Placed::Conflict(Rejection::new(Reason::Conflict, &detail))
            };
            Ok((position, verdict))
        })
        .collect()
}

fn column<'a, V>(events: &[&'a AuditEvent], value: impl Fn(&'a AuditEvent) -> V) -> Vec<V> {
    events.iter().map(|event| value(event)).collect()
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
