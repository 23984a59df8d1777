//! Looks up the outcome of messages in custody. It finds them whichever commit stored them: this one, or one whose
//! answer was lost.

use crate::postgres::connections::Connections;
use crate::receipt::notifier::ReceiptStore;
use crate::record::leaf::Disposition;
use crate::record::message::utc_text;
use crate::record::receipt::{Asked, Receipt, Status};
use crate::record::table::Table;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

/// Custody, over connections of its own.
#[derive(Debug)]
pub struct ReceiptQueries(pub Connections);

impl ReceiptStore for ReceiptQueries {
    async fn look_up(&self, asked: &[Asked]) -> Result<Vec<Receipt>, String> {
        self.0
            .run("looking up receipts", async |connection| look_up(connection, asked).await)
            .await
            .map_err(|error| error.to_string())
    }
}

async fn look_up(connection: &mut PgConnection, asked: &[Asked]) -> Result<Vec<Receipt>, sqlx::Error> {
    // One batch is of one incarnation.
    let Some(Asked { incarnation, .. }) = asked.first() else { return Ok(Vec::new()) };
    let rows = sqlx::query(
        "select asked.position, entry.sequence, entry.disposition, entry.record_id, event.integrity_hash,
            encode(entry.leaf_hash, 'hex') as leaf_hash, entry.leaf_index,
            encode(entry.payload_sha256, 'hex') as payload_sha256, letter.reason, letter.detail,
            (extract(epoch from entry.committed_at) * 1000000)::bigint as committed_at_us
        -- The epochs of one incarnation use a sequence again; the server's time tells which message it was.
        from ledger.epoch as epoch
        cross join lateral ledger.batches_holding(epoch.epoch, $1) as place (first_leaf)
        cross join lateral (select * from ledger.entry where entry.first_leaf = place.first_leaf offset 0) as entry
        join unnest($1::bigint[], $2::bigint[], $3::boolean[])
            with ordinality as asked (sequence, server_time_ns, is_event, position)
            on asked.sequence = entry.sequence and asked.server_time_ns = entry.server_time_ns
        left join ledger.dead_letter as letter on letter.leaf_index = entry.leaf_index
        left join public.audit_events as event
            on asked.is_event and entry.disposition <> 'rejected' and event.event_id = entry.record_id
        where epoch.stream = $4 and epoch.stream_created_ns = $5",
    )
    .bind(asked.iter().map(|it| it.sequence).collect::<Vec<_>>())
    .bind(asked.iter().map(|it| it.server_time_ns).collect::<Vec<_>>())
    .bind(asked.iter().map(|it| it.table == Table::AuditEvents).collect::<Vec<_>>())
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| receipt(row, asked)).collect()
}

fn receipt(row: &PgRow, asked: &[Asked]) -> Result<Receipt, sqlx::Error> {
    let position: i64 = row.try_get("position")?;
    let Asked { incarnation, receipt_subject, .. } =
        &asked[usize::try_from(position - 1).expect("the query numbers from 1")];
    let disposition: String = row.try_get("disposition")?;
    let committed_at_us: i64 = row.try_get("committed_at_us")?;
    Ok(Receipt {
        status: match Disposition::named(&disposition) {
            Some(Disposition::Recorded) => Status::Logged,
            Some(Disposition::Duplicate) => Status::Duplicate,
            Some(Disposition::Rejected) | None => Status::Rejected,
        },
        event_id: row.try_get("record_id")?,
        integrity_hash: row.try_get("integrity_hash")?,
        leaf_hash: row.try_get("leaf_hash")?,
        leaf_index: row.try_get("leaf_index")?,
        payload_sha256: row.try_get("payload_sha256")?,
        committed_at: utc_text(committed_at_us * 1000),
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        stream: incarnation.stream.to_string(),
        sequence: row.try_get("sequence")?,
        subject: receipt_subject.clone(),
    })
}
