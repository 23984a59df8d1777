//! What stands beside these leaves? Entries in pages of bounded size, each with its rows, its dead letter, its siblings and removals.

use super::super::remedy::DatabaseError;
use super::{Shape, Snapshot, answer};
use crate::domain::leaf::Disposition;
use crate::domain::subject::Table;
use crate::domain::tool_usage::as_uuid;
use crate::verify::checkpoint::{KnownRoot, Signer};
use crate::verify::entry::{row_key, table_of};
use crate::verify::findings::Finding;
use crate::verify::removal::Removal;
use crate::verify::rows::table_name;
use crate::verify::stored::{DeadLetter, Entry, Page, Sibling, Subtree, Values};
use crate::verify::tree::{LEVEL_MAX, subtrees_ending_in};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};
use std::collections::HashMap;

/// A page ends with the row that makes it larger than one of these.
const PAGE_BYTES: i64 = 8 << 20;
const PAGE_ROWS: i64 = 1024;

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
    /// Reads all entries of a range, page by page.
    pub async fn pages(&self, start: i64, end: i64, mut take: impl FnMut(Page) + Send) -> Result<(), DatabaseError> {
        let mut next = start;
        while next < end {
            let page = self.with(async |reader| page(reader, &self.shape, next, end).await).await?;
            let Some(last) = page.entries.last() else { break };
            next = last.leaf_index + 1;
            take(page);
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

pub(super) async fn page(
    reader: &mut PgConnection,
    shape: &Shape,
    start: i64,
    end: i64,
) -> Result<Page, DatabaseError> {
    let erased = if shape.retention { "erasure_id, headers_sha256" } else { "null::bigint, null::bytea" };
    let query = format!(
        "select leaf_index, epoch, sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id,
            row_id, leaf_hash,
            case when isfinite(committed_at) then (extract(epoch from committed_at) * 1000000)::bigint end as committed_at_us,
            letter.leaf_index is not null, letter.reason, letter.detail, letter.dlq_subject,
            case when isfinite(letter.rejected_at) then (extract(epoch from letter.rejected_at) * 1000000)::bigint end,
            coalesce(letter.published_at < letter.rejected_at, false),
            {erased}
        from (
            select *,
                sum(octet_length(coalesce(payload, '')) + octet_length(coalesce(headers, '')))
                    over (order by leaf_index rows between unbounded preceding and 1 preceding) as bytes_before
            from ledger.entry
            where leaf_index >= $1 and leaf_index < $2
            order by leaf_index
            limit {PAGE_ROWS}
        ) as entry
        left join ledger.dead_letter as letter using (leaf_index)
        where coalesce(bytes_before, 0) < {PAGE_BYTES}
        order by leaf_index"
    );
    let rows = answer(sqlx::query(AssertSqlSafe(query)).bind(start).bind(end).fetch_all(&mut *reader)).await?;
    let entries = rows.iter().map(read_entry).collect::<Result<Vec<_>, _>>().map_err(DatabaseError::new)?;
    let mut page = Page { entries, ..Page::default() };
    for table in Table::ALL {
        read_rows(reader, shape, table, &mut page).await?;
    }
    read_siblings(reader, &mut page).await?;
    read_ventures(reader, &mut page).await?;
    if shape.retention {
        read_removals(reader, &mut page).await?;
    }
    Ok(page)
}

fn read_entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let has_letter: bool = row.try_get(13)?;
    let dead_letter = has_letter.then(|| {
        Ok::<_, sqlx::Error>(DeadLetter {
            reason: row.try_get(14)?,
            detail: row.try_get(15)?,
            dlq_subject: row.try_get(16)?,
            rejected_at_us: row.try_get(17)?,
            published_too_early: row.try_get(18)?,
        })
    });
    Ok(Entry {
        leaf_index: row.try_get(0)?,
        epoch: row.try_get(1)?,
        sequence: row.try_get(2)?,
        subject: row.try_get(3)?,
        server_time_ns: row.try_get(4)?,
        headers: row.try_get(5)?,
        payload: row.try_get(6)?,
        payload_sha256: row.try_get(7)?,
        disposition: row.try_get(8)?,
        record_id: row.try_get(9)?,
        row_id: row.try_get(10)?,
        leaf_hash: row.try_get(11)?,
        committed_at_us: row.try_get(12)?,
        dead_letter: dead_letter.transpose()?,
        erasure_id: row.try_get(19)?,
        headers_sha256: row.try_get(20)?,
    })
}

fn is(entry: &Entry, disposition: Disposition) -> bool {
    entry.disposition == disposition.name()
}

/// The keys of the rows of this table that the page's entries name.
fn row_keys(page: &Page, table: Table) -> Vec<String> {
    let recorded =
        page.entries.iter().filter(|entry| is(entry, Disposition::Recorded) && table_of(entry) == Some(table));
    recorded.filter_map(|entry| row_key(entry, table)).collect()
}

async fn read_rows(
    reader: &mut PgConnection,
    shape: &Shape,
    table: Table,
    page: &mut Page,
) -> Result<(), DatabaseError> {
    let keys = row_keys(page, table);
    if keys.is_empty() {
        return Ok(());
    }
    let query = AssertSqlSafe(rows_query(shape, table));
    let rows = if table == Table::ToolUsageLedger {
        let ids: Vec<String> = keys.iter().filter_map(|key| as_uuid(key)).collect();
        answer(sqlx::query(query).bind(ids).fetch_all(reader)).await?
    } else {
        let ids: Vec<i64> = keys.iter().filter_map(|key| key.parse().ok()).collect();
        answer(sqlx::query(query).bind(ids).fetch_all(reader)).await?
    };
    for row in rows {
        let key: String = row.try_get(0).map_err(DatabaseError::new)?;
        let values = (1..row.len()).map(|index| row.try_get(index)).collect::<Result<Values, _>>();
        page.rows.insert((table, key), values.map_err(DatabaseError::new)?);
    }
    Ok(())
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
    format!("select id::text, {} from {from} where id = any($1::{ids}[])", columns.join(", "))
}

/// The first copies of the records that came again.
async fn read_siblings(reader: &mut PgConnection, page: &mut Page) -> Result<(), DatabaseError> {
    let duplicates = page.entries.iter().filter(|entry| is(entry, Disposition::Duplicate));
    let names: Vec<&str> = duplicates.filter_map(|entry| entry.record_id.as_deref()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let query = "select distinct record_id, subject, payload_sha256
        from ledger.entry
        where record_id = any($1) and disposition = 'recorded'";
    let rows: Vec<(String, String, Vec<u8>)> = answer(sqlx::query_as(query).bind(names).fetch_all(reader)).await?;
    for (name, subject, payload_sha256) in rows {
        page.siblings.entry(name).or_default().push(Sibling { subject, payload_sha256 });
    }
    Ok(())
}

/// Which ventures there are, of those that rows no longer name.
async fn read_ventures(reader: &mut PgConnection, page: &mut Page) -> Result<(), DatabaseError> {
    const VENTURE: usize = 1;
    let mut named = Vec::new();
    for entry in page.entries.iter().filter(|entry| table_of(entry) == Some(Table::ToolUsageLedger)) {
        let row = row_key(entry, Table::ToolUsageLedger).and_then(|key| page.rows.get(&(Table::ToolUsageLedger, key)));
        if row.is_some_and(|row| row.get(VENTURE).is_some_and(Option::is_none)) {
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
        let Some(table) = table_of(entry) else { continue };
        let key = row_key(entry, table);
        let is_gone = is(entry, Disposition::Recorded)
            && key.as_ref().is_none_or(|key| !page.rows.contains_key(&(table, key.clone())));
        if is_gone || entry.erasure_id.is_some() {
            tables.push(table_name(table));
            keys.push(match table {
                Table::AuditEvents | Table::DecisionTrails => entry.record_id.clone(),
                _ => key,
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
