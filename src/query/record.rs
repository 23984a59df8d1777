//! One entry of the record: what happened, as it was published, as it is stored, and what else bears its name.

use crate::log::queries::LogStore;
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::query::published::{Published, Trace};
use crate::record::digest::hex;
use crate::record::leaf::Disposition;
use crate::record::message::{Headers, utc_text};
use crate::record::subject::Subject;
use crate::verify::findings::Finding;
use crate::verify::snapshot::{SingleEntry, single_entry};
use crate::verify::stored::EntryRow;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// An entry of the record.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct LedgerEntry {
    pub leaf_index: u64,
    /// `recorded`, `duplicate` or `rejected`.
    pub disposition: String,
    /// The id that its publisher gave it, where it could be read.
    pub record_id: Option<String>,
    pub subject: String,
    pub lane: Option<String>,
    /// Who published it: the last token of the subject.
    pub actor: Option<String>,
    pub stream: String,
    pub sequence: i64,
    /// When the server stored the message.
    pub received_at: String,
    pub committed_at: Option<String>,
    pub leaf_hash: String,
    pub payload_sha256: Option<String>,
    pub published: Published,
    /// The trace that it belongs to, by its header `traceparent`.
    pub trace: Option<Trace>,
    pub task_id: Option<String>,
    pub proposal_id: Option<String>,
    pub rejection: Option<StoredRejection>,
    pub erasure: Option<Erasure>,
    /// The row that it made. A duplicate and a reject make none.
    pub row: Option<StoredRow>,
    /// What `ledgerd verify` would find of this entry.
    pub differences: Vec<Difference>,
    /// Other entries of the same id, the oldest first, at most 20.
    pub others: Vec<OtherEntry>,
    /// The newest checkpoint that covers it.
    pub checkpoint: Option<CoveringCheckpoint>,
}

/// Why a message was rejected.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct StoredRejection {
    pub reason: String,
    pub detail: String,
    pub dlq_subject: String,
}

/// The authorised removal of bytes or of a row.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema, sqlx::FromRow)]
pub(crate) struct Erasure {
    /// The event of the Architect that authorised it; of an export, there is none.
    pub authorized_by: Option<String>,
    /// The event that records it.
    pub event_id: Option<String>,
    pub at: Option<String>,
    /// Where a row was archived.
    pub archived_in: Option<String>,
}

/// A row of a table, as it is stored.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct StoredRow {
    pub table: String,
    pub id: String,
    pub columns: Vec<StoredColumn>,
}

/// One column of a row, as PostgreSQL prints it.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct StoredColumn {
    pub name: &'static str,
    pub value: Option<String>,
    /// How it differs from what the published bytes say.
    pub difference: Option<String>,
}

/// A difference that `ledgerd verify` would report.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Difference {
    pub table: String,
    pub field: String,
    pub says: String,
}

/// Another entry of the same id.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct OtherEntry {
    pub leaf_index: u64,
    pub disposition: String,
    pub subject: String,
    pub committed_at: String,
}

/// A checkpoint, which the console has not verified.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct CoveringCheckpoint {
    pub origin: String,
    pub tree_size: u64,
    /// Whose signatures it bears, the log's own among them.
    pub signed_by: Vec<String>,
}

const OTHERS_MAX: i64 = 20;

impl Reader {
    /// The entry of a leaf.
    pub(crate) async fn record(&self, log: &LogStore, leaf_index: u64) -> Result<Option<LedgerEntry>, DatabaseError> {
        let Ok(leaf) = i64::try_from(leaf_index) else { return Ok(None) };
        let Some(single) = single_entry(&self.0, leaf).await? else { return Ok(None) };
        let others = match &single.entry.record_id {
            Some(id) => others(log, id, leaf_index).await?,
            None => Vec::new(),
        };
        let erasure = self.erasure(&single).await?;
        let checkpoint = log.newest_checkpoint(Some(leaf_index)).await?.map(|newest| CoveringCheckpoint {
            signed_by: newest.note.signatures().iter().map(|one| one.name().to_string()).collect(),
            origin: newest.origin,
            tree_size: newest.tree_size,
        });
        Ok(Some(made(leaf_index, single, others, erasure, checkpoint)))
    }

    /// The entry that an id leads to: the recorded one, or the first.
    pub(crate) async fn leaf_of_event(&self, log: &LogStore, id: &str) -> Result<Option<u64>, DatabaseError> {
        let found = log.entries_of(id, None, OTHERS_MAX).await?;
        let recorded = found.iter().find(|entry| entry.disposition == Disposition::Recorded.name());
        Ok(recorded.or(found.first()).map(|entry| entry.index))
    }

    async fn erasure(&self, single: &SingleEntry) -> Result<Option<Erasure>, DatabaseError> {
        let of_removal = single.removal.as_ref().map(|removal| (removal.erasure_id, removal.export_id));
        let of_bytes = single.entry.erased.as_ref().map(|erased| (Some(erased.erasure_id), None));
        let Some((erasure_id, export_id)) = of_removal.or(of_bytes) else { return Ok(None) };
        self.0
            .run("reading an erasure", async |connection| {
                sqlx::query_as(
                    r#"select authorized_by, event_id, to_char(erased_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at,
                        null as archived_in
                    from ledger.erasure
                    where id = $1
                    union all
                    select null, event_id, null, location || '/' || file
                    from ledger.export
                    where id = $2"#,
                )
                .bind(erasure_id)
                .bind(export_id)
                .fetch_optional(connection)
                .await
            })
            .await
    }
}

async fn others(log: &LogStore, id: &str, leaf_index: u64) -> Result<Vec<OtherEntry>, DatabaseError> {
    let found = log.entries_of(id, None, OTHERS_MAX + 1).await?;
    let others = found.into_iter().filter(|entry| entry.index != leaf_index).map(|entry| OtherEntry {
        leaf_index: entry.index,
        disposition: entry.disposition,
        subject: entry.subject,
        committed_at: entry.committed_at,
    });
    Ok(others.take(usize::try_from(OTHERS_MAX).unwrap_or(0)).collect())
}

fn made(
    leaf_index: u64,
    single: SingleEntry,
    others: Vec<OtherEntry>,
    erasure: Option<Erasure>,
    checkpoint: Option<CoveringCheckpoint>,
) -> LedgerEntry {
    let row = row(&single);
    let SingleEntry { entry, epoch, findings, .. } = single;
    let headers = Headers::from_stored(entry.headers.clone());
    let published = Published::of(entry.payload.as_deref(), &headers);
    let said = published.json();
    let (task_id, proposal_id) = (text_of(&said, "task_id"), text_of(&said, "proposal_id"));
    let subject = Subject::parse(&entry.subject);
    LedgerEntry {
        leaf_index,
        disposition: entry.disposition.as_ref().map_or_else(Clone::clone, |one| one.name().to_owned()),
        lane: subject.as_ref().map(|subject| subject.lane.prefix().to_owned()),
        actor: subject.as_ref().map(|subject| subject.actor.to_owned()),
        stream: epoch.incarnation.stream.to_string(),
        sequence: entry.sequence,
        received_at: utc_text(entry.server_time_ns),
        committed_at: entry.committed_at_us.map(|at| utc_text(at.saturating_mul(1000))),
        leaf_hash: hex(&entry.leaf_hash),
        payload_sha256: payload_sha256(&entry),
        trace: Trace::of(&headers),
        published,
        task_id,
        proposal_id,
        rejection: entry.dead_letter.as_ref().map(|letter| StoredRejection {
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            dlq_subject: letter.dlq_subject.clone(),
        }),
        erasure,
        row,
        differences: findings
            .into_iter()
            .map(|Finding { table, field, says, .. }| Difference { table, field, says })
            .collect(),
        others,
        checkpoint,
        record_id: entry.record_id,
        subject: entry.subject,
    }
}

fn payload_sha256(entry: &EntryRow) -> Option<String> {
    match (&entry.payload, &entry.erased) {
        (Some(payload), _) => Some(hex(&crate::record::digest::sha256(payload))),
        (None, erased) => erased.as_ref().map(|erased| hex(&erased.payload_sha256)),
    }
}

fn row(single: &SingleEntry) -> Option<StoredRow> {
    let (table, key, values) = single.row.as_ref()?;
    let rows = table.rows();
    let difference = |column: &str| {
        let of_column = |finding: &&Finding| finding.table == rows.name() && finding.field == column;
        single.findings.iter().find(of_column).map(|finding| finding.says.clone())
    };
    let columns = rows.columns.iter().zip(values.iter()).map(|(name, value)| StoredColumn {
        name,
        value: value.map(str::to_owned),
        difference: difference(name),
    });
    Some(StoredRow { table: rows.name().to_owned(), id: key.to_string(), columns: columns.collect() })
}

/// A text of the record's own, or of what it holds: a proposal's id stands in the details of a vote, and in a trail's proposal.
fn text_of(said: &Value, name: &str) -> Option<String> {
    let places = [said, &said["details"], &said["proposal"]];
    places.into_iter().find_map(|place| place[name].as_str()).map(str::to_owned)
}
