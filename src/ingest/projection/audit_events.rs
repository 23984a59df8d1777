//! The statements on `public.audit_events`, which project audit events to rows.

use crate::ingest::custody::RowOutcome;
use crate::ingest::projection::{DifferingColumns, Ids, InsertAttempt, Keyed, RowIds, column, try_to_place};
use crate::record::event::AuditEvent;
use crate::record::message::Headers;
use crate::record::stored_id::ContentFingerprint;
use crate::record::subject::Subject;
use crate::record::table::Table;
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::HashMap;

struct AuditEvents;

/// Events that another one keeps from their id take the next of the ids that their fingerprint gives them, round by round.
pub(crate) async fn place(
    connection: &mut PgConnection,
    events: &[&AuditEvent],
    mut ids: Ids,
) -> Result<Vec<Option<RowOutcome<'static>>>, sqlx::Error> {
    let mut placed: Vec<Option<RowOutcome<'static>>> = vec![None; events.len()];
    let mut trying: Vec<(usize, Cow<'_, AuditEvent>)> =
        events.iter().enumerate().map(|(index, event)| (index, Cow::Borrowed(*event))).collect();
    let mut newcomers = HashMap::new();
    for round in 0.. {
        let records: Vec<&AuditEvent> = trying.iter().map(|(_, event)| &**event).collect();
        let mut tried = try_to_place::<AuditEvents>(connection, &records, ids).await?;
        ids = Ids::MayBeTaken;
        forgive_times(connection, &records, &mut tried, &mut newcomers).await?;
        let mut next = Vec::new();
        for ((index, event), tried) in trying.into_iter().zip(tried) {
            // Neither inserted nor there: what had the id was erased.
            let erased = || {
                event.fingerprint.is_some().then(|| InsertAttempt::Taken(vec!["content, which was erased".to_owned()]))
            };
            let Some(tried) = tried.or_else(erased) else { continue };
            let is_taken = matches!(&tried, InsertAttempt::Taken(differing) if !differing.is_empty());
            let ids = events[index].fingerprint.as_ref().filter(|_| is_taken).map(|it| it.ids(&events[index].event_id));
            if let Some(id) = ids.and_then(|ids| ids.into_iter().nth(round)) {
                next.push((index, Cow::Owned(events[index].clone().stored_as(id))));
                continue;
            }
            let own = (round > 0).then(|| event.event_id.clone());
            placed[index] = Some(match tried.settled(AuditEvents::KEY, AuditEvents::shown(&event)) {
                RowOutcome::Recorded { row_id, .. } => RowOutcome::Recorded { row_id, stored_as: own },
                RowOutcome::Duplicate { .. } => RowOutcome::Duplicate { stored_as: own },
                rejected @ RowOutcome::Rejected(_) => rejected,
            });
        }
        if next.is_empty() {
            break;
        }
        trying = next;
    }
    Ok(placed)
}

/// The message ids of stored events, by their stored ids. An event without one says that it is another each time.
type MessageIds = HashMap<String, Option<String>>;

/// An event without a timestamp is the same as a stored one of the same message id, whatever time either was given.
async fn forgive_times(
    connection: &mut PgConnection,
    events: &[&AuditEvent],
    tried: &mut [Option<InsertAttempt>],
    newcomers: &mut MessageIds,
) -> Result<(), sqlx::Error> {
    let message_id = |event: &AuditEvent| event.fingerprint.as_ref().and_then(|it| it.message_id.clone());
    let mut suspect = Vec::new();
    for (index, (event, tried)) in events.iter().zip(tried.iter()).enumerate() {
        match tried {
            Some(InsertAttempt::New(_)) => {
                newcomers.insert(event.event_id.clone(), message_id(event));
            }
            Some(InsertAttempt::Taken(differing)) if message_id(event).is_some() && differing[..] == [TIMESTAMP] => {
                suspect.push(index);
            }
            _ => {}
        }
    }
    let unknown = suspect.iter().map(|&index| &*events[index].event_id).filter(|id| !newcomers.contains_key(*id));
    let stored = message_ids(connection, &unknown.collect::<Vec<_>>()).await?;
    for index in suspect {
        let id = &events[index].event_id;
        if newcomers.get(id).or_else(|| stored.get(id)) == Some(&message_id(events[index])) {
            tried[index] = Some(InsertAttempt::Taken(Vec::new()));
        }
    }
    Ok(())
}

/// From custody, which keeps the headers.
async fn message_ids(connection: &mut PgConnection, event_ids: &[&str]) -> Result<MessageIds, sqlx::Error> {
    if event_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let stored: Vec<(String, String, Option<Vec<u8>>)> = sqlx::query_as(
        "select entry.record_id, entry.subject, entry.headers
        from unnest($1::text[]) as wanted (record_id)
        cross join lateral ledger.entries_by_record(wanted.record_id) as entry
        where entry.disposition = 'recorded'",
    )
    .bind(event_ids)
    .fetch_all(connection)
    .await?;
    let is_event =
        |subject: &str| Subject::parse(subject).is_some_and(|subject| subject.lane.table() == Table::AuditEvents);
    let events = stored.into_iter().filter(|(_, subject, _)| is_event(subject));
    Ok(events
        .map(|(id, _, headers)| (id, Headers::from_stored(headers).first_message_id().map(str::to_owned)))
        .collect())
}

/// The field that an event may lack.
const TIMESTAMP: &str = "timestamp";

/// The rest of the statement says what becomes of an id that is taken.
macro_rules! insert {
    ($taken:literal) => {
        concat!(
            "insert into public.audit_events
                (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash, created_at, timestamp_text)
            select event_id, actor, action, outcome, details::jsonb, task_id, utc::timestamp, integrity_hash,
                current_timestamp at time zone 'UTC', timestamp_text
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                    $10::bytea[])
                as new (event_id, actor, action, outcome, details, task_id, utc, integrity_hash, timestamp_text, digest)
            -- An erased id stays taken. What is another event takes its next id; the erased bytes are refused by the table.
            where digest is null or not exists (
                select
                from ledger.removal as removal
                left join lateral ledger.entry_at(removal.leaf_index) as erased on true
                where removal.table_name = 'audit_events' and removal.row_key = new.event_id
                    and erased.payload_sha256 is distinct from new.digest
            )
            ",
            $taken,
            " returning event_id, id"
        )
    };
}

const INSERT: &str = insert!("on conflict (event_id) do nothing");
/// Each row goes in at once: no look for its id before, and no second note in the write-ahead log after.
const INSERT_NEW: &str = insert!("");

impl Keyed for AuditEvents {
    type Record = AuditEvent;
    const KEY: &'static str = "event_id";

    fn shown(event: &AuditEvent) -> &str {
        &event.event_id
    }

    fn key(event: &AuditEvent) -> String {
        event.event_id.clone()
    }

    async fn insert(connection: &mut PgConnection, events: &[&AuditEvent], ids: Ids) -> Result<RowIds, sqlx::Error> {
        let utc: Vec<String> = events.iter().map(|event| event.time.utc()).collect();
        let statement = match ids {
            Ids::New => INSERT_NEW,
            Ids::MayBeTaken => INSERT,
        };
        let rows: Vec<(String, i64)> = sqlx::query_as(statement)
            .bind(column(events, |event| event.event_id.as_str()))
            .bind(column(events, |event| event.actor.as_str()))
            .bind(column(events, |event| event.action.as_str()))
            .bind(column(events, |event| event.outcome.as_str()))
            .bind(column(events, |event| event.details.as_deref()))
            .bind(column(events, |event| event.task_id.as_deref()))
            .bind(&utc)
            .bind(column(events, |event| event.integrity_hash.as_str()))
            .bind(column(events, |event| event.time.text()))
            .bind(column(events, |event| event.fingerprint.as_ref().map(ContentFingerprint::digest)))
            .fetch_all(connection)
            .await?;
        Ok(rows.into_iter().map(|(event_id, id)| (event_id, Some(id))).collect())
    }

    async fn compare(
        connection: &mut PgConnection,
        events: &[&AuditEvent],
    ) -> Result<Vec<DifferingColumns>, sqlx::Error> {
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
    // Where each message is an event of its own, its time tells it from the others.
    .bind(column(events, |event| event.stamped && event.fingerprint.is_none()))
    .fetch_all(connection)
    .await
    }
}

/// Inserts a good record into a transaction that is never committed: the newest row's own values, under a new id and with
/// the longest id and task that the specification allows. A table that refuses this is at fault, and no record is.
pub(crate) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
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
