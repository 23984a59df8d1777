//! Commits a batch in one transaction: projections, the lock on the tree head, and the custody entries with their leaf
//! indexes. After these come the complete subtrees, the new head, the positions of the lanes, and the dead letters.
//!
//! The head is locked as late as possible: from the lock to the commit, nobody else commits. A small commit of events
//! assumes the head, and the append locks it. Rows follow on the positions of their lanes. So a commit whose answer was
//! lost is simply tried again: the position shows whether it was made.

use crate::budget::days as budget;
use crate::budget::days::{Changes, News};
use crate::budget::status::Budget;
use crate::ingest::custody::{self, Appended, Follows, RowOutcome, Tip};
use crate::ingest::epochs::{self, Epoch};
use crate::ingest::lifecycle::{Judged, References, Tally};
use crate::ingest::position::{Move, Order};
use crate::ingest::positions;
use crate::ingest::projection::{self, Ids};
use crate::postgres::failure::CommitFailure;
use crate::postgres::remedy::DatabaseError;
use crate::record::kinds::Record;
use crate::record::lane::Lane;
use crate::record::leaf::payload_sha256;
use crate::record::message::Incarnation;
use crate::record::reject::Reason;
use crate::record::table::Table;
use crate::record::verdict::Verdict;
use sqlx::{PgConnection, Row as _};
use std::collections::{BTreeMap, HashMap};

/// What a commit takes to be so. Where it is not, the commit finds out, and makes up for it.
#[derive(Clone, Debug)]
pub(crate) struct Assumptions {
    pub(crate) references: References,
    pub(crate) ids: Ids,
    /// The tree's head, where nobody else is likely to have moved it: then it is not asked for.
    pub(crate) tip: Option<Tip>,
}

pub(crate) struct Committed {
    /// What became of each of its rows, in their order.
    pub(crate) outcomes: Vec<CommitOutcome>,
    /// Budget alerts that it raised.
    pub(crate) alerts: u64,
    /// It expected new ids, and met one that is taken.
    pub(crate) met_taken_ids: bool,
    /// How far the tree has grown, where it has.
    pub(crate) tip: Option<Tip>,
}

impl Committed {
    /// Rows that an earlier commit stored.
    fn known(rows: usize) -> Self {
        Self { outcomes: vec![CommitOutcome::Known; rows], alerts: 0, met_taken_ids: false, tip: None }
    }
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// An earlier commit stored it.
    Known,
    Recorded,
    Duplicate,
    Rejected(Reason),
}

impl CommitOutcome {
    fn of(outcome: &RowOutcome<'_>) -> Self {
        match outcome {
            RowOutcome::Recorded { .. } => CommitOutcome::Recorded,
            RowOutcome::Duplicate { .. } => CommitOutcome::Duplicate,
            RowOutcome::Rejected(rejection) => CommitOutcome::Rejected(rejection.reason()),
        }
    }
}

pub(crate) fn tally(outcomes: impl IntoIterator<Item = CommitOutcome>) -> Tally {
    let mut tally = Tally::default();
    for outcome in outcomes {
        match outcome {
            CommitOutcome::Known => tally.known += 1,
            CommitOutcome::Recorded => tally.recorded += 1,
            CommitOutcome::Duplicate => tally.duplicates += 1,
            CommitOutcome::Rejected(reason) => *tally.rejected.entry(reason).or_default() += 1,
        }
    }
    tally
}

/// Commits rows of one incarnation of a stream, all of one order.
pub(crate) async fn commit(
    connection: &mut PgConnection,
    rows: &[&Judged],
    assumptions: Assumptions,
    budget: (&Budget, News),
) -> Result<Committed, CommitFailure> {
    let Some(first) = rows.first() else { return Ok(Committed::known(0)) };
    debug_assert!(
        rows.iter().all(|row| row.message.incarnation == first.message.incarnation),
        "one commit has one incarnation"
    );
    match first.order {
        Order::Next { claim, .. } => {
            let epoch = Epoch { number: claim.epoch, regressions: claim.regressions };
            commit_next(connection, epoch, rows, assumptions, budget).await
        }
        Order::Late => commit_late(connection, rows, assumptions.references, budget).await,
    }
}

/// The moves of rows that follow on the positions of their lanes. Rows out of order move nothing.
fn moves(rows: &[&Judged]) -> Vec<Move> {
    let mut moves: BTreeMap<Lane, Move> = BTreeMap::new();
    for row in rows {
        let Order::Next { claim, after } = row.order else { continue };
        let to = row.message.sequence;
        let lane = moves.entry(claim.lane).or_insert(Move { claim, from: after, to: after });
        assert_eq!((lane.claim, lane.to), (claim, after), "the rows of a lane follow on each other");
        lane.to = to;
    }
    moves.into_values().collect()
}

/// Rows that follow on the positions of their lanes. Nothing is looked up: a position that is another one refuses the append.
async fn commit_next(
    connection: &mut PgConnection,
    epoch: Epoch,
    rows: &[&Judged],
    Assumptions { references, ids, tip }: Assumptions,
    (budget, news): (&Budget, News),
) -> Result<Committed, CommitFailure> {
    let moves = moves(rows);
    let mut committed_at_us = begin(connection).await?;
    let mut met_taken_ids = false;
    let row_outcomes = match project(connection, rows, references, ids).await {
        Err(failure) if ids == Ids::New && failure.is_of_a_taken_id() => {
            met_taken_ids = true;
            rollback(connection).await?;
            committed_at_us = begin(connection).await?;
            project(connection, rows, references, Ids::MayBeTaken).await?
        }
        row_outcomes => row_outcomes?,
    };
    let changes = changes(rows, &row_outcomes);
    let head = match tip {
        // Where it is another one, the commit is made again, and its first rows leave holes in their table's numbers. Of the small
        // tables people read these numbers.
        Some(tip) if rows.iter().all(|row| has_event_at_most(row)) => tip.assumed(committed_at_us),
        _ => custody::lock_head(connection).await?,
    };
    let alerts = budget::settle(connection, &changes, budget, news).await?;
    match custody::append(connection, head, epoch, rows, &row_outcomes, Follows::Positions(&moves)).await? {
        Appended::Done(tip) => {
            finish(connection).await?;
            let outcomes = row_outcomes.iter().map(CommitOutcome::of).collect();
            Ok(Committed { outcomes, alerts, met_taken_ids, tip: Some(tip) })
        }
        Appended::HeadMoved => {
            rollback(connection).await?;
            let assumptions = Assumptions { references, ids, tip: None };
            Box::pin(commit_next(connection, epoch, rows, assumptions, (budget, news))).await
        }
        Appended::Refused => {
            rollback(connection).await?;
            settle_refused(connection, &moves).await?;
            Ok(Committed::known(rows.len()))
        }
        Appended::Overlaps => {
            rollback(connection).await?;
            commit_overlapping(connection, epoch, rows, &moves, references, (budget, news)).await
        }
    }
}

/// Whether a row is an audit event, or makes no row at all.
pub(crate) fn has_event_at_most(row: &Judged) -> bool {
    match &row.verdict {
        Verdict::Record(record) => record.table() == Table::AuditEvents,
        Verdict::Reject { .. } => true,
    }
}

/// Begins a transaction, and gives its time, in microseconds since 1970. Its statements have the same plan for any values: to weigh
/// the values of each commit costs more than the commit.
async fn begin(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let begun = sqlx::raw_sql(
        "begin isolation level read committed;
        set local plan_cache_mode = force_generic_plan;
        select (extract(epoch from current_timestamp) * 1000000)::bigint",
    );
    begun.fetch_one(connection).await?.try_get(0)
}

async fn rollback(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("rollback").execute(connection).await.map(drop)
}

/// Rows that follow on the position, and of which some are stored: by a replay, or by a database whose position was set back. What is
/// stored is found by epoch and sequence; the rest is stored out of order, and the position moves over all of them.
async fn commit_overlapping(
    connection: &mut PgConnection,
    epoch: Epoch,
    rows: &[&Judged],
    moves: &[Move],
    references: References,
    (budget, news): (&Budget, News),
) -> Result<Committed, CommitFailure> {
    begin(connection).await?;
    let positions = match not_stored_yet(connection, &rows[0].message.incarnation, rows).await? {
        CustodyMatch::Fresh(_, fresh) => fresh,
        CustodyMatch::NoEpoch => return Err(broken_epoch()),
        CustodyMatch::SequenceReused(_, sequence) => return Err(went_back(sequence)),
    };
    let fresh: Vec<&Judged> = positions.iter().map(|&position| rows[position]).collect();
    let row_outcomes = project(connection, &fresh, references, Ids::MayBeTaken).await?;
    let head = custody::lock_head(connection).await?;
    let alerts = budget::settle(connection, &changes(&fresh, &row_outcomes), budget, news).await?;
    if !positions::move_positions(connection, moves).await? {
        rollback(connection).await?;
        settle_refused(connection, moves).await?;
        return Ok(Committed::known(rows.len()));
    }
    match custody::append(connection, head, epoch, &fresh, &row_outcomes, Follows::Positions(&[])).await? {
        Appended::Done(_) => {}
        Appended::HeadMoved | Appended::Refused | Appended::Overlaps => return Err(broken_epoch()),
    }
    finish(connection).await?;
    let mut committed = Committed { alerts, ..Committed::known(rows.len()) };
    for (position, outcome) in positions.into_iter().zip(&row_outcomes) {
        committed.outcomes[position] = CommitOutcome::of(outcome);
    }
    Ok(committed)
}

/// Another commit came between a look and its append: the same again finds what it stored.
fn broken_epoch() -> CommitFailure {
    let what = "another commit stored some of the same messages, or opened an epoch, meanwhile".to_owned();
    CommitFailure::of_custody(DatabaseError::of_the_world(what))
}

fn went_back(sequence: i64) -> CommitFailure {
    let what = format!(
        "the stream holds another message at sequence {sequence} than the ledger has of it: it went back to an older copy"
    );
    CommitFailure::of_custody(DatabaseError::of_a_position(what))
}

/// The positions are not those that the rows follow on. They may have been moved by this very commit, whose answer was lost: then
/// the rows are stored, and this waits until they are durable.
async fn settle_refused(connection: &mut PgConnection, moves: &[Move]) -> Result<(), CommitFailure> {
    for Move { claim, from, to } in moves {
        let found: Option<(i64, i64, Option<String>)> =
            sqlx::query_as("select sequence, fence, owner from ledger.position where epoch = $1 and lane = $2")
                .bind(claim.epoch)
                .bind(claim.lane.prefix())
                .fetch_optional(&mut *connection)
                .await?;
        let lane = claim.lane;
        let what = match found {
            Some((sequence, fence, _)) if fence == claim.fence && sequence == *to => continue,
            Some((sequence, fence, _)) if fence == claim.fence && sequence == *from => {
                let what = "ledger.tree_head or ledger.epoch is not what the commit has locked: it was changed by hand";
                return Err(CommitFailure::of_custody(DatabaseError::of_the_operator(what.to_owned())));
            }
            Some((_, fence, owner)) if fence > claim.fence => {
                let owner = owner.map(|owner| format!(" ({owner})")).unwrap_or_default();
                format!("another claim{owner} has voided this one on the lane {lane}")
            }
            Some((sequence, ..)) => format!(
                "the position of {lane} is {sequence}, and this instance has read on from {from}: the database went back"
            ),
            None => format!("the database has no position of {lane} in this epoch: it went back"),
        };
        return Err(CommitFailure::of_custody(DatabaseError::of_a_position(what)));
    }
    wait_for_standby(connection).await
}

/// Stored rows may be on this server's disk alone, their commit having been cut short while it waited for a synchronous standby.
/// A record in the log makes this commit wait for it.
async fn wait_for_standby(connection: &mut PgConnection) -> Result<(), CommitFailure> {
    sqlx::raw_sql("begin").execute(&mut *connection).await?;
    sqlx::query("select pg_logical_emit_message(true, 'ledgerd', '')").execute(&mut *connection).await?;
    finish(connection).await
}

/// A timeout would end the wait for a synchronous standby and let the commit pass as if it had been there.
async fn finish(connection: &mut PgConnection) -> Result<(), CommitFailure> {
    sqlx::raw_sql("set local statement_timeout = 0; commit").execute(&mut *connection).await?;
    Ok(())
}

/// Rows that were read out of order: those that are stored are found by epoch and sequence. No two of them share a sequence.
async fn commit_late(
    connection: &mut PgConnection,
    rows: &[&Judged],
    references: References,
    (budget, news): (&Budget, News),
) -> Result<Committed, CommitFailure> {
    let incarnation = &rows[0].message.incarnation;
    loop {
        begin(connection).await?;
        let (epoch, positions) = match not_stored_yet(connection, incarnation, rows).await? {
            CustodyMatch::Fresh(epoch, fresh) => (epoch, fresh),
            CustodyMatch::NoEpoch => {
                rollback(connection).await?;
                epochs::of(connection, incarnation).await?;
                continue;
            }
            // What the program records of itself is in a stream that exists on no server, and never went back.
            CustodyMatch::SequenceReused(epoch, _) if incarnation.created_ns == 0 => {
                rollback(connection).await?;
                epochs::open_after(connection, incarnation, epoch.number, 1).await?;
                continue;
            }
            CustodyMatch::SequenceReused(_, sequence) => return Err(went_back(sequence)),
        };
        let mut committed = Committed::known(rows.len());
        if positions.is_empty() {
            rollback(connection).await?;
            wait_for_standby(connection).await?;
            return Ok(committed);
        }
        let fresh: Vec<&Judged> = positions.iter().map(|&position| rows[position]).collect();
        let row_outcomes = project(connection, &fresh, references, Ids::MayBeTaken).await?;
        let head = custody::lock_head(connection).await?;
        committed.alerts = budget::settle(connection, &changes(&fresh, &row_outcomes), budget, news).await?;
        let appended = custody::append(connection, head, epoch, &fresh, &row_outcomes, Follows::NewestEpoch).await?;
        if !matches!(appended, Appended::Done(_)) {
            // A newer epoch was opened, or another commit stored some of them, since we looked.
            rollback(connection).await?;
            continue;
        }
        for (position, outcome) in positions.into_iter().zip(&row_outcomes) {
            committed.outcomes[position] = CommitOutcome::of(outcome);
        }
        finish(connection).await?;
        return Ok(committed);
    }
}

enum CustodyMatch {
    /// The newest epoch, and the positions of the rows that are not stored yet.
    Fresh(Epoch, Vec<usize>),
    /// The incarnation has no epoch yet.
    NoEpoch,
    /// This sequence of the newest epoch belongs to another message.
    SequenceReused(Epoch, i64),
}

/// An epoch, and one of the messages that it has stored: sequence, time and digest.
type StoredRow = (i32, i32, Option<i64>, Option<i64>, Option<Vec<u8>>);

/// Leaves out what earlier commits stored.
async fn not_stored_yet(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
    rows: &[&Judged],
) -> Result<CustodyMatch, sqlx::Error> {
    // Epochs come out even if they have stored none of these. `offset 0` keeps the planner from turning the search around: a plan
    // that was made while the table was empty would read all of it for ever after.
    let stored: Vec<StoredRow> = sqlx::query_as(
        "select epoch.epoch, regressions, stored.sequence, stored.server_time_ns, stored.payload_sha256
        from ledger.epoch
        left join lateral (
            select entry.sequence, entry.server_time_ns, entry.payload_sha256
            from ledger.batches_holding(epoch.epoch, $3) as place (first_leaf)
            cross join lateral (select * from ledger.entry where entry.first_leaf = place.first_leaf offset 0) as entry
            join unnest($3::bigint[]) as wanted (sequence) on wanted.sequence = entry.sequence
        ) as stored on true
        where stream = $1 and stream_created_ns = $2",
    )
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .bind(rows.iter().map(|row| row.message.sequence).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let newest = stored.iter().map(|(number, regressions, ..)| Epoch { number: *number, regressions: *regressions });
    let Some(newest) = newest.max_by_key(|epoch| epoch.regressions) else { return Ok(CustodyMatch::NoEpoch) };
    let mut by_sequence: HashMap<i64, Vec<(i32, i64, Vec<u8>)>> = HashMap::new();
    for message in stored {
        if let (epoch, _, Some(sequence), Some(time), Some(digest)) = message {
            by_sequence.entry(sequence).or_default().push((epoch, time, digest));
        }
    }
    let mut fresh = Vec::with_capacity(rows.len());
    for (position, row) in rows.iter().enumerate() {
        let Some(candidates) = by_sequence.get(&row.message.sequence) else {
            fresh.push(position);
            continue;
        };
        let digest = payload_sha256(&row.message);
        let is_same =
            |(_, time, stored): &(i32, i64, Vec<u8>)| *time == row.message.server_time_ns && stored[..] == digest;
        if candidates.iter().any(is_same) {
            continue;
        }
        if candidates.iter().any(|(epoch, ..)| *epoch == newest.number) {
            return Ok(CustodyMatch::SequenceReused(newest, row.message.sequence));
        }
        fresh.push(position);
    }
    Ok(CustodyMatch::Fresh(newest, fresh))
}

pub(crate) fn records_of<'a>(rows: &[&'a Judged]) -> Vec<&'a Record> {
    rows.iter()
        .filter_map(|row| match &row.verdict {
            Verdict::Record(record) => Some(record),
            Verdict::Reject { .. } => None,
        })
        .collect()
}

/// Writes the projections, and so learns what becomes of each message.
pub(crate) async fn project<'a>(
    connection: &mut PgConnection,
    rows: &[&'a Judged],
    references: References,
    ids: Ids,
) -> Result<Vec<RowOutcome<'a>>, CommitFailure> {
    let placed = projection::place(connection, &records_of(rows), references, ids).await?;
    let mut placed = placed.into_iter();
    rows.iter()
        .map(|row| match &row.verdict {
            Verdict::Reject { rejection, .. } => Ok(RowOutcome::Rejected(std::borrow::Cow::Borrowed(rejection))),
            Verdict::Record(record) => match placed.next().expect("one place for each record") {
                Some(outcome) => Ok(outcome),
                None => Err(CommitFailure::of_custody(DatabaseError::of_the_world(format!(
                    "the row of {} came and went during the commit",
                    record.id()
                )))),
            },
        })
        .collect()
}

fn changes(rows: &[&Judged], row_outcomes: &[RowOutcome<'_>]) -> Changes {
    let mut changes = Changes::default();
    for (row, outcome) in rows.iter().zip(row_outcomes) {
        if let (Verdict::Record(record), RowOutcome::Recorded { row_id, .. }) = (&row.verdict, outcome) {
            changes.note(record, *row_id);
        }
    }
    changes
}
