//! How does a message enter custody? The statements on `ledger.entry`, `ledger.dead_letter`, `ledger.subtree` and
//! `ledger.tree_head`, all under the lock on the tree's head.

use super::epochs::{self, Epoch};
use super::failure::Failure;
use super::remedy::DatabaseError;
use crate::domain::dead_letter::dlq_subject;
use crate::domain::digest::Hash;
use crate::domain::leaf::{Disposition, Leaf, headers_sha256, payload_sha256};
use crate::domain::reject::Rejection;
use crate::lifecycle::Judged;
use crate::tlog::tree::{Frontier, Subtree};
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::HashSet;

/// What becomes of a message in this commit.
pub(super) enum Fate<'a> {
    Recorded { row_id: Option<i64> },
    Duplicate,
    Rejected(Cow<'a, Rejection>),
}

impl Fate<'_> {
    pub(super) fn disposition(&self) -> Disposition {
        match self {
            Fate::Recorded { .. } => Disposition::Recorded,
            Fate::Duplicate => Disposition::Duplicate,
            Fate::Rejected(_) => Disposition::Rejected,
        }
    }

    pub(super) fn row_id(&self) -> Option<i64> {
        if let Fate::Recorded { row_id } = self { *row_id } else { None }
    }

    pub(super) fn rejection(&self) -> Option<&Rejection> {
        if let Fate::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

/// The tree's head, locked until the end of the transaction.
pub(super) struct Head {
    size: i64,
    frontier: Frontier,
    committed_at_us: i64,
}

/// Locks the tree's head: from here to the commit, nobody else commits.
pub(super) async fn lock_head(connection: &mut PgConnection) -> Result<Head, Failure> {
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

/// Whether an append was made.
#[must_use]
pub(super) enum Appended {
    Done,
    /// A newer epoch was opened since the commit looked, and the transaction is to be given up.
    EpochIsOver,
}

/// Appends the messages to the tree and to custody. Without any it changes nothing.
pub(super) async fn append(
    connection: &mut PgConnection,
    head: Head,
    epoch: Epoch,
    rows: &[&Judged],
    fates: &[Fate<'_>],
) -> Result<Appended, Failure> {
    let Some(first) = rows.first() else { return Ok(Appended::Done) };
    let Head { size, mut frontier, committed_at_us } = head;
    let mut completed = Vec::new();
    let mut hashes = Vec::with_capacity(rows.len());
    for (row, fate) in rows.iter().zip(fates) {
        let payload = payload_sha256(&row.message);
        let leaf = leaf_hash(row, payload, fate, epoch, committed_at_us);
        frontier.append(leaf, &mut completed);
        hashes.push(Hashes { payload, leaf });
    }
    let growth = Growth { size, frontier, completed };
    if !insert_entries(connection, epoch, growth, rows, fates, &hashes).await? {
        return if epochs::of(connection, &first.message.incarnation).await?[0] == epoch {
            Err(broken("ledger.tree_head changed under its lock"))
        } else {
            Ok(Appended::EpochIsOver)
        };
    }
    insert_dead_letters(connection, epoch, size, rows, fates).await?;
    Ok(Appended::Done)
}

fn broken(what: &str) -> Failure {
    Failure::of_custody(DatabaseError::of_the_operator(what.to_owned()))
}

/// How a commit changes the tree.
struct Growth {
    /// The leaves before it.
    size: i64,
    frontier: Frontier,
    completed: Vec<Subtree>,
}

/// What custody keeps of an entry besides the message.
struct Hashes {
    payload: Hash,
    leaf: Hash,
}

fn leaf_hash(row: &Judged, payload_sha256: Hash, fate: &Fate<'_>, epoch: Epoch, committed_at_us: i64) -> Hash {
    let message = &row.message;
    Leaf {
        stream: &message.incarnation.stream,
        stream_created_ns: message.incarnation.created_ns,
        regressions: epoch.regressions,
        sequence: message.sequence,
        subject: &message.subject,
        server_time_ns: message.server_time_ns,
        headers_sha256: headers_sha256(message),
        payload_sha256,
        disposition: fate.disposition(),
        record_id: row.verdict.record_id(),
        row_id: fate.row_id(),
        committed_at_us,
        rejection: fate.rejection().map(|rejection| (rejection.reason().code(), rejection.detail())),
    }
    .hash()
}

/// What custody has of the records that came again, from this commit or an earlier one.
async fn digests_of_first_copies(
    connection: &mut PgConnection,
    rows: &[&Judged],
    fates: &[Fate<'_>],
    hashes: &[Hashes],
) -> Result<HashSet<Hash>, sqlx::Error> {
    let again = rows.iter().zip(fates).filter(|(_, fate)| matches!(fate, Fate::Duplicate));
    let ids: Vec<&str> = again.filter_map(|(row, _)| row.verdict.record_id()).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let earlier: Vec<Hash> = sqlx::query_scalar(
        "select payload_sha256 from ledger.entry where record_id = any($1) and disposition = 'recorded'",
    )
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    let now = fates.iter().zip(hashes).filter(|(fate, _)| matches!(fate, Fate::Recorded { .. }));
    Ok(earlier.into_iter().chain(now.map(|(_, hashes)| hashes.payload)).collect())
}

/// Writes entries, subtrees and head in one statement, for the others wait until the commit. Says no, and writes no entry, if the
/// head is not the one that was locked, or the epoch not the newest: another instance may have opened one since we looked, and from
/// the lock on nobody can.
async fn insert_entries(
    connection: &mut PgConnection,
    epoch: Epoch,
    Growth { size, frontier, completed }: Growth,
    rows: &[&Judged],
    fates: &[Fate<'_>],
    hashes: &[Hashes],
) -> Result<bool, sqlx::Error> {
    let incarnation = &rows[0].message.incarnation;
    // Where a duplicate's bytes are those of its first copy, its hash is enough.
    let known = digests_of_first_copies(&mut *connection, rows, fates, hashes).await?;
    let payloads: Vec<Option<&[u8]>> = rows
        .iter()
        .zip(fates)
        .zip(hashes)
        .map(|((row, fate), hashes)| {
            let is_copy = matches!(fate, Fate::Duplicate) && known.contains(&hashes.payload);
            (!is_copy).then_some(&row.message.payload[..])
        })
        .collect();
    let inserted = sqlx::query(
        "with
        completed as (
            insert into ledger.subtree (level, index, hash)
            select level, index, hash from unnest($13::smallint[], $14::bigint[], $15::bytea[]) as new (level, index, hash)
        ),
        grown as (
            update ledger.tree_head set size = $16, root = $17, frontier = $18
            where size = $1 and $2 = (
                select epoch from ledger.epoch
                where stream = $19 and stream_created_ns = $20
                order by regressions desc
                limit 1
            )
            returning 1
        )
        insert into ledger.entry
            (leaf_index, epoch, sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id,
            row_id, leaf_hash, committed_at)
        select $1 + position - 1, $2, sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id,
            row_id, leaf_hash, current_timestamp
        from unnest($3::bigint[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::text[], $10::text[],
                $11::bigint[], $12::bytea[])
            with ordinality
            as new (sequence, subject, server_time_ns, headers, payload, payload_sha256, disposition, record_id, row_id,
                leaf_hash, position)
        cross join grown",
    )
    .bind(size)
    .bind(epoch.number)
    .bind(rows.iter().map(|row| row.message.sequence).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.message.subject.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.message.server_time_ns).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.message.headers.as_bytes()).collect::<Vec<_>>())
    .bind(payloads)
    .bind(hashes.iter().map(|hashes| &hashes.payload[..]).collect::<Vec<_>>())
    .bind(fates.iter().map(|fate| fate.disposition().name()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.verdict.record_id()).collect::<Vec<_>>())
    .bind(fates.iter().map(Fate::row_id).collect::<Vec<_>>())
    .bind(hashes.iter().map(|hashes| &hashes.leaf[..]).collect::<Vec<_>>())
    .bind(completed.iter().map(|subtree| subtree.level).collect::<Vec<_>>())
    .bind(completed.iter().map(|subtree| subtree.index).collect::<Vec<_>>())
    .bind(completed.iter().map(|subtree| &subtree.hash[..]).collect::<Vec<_>>())
    .bind(i64::try_from(frontier.size()).expect("a leaf index fits"))
    .bind(&frontier.root()[..])
    .bind(frontier.to_bytes())
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(inserted == rows.len() as u64)
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
            subjects.push(dlq_subject(&row.message, epoch.regressions));
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
