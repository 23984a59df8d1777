//! Reads one entry with its row, its dead letter and its removal, and compares them: for whoever looks at a single record.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::leaf::Disposition;
use crate::record::message::Incarnation;
use crate::record::table::Table;
use crate::verify::entry::{Background, Checked};
use crate::verify::findings::Finding;
use crate::verify::rates::Rates;
use crate::verify::removal::Removal;
use crate::verify::snapshot::pages::{read_batches, read_beside_entries};
use crate::verify::snapshot::{RATES, answer, read_rates, shape};
use crate::verify::stored::{EntryRow, EpochRow, Page, RowKey, Values};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use std::sync::Arc;

/// An entry, and what stands beside it.
#[derive(Debug)]
pub struct SingleEntry {
    pub entry: EntryRow,
    pub epoch: EpochRow,
    /// The row that it names, where it is there.
    pub row: Option<(Table, RowKey, Values)>,
    /// Why the row or the bytes are gone, where that was authorised.
    pub removal: Option<Removal>,
    /// What `ledgerd verify` would find of it. Of what was removed it says nothing: that takes all authorities.
    pub findings: Vec<Finding>,
}

/// The entry of a leaf.
pub async fn single_entry(connections: &Connections, leaf: i64) -> Result<Option<SingleEntry>, DatabaseError> {
    let mut lease = connections.lease().await?;
    let read = connections.bounded("reading an entry", read(&mut lease, leaf)).await?;
    // A connection whose conversation broke off is not used again.
    lease.keep();
    Ok(read)
}

async fn read(reader: &mut PgConnection, leaf: i64) -> Result<Option<SingleEntry>, DatabaseError> {
    let shape = shape(reader).await?;
    let holding = "select coalesce(max(first_leaf), 0) from ledger.batch where first_leaf <= $1";
    let first: i64 = answer(sqlx::query_scalar(holding).bind(leaf).fetch_one(&mut *reader)).await?;
    let mut page = answer(read_batches(reader, (first, first + 1), 1)).await?;
    page.batches.clear();
    page.entries.retain(|entry| entry.leaf_index == leaf);
    read_beside_entries(reader, &shape, &mut page).await?;
    let Some(entry) = page.entries.first().cloned() else { return Ok(None) };
    let epoch = epoch(reader, entry.epoch).await?;
    let row = entry.table.filter(|_| entry.was(Disposition::Recorded)).and_then(|table| {
        let key = entry.row_key(table)?;
        let values = page.rows.get(&(table, key.clone()))?.clone();
        Some((table, key, values))
    });
    let removal = page.removals.values().next().cloned();
    let findings = if removal.is_none() { find(reader, &page, &epoch, row.as_ref()).await? } else { Vec::new() };
    Ok(Some(SingleEntry { entry, epoch, row, removal, findings }))
}

async fn find(
    reader: &mut PgConnection,
    page: &Page,
    epoch: &EpochRow,
    row: Option<&(Table, RowKey, Values)>,
) -> Result<Vec<Finding>, DatabaseError> {
    let number = page.entries.first().map_or(0, |entry| entry.epoch);
    let mut background = Background { epochs: [(number, epoch.clone())].into(), ..Background::default() };
    if let Some((Table::TokenLedger, _, values)) = row {
        background.rates = rates_of(reader, values).await?;
    }
    let mut checked = Checked::default();
    checked.take(&page.entries, page, &background);
    Ok(checked.findings.listed().to_vec())
}

async fn epoch(reader: &mut PgConnection, number: i32) -> Result<EpochRow, DatabaseError> {
    let query = "select stream, stream_created_ns, regressions from ledger.epoch where epoch = $1";
    let row = answer(sqlx::query(query).bind(number).fetch_optional(reader)).await?;
    let missing = || DatabaseError::of_the_operator(format!("ledger.epoch has no epoch {number}"));
    let row = row.ok_or_else(missing)?;
    let read = || {
        let incarnation = Incarnation { stream: Arc::from(row.try_get::<&str, _>(0)?), created_ns: row.try_get(1)? };
        Ok(EpochRow { incarnation, regressions: row.try_get(2)? })
    };
    read().map_err(DatabaseError::new)
}

/// The rates of the keys that a usage was charged by: all that its charge is compared with.
async fn rates_of(reader: &mut PgConnection, usage: &Values) -> Result<Rates, DatabaseError> {
    let columns = Table::TokenLedger.rows().columns;
    let id = |name: &str| {
        let at = columns.iter().position(|column| *column == name)?;
        usage.get(at)?.parse::<i64>().ok()
    };
    let ids: Vec<i64> = ["input_rate_id", "output_rate_id"].into_iter().filter_map(id).collect();
    let query = format!(
        "{RATES} and metric_key in (select named.metric_key from public.economic_metrics as named where named.id = any($1))"
    );
    let rows = answer(sqlx::query_as(AssertSqlSafe(query)).bind(ids).fetch_all(reader)).await?;
    Ok(read_rates(rows))
}
