//! What does a commit write? One transaction: the projections, then the lock on the tree's head, then the custody entries
//! with their leaf indexes, the dead letters, the complete subtrees and the new head.
//!
//! The head is locked as late as possible: from there to the commit, nobody else commits. A message that is stored already
//! is recognised by epoch and sequence before anything is written, so a commit whose answer was lost is simply tried again.

use super::connections::Connections;
use super::epochs::{self, Epoch};
use super::failure::{self, Failure};
use super::projection::{self, Placed};
use super::remedy::{Cure, DatabaseError};
use crate::domain::event::AuditEvent;
use crate::domain::leaf::{Disposition, Hash, Leaf, headers_sha256, payload_sha256};
use crate::domain::message::Incarnation;
use crate::domain::reject::Rejection;
use crate::domain::rules::Verdict;
use crate::domain::subject::{Subject, safe_token};
use crate::lifecycle::{Judged, Remedy, Store, StoreError, Tally};
use crate::tlog::tree::{Frontier, Subtree};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The ledger in PostgreSQL.
#[derive(Debug)]
pub struct Ledger {
    writers: Connections,
    /// Rung when dead letters were committed.
    pub dead_letters_waiting: Arc<Notify>,
}

impl Ledger {
    /// Writes through these connections, one for each commit that may run at a time.
    pub fn new(writers: Connections) -> Self {
        Self { writers, dead_letters_waiting: Arc::new(Notify::new()) }
    }

    /// The connections, for a reload of their credentials.
    pub fn connections(&self) -> &Connections {
        &self.writers
    }
}

impl Store for Ledger {
    async fn commit(&self, rows: &[Judged]) -> Result<Tally, StoreError> {
        let mut lease = self.writers.lease().await.map_err(|error| Failure::of_custody(error).into_store_error())?;
        let limit = self.writers.limits().transaction();
        match timeout(limit, commit(&mut lease, rows)).await {
            Ok(Ok(tally)) => {
                lease.keep();
                if !tally.rejected.is_empty() {
                    self.dead_letters_waiting.notify_one();
                }
                Ok(tally)
            }
            Ok(Err(failure)) => {
                drop(lease);
                Err(self.find_remedy(failure, rows).await)
            }
            Err(_) => Err(Failure::of_custody(DatabaseError::silent("committing", limit)).into_store_error()),
        }
    }
}

impl Ledger {
    async fn find_remedy(&self, failure: Failure, rows: &[Judged]) -> StoreError {
        if failure.cure() != Cure::Record {
            return failure.into_store_error();
        }
        let limit = self.writers.limits().transaction();
        let culprit = timeout(limit, self.find_culprit(rows)).await;
        let culprit = culprit.unwrap_or_else(|_| Err(DatabaseError::silent("looking for the record at fault", limit)));
        match culprit {
            Ok(Culprit::Record(error)) => {
                StoreError { what: error.to_string(), remedy: Remedy::Isolate(failure::rejection(&error)) }
            }
            Ok(Culprit::Table(error)) => StoreError {
                remedy: Remedy::Operator,
                what: format!(
                    "audit_events refuses records that are good: {error}; look at its columns, constraints and triggers"
                ),
            },
            Ok(Culprit::Nobody) => StoreError { remedy: Remedy::Retry, what: failure.error.to_string() },
            Err(error) => Failure::of_custody(error).into_store_error(),
        }
    }

    /// Tries a good record and then the refused ones in one transaction, which is never committed. From the first insert on,
    /// nobody can change the table, so both meet the same columns and constraints.
    async fn find_culprit(&self, rows: &[Judged]) -> Result<Culprit, DatabaseError> {
        let mut lease = self.writers.lease().await?;
        sqlx::raw_sql("begin isolation level read committed").execute(&mut *lease).await.map_err(DatabaseError::new)?;
        if let Err(error) = projection::insert_a_good_record(&mut lease).await {
            let error = DatabaseError::new(error);
            return if error.cure == Cure::Record { Ok(Culprit::Table(error)) } else { Err(error) };
        }
        let all: Vec<&Judged> = rows.iter().collect();
        match projection::place(&mut lease, &events_of(&all)).await.map_err(DatabaseError::new) {
            Ok(_) => Ok(Culprit::Nobody),
            Err(error) if error.cure == Cure::Record => Ok(Culprit::Record(error)),
            Err(error) => Err(error),
        }
    }
}

/// Whose fault a refusal was.
enum Culprit {
    /// The table takes good records, and refuses these.
    Record(DatabaseError),
    /// The table refuses what it must take.
    Table(DatabaseError),
    /// It takes all of them now.
    Nobody,
}

async fn commit(connection: &mut PgConnection, rows: &[Judged]) -> Result<Tally, Failure> {
    let Some(first) = rows.first() else { return Ok(Tally::default()) };
    let incarnation = &first.message.incarnation;
    debug_assert!(rows.iter().all(|row| row.message.incarnation == *incarnation), "one take has one incarnation");
    loop {
        let epochs = epochs::of(connection, incarnation).await?;
        sqlx::raw_sql("begin isolation level read committed").execute(&mut *connection).await?;
        let fresh = match not_stored_yet(connection, &epochs, rows).await? {
            Custody::Fresh(fresh) => fresh,
            Custody::SequenceReused => {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                epochs::open_after(connection, incarnation, epochs[0]).await?;
                continue;
            }
        };
        let mut tally = Tally { known: rows.len() - fresh.len(), ..Tally::default() };
        if fresh.is_empty() {
            // These rows may be on this server's disk alone, their commit having been cut short while it waited for a
            // synchronous standby. A record in the log makes this commit wait for it.
            sqlx::query("select pg_logical_emit_message(true, 'ledgerd', '')").execute(&mut *connection).await?;
        } else {
            let fates = project(connection, &fresh).await?;
            let head = lock_head(connection).await?;
            // Another instance may have opened an epoch since we looked; from here on, nobody can.
            if epochs::of(connection, incarnation).await?[0] != epochs[0] {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                continue;
            }
            append(connection, head, epochs[0], &fresh, &fates).await?;
            count(&fates, &mut tally);
        }
        // A timeout would end the wait for a synchronous standby and let the commit pass as if it had been there.
        sqlx::raw_sql("set local statement_timeout = 0; commit").execute(&mut *connection).await?;
        return Ok(tally);
    }
}

enum Custody<'a> {
    Fresh(Vec<&'a Judged>),
    /// A sequence of the newest epoch belongs to another message.
    SequenceReused,
}

/// Leaves out what earlier commits stored.
async fn not_stored_yet<'a>(
    connection: &mut PgConnection,
    epochs: &[Epoch],
    rows: &'a [Judged],
) -> Result<Custody<'a>, sqlx::Error> {
    let numbers: Vec<i32> = epochs.iter().map(|epoch| epoch.number).collect();
    let sequences: Vec<i64> = rows.iter().map(|row| row.message.sequence).collect();
    let stored: Vec<(i32, i64, i64, Vec<u8>)> = sqlx::query_as(
        "select epoch, sequence, server_time_ns, payload_sha256
        from ledger.entry
        where epoch = any($1) and sequence = any($2)",
    )
    .bind(&numbers)
    .bind(&sequences)
    .fetch_all(connection)
    .await?;
    let mut by_sequence: HashMap<i64, Vec<(i32, i64, Vec<u8>)>> = HashMap::new();
    for (epoch, sequence, time, digest) in stored {
        by_sequence.entry(sequence).or_default().push((epoch, time, digest));
    }
    let mut fresh = Vec::with_capacity(rows.len());
    // A client that was frozen for a while finds a message and its redelivery in one batch.
    let mut seen = HashSet::with_capacity(rows.len());
    for row in rows {
        if !seen.insert(row.message.sequence) {
            continue;
        }
        let Some(candidates) = by_sequence.get(&row.message.sequence) else {
            fresh.push(row);
            continue;
        };
        let digest = payload_sha256(&row.message);
        let is_same =
            |(_, time, stored): &(i32, i64, Vec<u8>)| *time == row.message.server_time_ns && stored[..] == digest;
        if candidates.iter().any(is_same) {
            continue;
        }
        if candidates.iter().any(|(epoch, ..)| *epoch == epochs[0].number) {
            return Ok(Custody::SequenceReused);
        }
        fresh.push(row);
    }
    Ok(Custody::Fresh(fresh))
}

/// What becomes of a message in this commit.
enum Fate<'a> {
    Recorded { row_id: i64 },
    Duplicate,
    Rejected(std::borrow::Cow<'a, Rejection>),
}

impl Fate<'_> {
    fn disposition(&self) -> Disposition {
        match self {
            Fate::Recorded { .. } => Disposition::Recorded,
            Fate::Duplicate => Disposition::Duplicate,
            Fate::Rejected(_) => Disposition::Rejected,
        }
    }

    fn row_id(&self) -> Option<i64> {
        if let Fate::Recorded { row_id } = self { Some(*row_id) } else { None }
    }

    fn rejection(&self) -> Option<&Rejection> {
        if let Fate::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

fn events_of<'a>(rows: &[&'a Judged]) -> Vec<&'a AuditEvent> {
    rows.iter()
        .filter_map(|row| match &row.verdict {
            Verdict::Record(event) => Some(event),
            Verdict::Reject { .. } => None,
        })
        .collect()
}

/// Writes the projections, and so learns each message's fate.
async fn project<'a>(connection: &mut PgConnection, rows: &[&'a Judged]) -> Result<Vec<Fate<'a>>, Failure> {
    let placed = projection::place(connection, &events_of(rows)).await.map_err(Failure::of_projection)?;
    let mut placed = placed.into_iter();
    rows.iter()
        .map(|row| match &row.verdict {
            Verdict::Reject { rejection, .. } => Ok(Fate::Rejected(std::borrow::Cow::Borrowed(rejection))),
            Verdict::Record(event) => match placed.next().expect("one place for each event") {
                Some(Placed::New(row_id)) => Ok(Fate::Recorded { row_id }),
                Some(Placed::Same) => Ok(Fate::Duplicate),
                Some(Placed::Conflict(rejection)) => Ok(Fate::Rejected(std::borrow::Cow::Owned(rejection))),
                None => Err(Failure::of_custody(DatabaseError::of_the_world(format!(
                    "the row of {} came and went during the commit",
                    event.event_id
                )))),
            },
        })
        .collect()
}

fn count(fates: &[Fate<'_>], tally: &mut Tally) {
    for fate in fates {
        match fate {
            Fate::Recorded { .. } => tally.recorded += 1,
            Fate::Duplicate => tally.duplicates += 1,
            Fate::Rejected(rejection) => *tally.rejected.entry(rejection.reason()).or_default() += 1,
        }
    }
}

/// The tree's head, locked until the end of the transaction.
struct Head {
    size: i64,
    frontier: Frontier,
    committed_at_us: i64,
}

async fn lock_head(connection: &mut PgConnection) -> Result<Head, Failure> {
    let broken = |what: &str| Failure::of_custody(DatabaseError::of_the_operator(what.to_owned()));
    let (size, stored_frontier, committed_at_us): (i64, Vec<u8>, i64) = sqlx::query_as(
        "select size, frontier, (extract(epoch from current_timestamp) * 1000000)::bigint
        from ledger.tree_head
        for update",
    )
    .fetch_optional(&mut *connection)
    .await?
    .ok_or_else(|| broken("ledger.tree_head has no row"))?;
    let frontier = u64::try_from(size).ok().and_then(|size| Frontier::restore(size, &stored_frontier).ok());
    let frontier = frontier.ok_or_else(|| broken("ledger.tree_head contradicts itself"))?;
    Ok(Head { size, frontier, committed_at_us })
}

/// Appends the messages to the tree and to custody.
async fn append(
    connection: &mut PgConnection,
    head: Head,
    epoch: Epoch,
    rows: &[&Judged],
    fates: &[Fate<'_>],
) -> Result<(), Failure> {
    let Head { size, mut frontier, committed_at_us } = head;
    let mut completed = Vec::new();
    let mut leaf_hashes = Vec::with_capacity(rows.len());
    for (row, fate) in rows.iter().zip(fates) {
        let hash = leaf_hash(row, fate, epoch, committed_at_us);
        frontier.append(hash, &mut completed);
        leaf_hashes.push(hash);
    }
    insert_entries(connection, epoch, size, rows, fates, &leaf_hashes).await?;
    insert_dead_letters(connection, epoch, size, rows, fates).await?;
    insert_subtrees(connection, &completed).await?;
    advance_head(connection, size, &frontier).await
}

fn leaf_hash(row: &Judged, fate: &Fate<'_>, epoch: Epoch, committed_at_us: i64) -> Hash {
    let message = &row.message;
    Leaf {
        incarnation: &message.incarnation,
        regressions: epoch.regressions,
        sequence: message.sequence,
        subject: &message.subject,
        server_time_ns: message.server_time_ns,
        headers_sha256: headers_sha256(message),
        payload_sha256: payload_sha256(message),
        disposition: fate.disposition(),
        record_id: row.verdict.record_id(),
        row_id: fate.row_id(),
        committed_at_us,
        rejection: fate.rejection(),
    }
    .hash()
}

/// What custody has of the records that came again.
async fn digests_of_first_copies(
    connection: &mut PgConnection,
    rows: &[&Judged],
    fates: &[Fate<'_>],
) -> Result<HashSet<Vec<u8>>, sqlx::Error> {
    let again = rows.iter().zip(fates).filter(|(_, fate)| matches!(fate, Fate::Duplicate));
    let ids: Vec<&str> = again.filter_map(|(row, _)| row.verdict.record_id()).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let digests: Vec<Vec<u8>> = sqlx::query_scalar(
        "select payload_sha256 from ledger.entry where record_id = any($1) and disposition = 'recorded'",
    )
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    Ok(digests.into_iter().collect())
}

async fn insert_entries(
    connection: &mut PgConnection,
    epoch: Epoch,
    first_leaf_index: i64,
    rows: &[&Judged],
    fates: &[Fate<'_>],
    leaf_hashes: &[Hash],
) -> Result<(), sqlx::Error> {
    let digests: Vec<Hash> = rows.iter().map(|row| payload_sha256(&row.message)).collect();
    // Where a duplicate's bytes are those of its first copy, its hash is enough.
    let known = digests_of_first_copies(&mut *connection, rows, fates).await?;
    let payloads: Vec<Option<&[u8]>> = rows
        .iter()
        .zip(fates)
        .zip(&digests)
        .map(|((row, fate), digest)| {
            let is_copy = matches!(fate, Fate::Duplicate) && known.contains(&digest[..]);
            (!is_copy).then_some(&row.message.payload[..])
        })
        .collect();
    sqlx::query(
        "insert into ledger.entry
            (leaf_index, epoch, sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id,
            row_id, leaf_hash, committed_at)
        select $1 + position - 1, $2, sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id,
            row_id, leaf_hash, current_timestamp
        from unnest($3::bigint[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::text[], $10::text[],
                $11::bigint[], $12::bytea[])
            with ordinality
            as new (sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id, row_id,
                leaf_hash, position)",
    )
    .bind(first_leaf_index)
    .bind(epoch.number)
    .bind(rows.iter().map(|row| row.message.sequence).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.message.subject.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.message.server_time_ns).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.message.headers.as_bytes()).collect::<Vec<_>>())
    .bind(payloads)
    .bind(digests.iter().map(|digest| &digest[..]).collect::<Vec<_>>())
    .bind(fates.iter().map(|fate| fate.disposition().name()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.verdict.record_id()).collect::<Vec<_>>())
    .bind(fates.iter().map(Fate::row_id).collect::<Vec<_>>())
    .bind(leaf_hashes.iter().map(|hash| &hash[..]).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_dead_letters(
    connection: &mut PgConnection,
    epoch: Epoch,
    first_leaf_index: i64,
    rows: &[&Judged],
    fates: &[Fate<'_>],
) -> Result<(), sqlx::Error> {
    let mut leaf_indexes = Vec::new();
    let mut reasons = Vec::new();
    let mut details = Vec::new();
    let mut subjects = Vec::new();
    for ((row, fate), leaf_index) in rows.iter().zip(fates).zip(first_leaf_index..) {
        if let Some(rejection) = fate.rejection() {
            leaf_indexes.push(leaf_index);
            reasons.push(rejection.reason().code());
            details.push(rejection.detail());
            subjects.push(dlq_subject(row, epoch));
        }
    }
    if leaf_indexes.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into ledger.dead_letter (leaf_index, reason, detail, dlq_subject, rejected_at)
        select leaf_index, reason, detail, dlq_subject, current_timestamp
        from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as new (leaf_index, reason, detail, dlq_subject)",
    )
    .bind(leaf_indexes)
    .bind(reasons)
    .bind(details)
    .bind(subjects)
    .execute(connection)
    .await?;
    Ok(())
}

/// `dlq.ledger.<LANE>.<ACTOR>.<reference>`: the reference names the message for ever, in whatever database it is stored.
fn dlq_subject(row: &Judged, epoch: Epoch) -> String {
    let message = &row.message;
    let (lane, actor) = match Subject::parse(&message.subject) {
        Some(subject) => (subject.lane.prefix(), safe_token(subject.actor)),
        None => ("UNKNOWN", safe_token(message.subject.rsplit('.').next().unwrap_or_default())),
    };
    let key = epoch_key(&message.incarnation, epoch.regressions);
    format!("dlq.ledger.{lane}.{actor}.{key}-{}", message.sequence)
}

/// Names an epoch by a key that is the same in every database, unlike its number in `ledger.epoch`.
pub(super) fn epoch_key(incarnation: &Incarnation, regressions: i32) -> String {
    match regressions {
        0 => incarnation.created_ns.to_string(),
        _ => format!("{}r{regressions}", incarnation.created_ns),
    }
}

async fn insert_subtrees(connection: &mut PgConnection, completed: &[Subtree]) -> Result<(), sqlx::Error> {
    if completed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into ledger.subtree (level, index, hash)
        select level, index, hash from unnest($1::smallint[], $2::bigint[], $3::bytea[]) as new (level, index, hash)",
    )
    .bind(completed.iter().map(|subtree| subtree.level).collect::<Vec<_>>())
    .bind(completed.iter().map(|subtree| subtree.index).collect::<Vec<_>>())
    .bind(completed.iter().map(|subtree| &subtree.hash[..]).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn advance_head(connection: &mut PgConnection, old_size: i64, frontier: &Frontier) -> Result<(), Failure> {
    let updated = sqlx::query("update ledger.tree_head set size = $1, root = $2, frontier = $3 where size = $4")
        .bind(i64::try_from(frontier.size()).expect("a leaf index fits"))
        .bind(&frontier.root()[..])
        .bind(frontier.to_bytes())
        .bind(old_size)
        .execute(connection)
        .await?
        .rows_affected();
    if updated == 1 {
        return Ok(());
    }
    Err(Failure::of_custody(DatabaseError::of_the_operator("ledger.tree_head changed under its lock".to_owned())))
}
