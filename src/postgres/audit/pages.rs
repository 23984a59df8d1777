//! What stands beside these leaves? Entries in pages of bounded size, each with its rows, its dead letter, its siblings and removals.

use super::super::remedy::DatabaseError;
use super::{Shape, Snapshot, answer};
use crate::domain::leaf::Disposition;
use crate::domain::subject::{Subject, Table};
use crate::domain::tool_usage::as_uuid;
use crate::verify::checkpoint::{KnownRoot, Signer};
use crate::verify::findings::Finding;
use crate::verify::removal::Removal;
use crate::verify::rows::table_name;
use crate::verify::stored::{DeadLetter, Entry, Page, RowKey, Sibling, StoredHash, Subtree, Values};
use crate::verify::tree::{LEVEL_MAX, subtrees_ending_in};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _, ValueRef as _};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

/// A page ends with the row that makes it larger than one of these.
const PAGE_BYTES: usize = 8 << 20;
pub(super) const PAGE_ROWS: usize = 1024;

/// So many entries are looked at before the server's answers are.
const LOOKED_AT: usize = 128;

/// What belongs to a range of leaves, besides their entries.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The subtrees that end in it.
    pub subtrees: Vec<Subtree>,
    /// The signed roots of trees that end in it.
    pub known_roots: Vec<KnownRoot>,
    /// Checkpoints that contradict themselves.
    pub findings: Vec<Finding>,
}

impl Snapshot {
    /// Reads all entries of a range, page by page, and has each page looked at, some entries at a time.
    pub async fn pages(
        &self,
        start: i64,
        end: i64,
        mut look: impl FnMut(&[Entry], &Page) + Send,
    ) -> Result<(), DatabaseError> {
        let mut next = start;
        while next < end {
            let rows_max = self.page_rows.load(Ordering::Relaxed);
            let page = self.with(async |reader| page(reader, &self.shape, (next, end), rows_max).await).await?;
            let Some(last) = page.entries.last() else { break };
            next = last.leaf_index + 1;
            self.page_rows.store(rows_of_next(&page, rows_max), Ordering::Relaxed);
            for entries in page.entries.chunks(LOOKED_AT) {
                look(entries, &page);
                // Whoever reads another page asks the server for more of it, which works while we do.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Reads what belongs to a range besides its entries. The range begins at a multiple of 256.
    pub async fn beside(&self, start: i64, end: i64) -> Result<Beside, DatabaseError> {
        self.with(async |reader| {
            let mut beside = Beside { subtrees: subtrees(reader, start, end).await?, ..Beside::default() };
            if self.shape.checkpoints {
                let query = "select tree_size, root, origin, note from ledger.checkpoint where tree_size > $1 and tree_size <= $2";
                let rows = answer(sqlx::query(query).bind(start).bind(end).fetch_all(reader)).await?;
                rows.iter().try_for_each(|row| read_checkpoint(row, &self.signer, &mut beside)).map_err(DatabaseError::new)?;
            }
            Ok(beside)
        })
        .await
    }

    /// The signed roots of trees that are larger than this one, and those of the empty tree.
    pub async fn checkpoints_beyond(&self, size: i64) -> Result<Beside, DatabaseError> {
        let mut beside = Beside::default();
        if self.shape.checkpoints {
            let query = "select tree_size, root, origin, note from ledger.checkpoint where tree_size > $1 or tree_size <= 0 limit 1000";
            let rows = self.with(async |reader| answer(sqlx::query(query).bind(size).fetch_all(reader)).await).await?;
            rows.iter()
                .try_for_each(|row| read_checkpoint(row, &self.signer, &mut beside))
                .map_err(DatabaseError::new)?;
        }
        Ok(beside)
    }
}

fn read_checkpoint(row: &PgRow, signer: &Signer, beside: &mut Beside) -> Result<(), sqlx::Error> {
    const TABLE: &str = "ledger.checkpoint";
    let (size, root, origin, note): (i64, Vec<u8>, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let known_size = u64::try_from(size).unwrap_or(0);
    let mut differ = |field: &str, says: String| beside.findings.push(Finding::new(TABLE, size, field, says));
    match signer.open(&note) {
        Err(why) => differ("note", format!("is no checkpoint of this log: {why}")),
        Ok(said) => {
            if said.size != known_size {
                differ("tree_size", format!("is {size}, and the note says {}", said.size));
            }
            if said.root != root {
                differ("root", "is not that of the note".to_owned());
            }
            if said.origin != origin {
                differ("origin", format!("is \"{origin}\", and the note says \"{}\"", said.origin));
            }
            beside.known_roots.push(KnownRoot { size: said.size, root: said.root, source: TABLE.to_owned() });
        }
    }
    Ok(())
}

async fn subtrees(reader: &mut PgConnection, start: i64, end: i64) -> Result<Vec<Subtree>, DatabaseError> {
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
    Ok(rows.into_iter().map(|(level, index, hash)| Subtree { level, index, hash }).collect())
}

/// How many rows to ask for: no more than filled the last page, for what the server sends beyond that is thrown away.
fn rows_of_next(page: &Page, rows_max: usize) -> usize {
    let is_full = page.entries.iter().map(bytes_of).sum::<usize>() >= PAGE_BYTES;
    if is_full { page.entries.len() } else { (rows_max * 2).min(PAGE_ROWS) }
}

fn bytes_of(entry: &Entry) -> usize {
    entry.payload.as_ref().map_or(0, Bytes::len) + entry.headers.as_ref().map_or(0, Vec::len)
}

pub(super) async fn page(
    reader: &mut PgConnection,
    shape: &Shape,
    range: (i64, i64),
    rows_max: usize,
) -> Result<Page, DatabaseError> {
    let entries = answer(read_entries(reader, shape, range, rows_max)).await?;
    let mut page = Page { entries, ..Page::default() };
    for (table, keys) in row_keys(&page.entries) {
        read_rows(reader, shape, table, &keys, &mut page).await?;
    }
    read_siblings(reader, &mut page).await?;
    read_ventures(reader, &mut page).await?;
    if shape.retention {
        read_removals(reader, &mut page).await?;
    }
    Ok(page)
}

async fn read_entries(
    reader: &mut PgConnection,
    shape: &Shape,
    (start, end): (i64, i64),
    rows_max: usize,
) -> Result<Vec<Entry>, sqlx::Error> {
    let erased = if shape.retention { "erasure_id, headers_sha256" } else { "null::bigint, null::bytea" };
    let query = format!(
        "select leaf_index, epoch, sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id,
            row_id, leaf_hash, committed_at,
            letter.leaf_index is not null, letter.reason, letter.detail, letter.dlq_subject, letter.rejected_at,
            coalesce(letter.published_at < letter.rejected_at, false),
            {erased}
        from (
            select * from ledger.entry where leaf_index >= $1 and leaf_index < $2 order by leaf_index limit $3
        ) as entry
        left join ledger.dead_letter as letter using (leaf_index)
        order by leaf_index"
    );
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let mut rows = sqlx::query(AssertSqlSafe(query)).bind(start).bind(end).bind(rows_max).fetch(reader);
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let entry = read_entry(&row)?;
        bytes += bytes_of(&entry);
        entries.push(entry);
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(entries)
}

fn read_entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let has_letter: bool = row.try_get(13)?;
    let dead_letter = has_letter.then(|| {
        Ok::<_, sqlx::Error>(DeadLetter {
            reason: row.try_get(14)?,
            detail: row.try_get(15)?,
            dlq_subject: row.try_get(16)?,
            rejected_at_us: unix_us(row, 17)?,
            published_too_early: row.try_get(18)?,
        })
    });
    let disposition: &str = row.try_get(8)?;
    let headers_sha256: Option<&[u8]> = row.try_get(20)?;
    let subject: String = row.try_get(3)?;
    Ok(Entry {
        leaf_index: row.try_get(0)?,
        epoch: row.try_get(1)?,
        sequence: row.try_get(2)?,
        table: Subject::parse(&subject).map(|subject| subject.lane.table()),
        subject,
        server_time_ns: row.try_get(4)?,
        headers: row.try_get(5)?,
        payload: row.try_get::<Option<&[u8]>, _>(6)?.map(Bytes::copy_from_slice),
        payload_sha256: StoredHash::of(row.try_get(7)?),
        disposition: Disposition::named(disposition).ok_or_else(|| disposition.to_owned()),
        record_id: row.try_get(9)?,
        row_id: row.try_get(10)?,
        leaf_hash: StoredHash::of(row.try_get(11)?),
        committed_at_us: unix_us(row, 12)?,
        dead_letter: dead_letter.transpose()?,
        erasure_id: row.try_get(19)?,
        headers_sha256: headers_sha256.map(StoredHash::of),
    })
}

/// 2000-01-01, from which PostgreSQL counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A `timestamptz` in microseconds since 1970; nothing for null and infinity.
fn unix_us(row: &PgRow, index: usize) -> Result<Option<i64>, sqlx::Error> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(None);
    }
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    let bytes = bytes.try_into().map_err(|_| sqlx::Error::Decode("a timestamptz has 8 bytes".into()))?;
    Ok(match i64::from_be_bytes(bytes) {
        i64::MIN | i64::MAX => None,
        microseconds => microseconds.checked_add(POSTGRES_EPOCH_US),
    })
}

/// The keys of the rows that entries name, by table.
fn row_keys(entries: &[Entry]) -> BTreeMap<Table, Vec<RowKey>> {
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
    let query = if table == Table::ToolUsageLedger {
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
pub(super) fn read_key(row: &PgRow, table: Table) -> Result<RowKey, sqlx::Error> {
    match table {
        Table::ToolUsageLedger => row.try_get(0).map(RowKey::Name),
        _ => row.try_get(0).map(RowKey::Number),
    }
}

/// How the key of a table's rows is selected.
pub(super) const fn key_of(table: Table) -> &'static str {
    match table {
        Table::ToolUsageLedger => "id::text",
        _ => "id::bigint",
    }
}

/// All columns that follow from a record, as text.
fn rows_query(shape: &Shape, table: Table) -> String {
    let columns: Vec<String> =
        crate::domain::row::columns(table).iter().map(|column| format!("\"{column}\"::text")).collect();
    let (from, ids) = match table {
        Table::ToolUsageLedger => (shape.tool_usage, "uuid"),
        Table::TokenLedger => ("ledger.token_usage", "bigint"),
        Table::AuditEvents => ("public.audit_events", "bigint"),
        Table::DecisionTrails => ("public.decision_trails", "bigint"),
        Table::EconomicMetrics => ("public.economic_metrics", "bigint"),
    };
    format!("select {}, {} from {from} where id = any($1::{ids}[])", key_of(table), columns.join(", "))
}

/// The first copies of the records that came again.
async fn read_siblings(reader: &mut PgConnection, page: &mut Page) -> Result<(), DatabaseError> {
    let duplicates = page.entries.iter().filter(|entry| entry.was(Disposition::Duplicate));
    let names: Vec<&str> = duplicates.filter_map(|entry| entry.record_id.as_deref()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let query = "select distinct record_id, subject, payload_sha256
        from ledger.entry
        where record_id = any($1) and disposition = 'recorded'";
    let rows: Vec<(String, String, Vec<u8>)> = answer(sqlx::query_as(query).bind(names).fetch_all(reader)).await?;
    for (name, subject, payload_sha256) in rows {
        let payload_sha256 = StoredHash::of(&payload_sha256);
        page.siblings.entry(name).or_default().push(Sibling { subject, payload_sha256 });
    }
    Ok(())
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
        if is_gone || entry.erasure_id.is_some() {
            tables.push(table_name(table));
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
