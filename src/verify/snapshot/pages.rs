//! Reads entries in pages of bounded size, each with its rows, its dead letter and its removals. It also reads the
//! subtrees and the known roots of a range.

use crate::postgres::remedy::DatabaseError;
use crate::record::fields::as_uuid;
use crate::record::leaf::Disposition;
use crate::record::table::Table;
use crate::verify::entry::{Background, Checked};
use crate::verify::removal::Removal;
use crate::verify::snapshot::batches::{BATCHES, DEAD_LETTERS, ERASED, read_dead_letters, read_erased, unfold};
use crate::verify::snapshot::checkpoints::StoredRoots;
use crate::verify::snapshot::{Shape, Snapshot, answer};
use crate::verify::stored::{EntryRow, Page, RowKey, SubtreeRow, Values};
use crate::verify::tree::{LEVEL_MAX, subtrees_ending_in};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _, ValueRef as _};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

/// A page ends with the batch that makes it larger than one of these.
const PAGE_BYTES: usize = 8 << 20;
const PAGE_LEAVES: i64 = 1024;
/// A batch has at least one leaf.
pub(crate) const PAGE_BATCHES: usize = 1024;

/// So many entries are looked at before the server's answers are.
const LOOKED_AT: usize = 128;

/// What belongs to a range of leaves, besides their entries.
#[derive(Debug, Default)]
pub struct Beside {
    /// The subtrees that end in it.
    pub subtrees: Vec<SubtreeRow>,
    /// The checkpoints of trees that end in it.
    pub stored: StoredRoots,
}

impl Snapshot {
    /// Where the first batch begins that does so at this leaf or later, and before the end; the end, where none does.
    pub async fn batch_from(&self, leaf: i64, end: i64) -> Result<i64, DatabaseError> {
        let query = "select coalesce(min(first_leaf), $2) from ledger.batch where first_leaf >= $1 and first_leaf < $2";
        self.with(async |reader| answer(sqlx::query_scalar(query).bind(leaf).bind(end).fetch_one(reader)).await).await
    }

    /// Reads all batches that begin in a range, page by page, and looks at them, some entries at a time.
    pub async fn pages(
        &self,
        (start, end): (i64, i64),
        background: &Background,
        checked: &mut Checked,
    ) -> Result<(), DatabaseError> {
        let mut next = start;
        while next < end {
            let batches_max = self.page_batches.load(Ordering::Relaxed);
            let page = self.with(async |reader| page(reader, &self.shape, (next, end), batches_max).await).await?;
            let Some((last, _)) = page.batches.last() else { break };
            next = last.first_leaf + 1;
            self.page_batches.store(batches_of_next(&page, batches_max), Ordering::Relaxed);
            checked.take_batches(&page);
            for entries in page.entries.chunks(LOOKED_AT) {
                checked.take(entries, &page, background);
                // Whoever reads another page asks the server for more of it, which works while we do.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Reads what belongs to a range besides its entries.
    pub async fn beside(&self, start: i64, end: i64) -> Result<Beside, DatabaseError> {
        self.with(async |reader| {
            let subtrees = subtrees(reader, start, end).await?;
            Ok(Beside { subtrees, stored: self.checkpoints_in(reader, start, end).await? })
        })
        .await
    }
}

async fn subtrees(reader: &mut PgConnection, start: i64, end: i64) -> Result<Vec<SubtreeRow>, DatabaseError> {
    let (mut levels, mut firsts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for level in 1..=LEVEL_MAX {
        let (first, end) = subtrees_ending_in(level, start, end);
        if first < end {
            levels.push(level);
            firsts.push(first);
            ends.push(end);
        }
    }
    let query = "select stored.level, stored.index, stored.hash
        from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as wanted (level, first, past)
        join ledger.subtree as stored
            on stored.level = wanted.level and stored.index >= wanted.first and stored.index < wanted.past";
    let rows: Vec<(i16, i64, Vec<u8>)> =
        answer(sqlx::query_as(query).bind(levels).bind(firsts).bind(ends).fetch_all(reader)).await?;
    Ok(rows.into_iter().map(|(level, index, hash)| SubtreeRow { level, index, hash }).collect())
}

/// How many batches to ask for: no more than filled the last page, for what the server sends beyond that is thrown away.
fn batches_of_next(page: &Page, batches_max: usize) -> usize {
    let is_full = page.entries.iter().map(bytes_of).sum::<usize>() >= PAGE_BYTES;
    if is_full { page.batches.len() } else { (batches_max * 2).min(PAGE_BATCHES) }
}

fn bytes_of(entry: &EntryRow) -> usize {
    entry.payload.as_ref().map_or(0, Bytes::len) + entry.headers.as_ref().map_or(0, Vec::len)
}

/// The batches that begin in a range, as many as a page has, with all that stands beside their entries.
pub(crate) async fn page(
    reader: &mut PgConnection,
    shape: &Shape,
    range: (i64, i64),
    batches_max: usize,
) -> Result<Page, DatabaseError> {
    let mut page = answer(read_batches(reader, range, batches_max)).await?;
    read_beside_entries(reader, shape, &mut page).await?;
    Ok(page)
}

/// All that stands beside the entries of a page.
pub(crate) async fn read_beside_entries(
    reader: &mut PgConnection,
    shape: &Shape,
    page: &mut Page,
) -> Result<(), DatabaseError> {
    read_dead_letters_and_erasures(reader, page).await?;
    for (table, keys) in row_keys(&page.entries) {
        read_rows(reader, shape, table, &keys, page).await?;
    }
    read_ventures(reader, page).await?;
    if shape.retention {
        read_removals(reader, page).await?;
    }
    Ok(())
}

pub(crate) async fn read_batches(
    reader: &mut PgConnection,
    (start, end): (i64, i64),
    batches_max: usize,
) -> Result<Page, sqlx::Error> {
    let batches_max = i64::try_from(batches_max).unwrap_or(i64::MAX);
    let query = sqlx::query(BATCHES).bind(start).bind(end).bind(PAGE_LEAVES).bind(batches_max);
    let mut rows = query.fetch(reader);
    let (mut page, mut bytes) = (Page::default(), 0);
    while let Some(row) = rows.try_next().await? {
        let first = page.entries.len();
        let batch = unfold(&row, &mut page.entries)?;
        page.batches.push((batch, first));
        bytes += page.entries[first..].iter().map(bytes_of).sum::<usize>();
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(page)
}

/// What two small tables say of some of the entries.
async fn read_dead_letters_and_erasures(reader: &mut PgConnection, page: &mut Page) -> Result<(), DatabaseError> {
    let Some(range) = page.entries.first().zip(page.entries.last()) else { return Ok(()) };
    let (first, last) = (range.0.leaf_index, range.1.leaf_index);
    let letters = answer(sqlx::query(DEAD_LETTERS).bind(first).bind(last).fetch_all(&mut *reader)).await?;
    let erased = answer(sqlx::query(ERASED).bind(first).bind(last).fetch_all(reader)).await?;
    let mut letters = read_dead_letters(&letters).map_err(DatabaseError::new)?;
    let mut erased = read_erased(&erased).map_err(DatabaseError::new)?;
    if letters.is_empty() && erased.is_empty() {
        return Ok(());
    }
    for entry in &mut page.entries {
        entry.dead_letter = letters.remove(&entry.leaf_index);
        entry.erased = erased.remove(&entry.leaf_index);
    }
    Ok(())
}

/// The keys of the rows that entries name, by table.
fn row_keys(entries: &[EntryRow]) -> BTreeMap<Table, Vec<RowKey>> {
    let mut keys: BTreeMap<Table, Vec<RowKey>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.was(Disposition::Recorded)) {
        let Some(table) = entry.table else { continue };
        keys.entry(table).or_default().extend(entry.row_key(table));
    }
    keys
}

async fn read_rows(
    reader: &mut PgConnection,
    shape: &Shape,
    table: Table,
    keys: &[RowKey],
    page: &mut Page,
) -> Result<(), DatabaseError> {
    let query = sqlx::query(AssertSqlSafe(rows_query(shape, table)));
    let query = if table.rows().has_uuid {
        query.bind(keys.iter().filter_map(|key| as_uuid(&key.to_string())).collect::<Vec<_>>())
    } else {
        let number = |key: &RowKey| if let RowKey::Number(number) = key { Some(*number) } else { None };
        query.bind(keys.iter().filter_map(number).collect::<Vec<_>>())
    };
    let rows = answer(query.fetch_all(reader)).await?;
    page.rows.reserve(rows.len());
    for row in rows {
        let (key, values) = read_row(&row, table).map_err(DatabaseError::new)?;
        page.rows.insert((table, key), values);
    }
    Ok(())
}

/// Most rows have less text than this.
const ROW_BYTES: usize = 512;

fn read_row(row: &PgRow, table: Table) -> Result<(RowKey, Values), sqlx::Error> {
    let mut values = Values::with_capacity(row.len() - 1, ROW_BYTES);
    for index in 1..row.len() {
        // They are selected as text, which need not be asked of each.
        let value = row.try_get_raw(index)?;
        values.push(if value.is_null() { None } else { Some(value.as_str().map_err(sqlx::Error::Decode)?) });
    }
    Ok((read_key(row, table)?, values))
}

/// The key of a row, which [`key_of`] selects first.
pub(crate) fn read_key(row: &PgRow, table: Table) -> Result<RowKey, sqlx::Error> {
    if table.rows().has_uuid { row.try_get(0).map(RowKey::Name) } else { row.try_get(0).map(RowKey::Number) }
}

/// How the key of a table's rows is selected.
pub(crate) const fn key_of(table: Table) -> &'static str {
    if table.rows().has_uuid { "id::text" } else { "id::bigint" }
}

/// All columns that follow from a record, as text.
fn rows_query(shape: &Shape, table: Table) -> String {
    let rows = table.rows();
    let columns: Vec<String> = rows.columns.iter().map(|column| format!("\"{column}\"::text")).collect();
    let (from, ids) = (shape.stored_in(table), rows.id_type());
    format!("select {}, {} from {from} where id = any($1::{ids}[])", key_of(table), columns.join(", "))
}

/// Which ventures there are, of those that rows no longer name.
async fn read_ventures(reader: &mut PgConnection, page: &mut Page) -> Result<(), DatabaseError> {
    const VENTURE: usize = 1;
    let mut named = Vec::new();
    for entry in page.entries.iter().filter(|entry| entry.table == Some(Table::ToolUsageLedger)) {
        let key = entry.row_key(Table::ToolUsageLedger);
        let row = key.and_then(|key| page.rows.get(&(Table::ToolUsageLedger, key)));
        if row.is_some_and(|row| row.get(VENTURE).is_none()) {
            let said: serde_json::Value =
                serde_json::from_slice(entry.payload.as_deref().unwrap_or_default()).unwrap_or_default();
            named.extend(said["venture_id"].as_str().and_then(as_uuid));
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    let query = "select id::text from ledger.known_venture where id = any($1::uuid[])";
    page.ventures = answer(sqlx::query_scalar(query).bind(named).fetch_all(reader)).await?;
    Ok(())
}

/// Table, key, export, erasure, leaf.
type FoundRemoval = (String, String, Option<i64>, Option<i64>, Option<i64>);

/// What was removed of the rows that are not there, and of the bytes that were given up.
async fn read_removals(reader: &mut PgConnection, page: &mut Page) -> Result<(), DatabaseError> {
    let (mut tables, mut keys) = (Vec::new(), Vec::new());
    for entry in &page.entries {
        let Some(table) = entry.table else { continue };
        let key = entry.row_key(table);
        let is_gone = entry.was(Disposition::Recorded)
            && key.as_ref().is_none_or(|key| !page.rows.contains_key(&(table, key.clone())));
        if is_gone || entry.erased.is_some() {
            tables.push(table.rows().name());
            keys.push(match table {
                Table::AuditEvents | Table::DecisionTrails => entry.record_id.clone(),
                _ => key.map(|key| key.to_string()),
            });
        }
    }
    if tables.is_empty() {
        return Ok(());
    }
    let query = "select removal.table_name, removal.row_key, removal.export_id, removal.erasure_id, removal.leaf_index
        from unnest($1::text[], $2::text[]) as wanted (table_name, row_key)
        join ledger.removal using (table_name, row_key)";
    let rows: Vec<FoundRemoval> = answer(sqlx::query_as(query).bind(tables).bind(keys).fetch_all(reader)).await?;
    let removals = rows.into_iter().map(|(table, key, export_id, erasure_id, leaf_index)| {
        ((table, key), Removal { export_id, erasure_id, leaf_index })
    });
    page.removals = removals.collect::<HashMap<_, _>>();
    Ok(())
}
