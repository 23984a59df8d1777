//! Reads the decisions about dead letters, and their events in custody.

use crate::postgres::remedy::DatabaseError;
use crate::record::own_streams::RESOLUTIONS;
use crate::verify::resolution::{DecisionEvent, Resolution};
use crate::verify::snapshot::{Snapshot, answer};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// Each decision with the event of its number, and whether its message is where it says: an event without a decision too.
const QUERY: &str = "
    select coalesce(it.id, recorded.sequence),
        (to_jsonb(it) - 'replacement' || jsonb_build_object('replacement_sha256', encode(sha256(it.replacement), 'hex')))::text,
        recorded.sequence is not null, recorded.payload, coalesce(arrived.is_elsewhere, false)
    from ledger.resolution as it
    full join (
        select sequence, payload from ledger.entry join ledger.epoch using (epoch) where epoch.stream = $1
    ) as recorded on recorded.sequence = it.id
    left join lateral (
        select not bool_or((epoch.stream_created_ns, entry.sequence) = (it.new_created_ns, it.new_sequence)) as is_elsewhere
        from ledger.entries_by_requeue(it.message_id) as entry
        join ledger.epoch using (epoch)
    ) as arrived on it.settled_at is not null
    order by 1";

impl Snapshot {
    /// The decisions about dead letters.
    pub async fn resolutions(&self) -> Result<Vec<Resolution>, DatabaseError> {
        if !self.shape.resolutions {
            return Ok(Vec::new());
        }
        let ask = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query(QUERY).bind(RESOLUTIONS).fetch_all(reader)).await
        };
        let rows = self.with(ask).await?;
        rows.iter().map(read).collect::<Result<_, _>>().map_err(DatabaseError::new)
    }
}

fn read(row: &PgRow) -> Result<Resolution, sqlx::Error> {
    let columns: Option<String> = row.try_get(1)?;
    let is_recorded: bool = row.try_get(2)?;
    let payload = row.try_get(3)?;
    Ok(Resolution {
        id: row.try_get(0)?,
        row: columns.map(|columns| serde_json::from_str(&columns).unwrap_or_default()),
        event: is_recorded.then_some(DecisionEvent { payload }),
        is_elsewhere: row.try_get(4)?,
    })
}
