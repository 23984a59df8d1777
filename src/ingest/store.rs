//! The daemon's store: commits batches, and returns the outcome or the remedy for the error.
//!
//! Batches that wait for a connection at the same time are committed together (`group_commit`). The reason: a commit
//! waits for the disk and for the lock on the tree head, however few rows it has. If a group commit fails, each batch
//! is committed by itself, and gets its own remedy.

use crate::budget::days::News;
use crate::budget::status::Budget;
use crate::ingest::commit::{Assumptions, CommitOutcome, commit, records_of, tally};
use crate::ingest::custody::Tip;
use crate::ingest::group_commit::{CommitQueue, GroupAnswer, QueuedBatch};
use crate::ingest::lifecycle::{Judged, References, Remedy, Store, StoreError, Tally};
use crate::ingest::projection::{self, Ids};
use crate::postgres::connections::{Connections, Lease};
use crate::postgres::failure::{self, CommitFailure};
use crate::postgres::remedy::{Cure, DatabaseError};
use crate::record::table::Table;
use parking_lot::Mutex;
use sqlx::PgConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// From here on a batch is worth a commit of its own.
const SMALL_BATCH_ROWS: usize = 100;
/// So long a small batch waits for another to be committed; a commit that takes longer waits for something itself.
const TURN_WAIT_MAX: Duration = Duration::from_millis(50);
/// After an id that was taken, so many commits look each id up.
const WARY_COMMITS: u32 = 100;

#[derive(Debug)]
pub struct Ledger {
    writers: Connections,
    /// Batches that wait for one of them.
    queue: CommitQueue,
    /// Taken by a small batch that is being committed.
    turn: Semaphore,
    /// Processes of the server that did not answer a commit in time.
    silent_backends: Mutex<Vec<i32>>,
    /// Since when commits have been tried and none was made.
    failing_since: Mutex<Option<Instant>>,
    /// Commits that still expect taken ids, because one was met.
    wary_commits: AtomicU32,
    /// The tree's head as this instance left it. The next small commit, which takes its turn, is likely to find it so.
    tip: Mutex<Option<Tip>>,
    budget: Budget,
    news: News,
    /// Rung when dead letters were committed.
    pub dead_letters_waiting: Arc<Notify>,
    /// Rung when budget alerts were committed.
    pub alerts_waiting: Arc<Notify>,
}

impl Ledger {
    /// Writes through these connections, one for each commit that may run at a time.
    pub fn new(writers: Connections, budget: Budget) -> Self {
        Self {
            writers,
            queue: CommitQueue::default(),
            turn: Semaphore::new(1),
            silent_backends: Mutex::default(),
            failing_since: Mutex::default(),
            wary_commits: AtomicU32::new(0),
            tip: Mutex::default(),
            budget,
            news: News::EveryDay,
            dead_letters_waiting: Arc::new(Notify::new()),
            alerts_waiting: Arc::new(Notify::new()),
        }
    }

    /// For what is old already: a status of a day that is over raises no alert.
    #[must_use]
    pub fn for_a_replay(self) -> Self {
        Self { news: News::DaysThatAreNotOver, ..self }
    }

    /// The connections, for a reload of their credentials.
    pub fn connections(&self) -> &Connections {
        &self.writers
    }

    /// How long commits have been tried and none was made: another instance may fare better.
    pub fn failing_for(&self) -> Duration {
        self.failing_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Store for Ledger {
    async fn commit(&self, rows: &Arc<Vec<Judged>>, references: References) -> Result<Tally, StoreError> {
        match self.commit_in_group(rows, references).await {
            GroupAnswer::Settled(result) => result,
            GroupAnswer::Alone => {
                let lease =
                    self.writers.lease().await.map_err(|error| CommitFailure::of_custody(error).into_store_error())?;
                let rows: Vec<&Judged> = rows.iter().collect();
                match self.commit_rows(lease, &rows, references).await {
                    Ok(outcomes) => Ok(tally(outcomes)),
                    Err(undone) => Err(self.remedy_for(undone, &rows).await),
                }
            }
        }
    }
}

/// A commit that failed, or did not answer in time.
enum GroupFailure {
    Failed(CommitFailure),
    Silent(DatabaseError),
}

impl Ledger {
    /// Waits until another caller has committed these rows with its own, or for a connection; with that it commits them, and what
    /// may go with them.
    async fn commit_in_group(&self, rows: &Arc<Vec<Judged>>, references: References) -> GroupAnswer {
        let mut place = self.queue.join(rows, references);
        let lease = tokio::select! {
            biased;
            answer = place.answer() => return answer,
            lease = self.lease_for(rows.len()) => lease,
        };
        match lease {
            Ok((lease, _turn)) => {
                let group = place.take_group();
                if group.is_empty() {
                    lease.keep();
                } else {
                    self.commit_group(lease, group).await;
                }
            }
            Err(error) if place.withdraw() => {
                return GroupAnswer::Settled(Err(CommitFailure::of_custody(error).into_store_error()));
            }
            // Somebody else has taken the rows along.
            Err(_) => {}
        }
        place.answer().await
    }

    /// A connection. Small batches take turns for a while: two commits of a row each cost twice what one commit of both does, and
    /// each waits for the other's lock.
    async fn lease_for(&self, rows: usize) -> Result<(Lease<'_>, Option<SemaphorePermit<'_>>), DatabaseError> {
        let turn = if rows < SMALL_BATCH_ROWS {
            let waiting = timeout(TURN_WAIT_MAX, self.turn.acquire()).await;
            waiting.ok().map(|permit| permit.expect("the semaphore is never closed"))
        } else {
            None
        };
        self.writers.lease().await.map(|lease| (lease, turn))
    }

    async fn commit_group(&self, lease: Lease<'_>, group: Vec<QueuedBatch>) {
        let rows: Vec<&Judged> = group.iter().flat_map(|one| one.rows.iter()).collect();
        match self.commit_rows(lease, &rows, group[0].references).await {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for one in group {
                    let tally = tally(outcomes.by_ref().take(one.rows.len()));
                    one.answer(GroupAnswer::Settled(Ok(tally)));
                }
            }
            Err(undone) if group.len() == 1 => {
                let error = self.remedy_for(undone, &rows).await;
                for one in group {
                    one.answer(GroupAnswer::Settled(Err(error.clone())));
                }
            }
            Err(_) => group.into_iter().for_each(|one| one.answer(GroupAnswer::Alone)),
        }
    }

    /// One transaction, bounded in time.
    async fn commit_rows(
        &self,
        mut lease: Lease<'_>,
        rows: &[&Judged],
        references: References,
    ) -> Result<Vec<CommitOutcome>, GroupFailure> {
        let limit = self.writers.limits().transaction();
        self.failing_since.lock().get_or_insert_with(Instant::now);
        let committing = async {
            self.end_silent_backends(&mut lease).await?;
            let tip = if rows.len() < SMALL_BATCH_ROWS { self.tip.lock().clone() } else { None };
            let assumptions = Assumptions { references, ids: self.expected_ids(), tip };
            commit(&mut lease, rows, assumptions, (&self.budget, self.news)).await
        };
        match timeout(limit, committing).await {
            Ok(Ok(committed)) => {
                lease.keep();
                *self.failing_since.lock() = None;
                if committed.tip.is_some() {
                    *self.tip.lock() = committed.tip;
                }
                if committed.met_taken_ids {
                    self.wary_commits.store(WARY_COMMITS, Ordering::Relaxed);
                }
                if committed.outcomes.iter().any(|outcome| matches!(outcome, CommitOutcome::Rejected(_))) {
                    self.dead_letters_waiting.notify_one();
                }
                if committed.alerts > 0 {
                    self.alerts_waiting.notify_one();
                }
                Ok(committed.outcomes)
            }
            Ok(Err(failure)) => {
                if matches!(failure.cure(), Cure::Record | Cure::References | Cure::Position) {
                    // The way is free; the rows are at fault.
                    *self.failing_since.lock() = None;
                }
                Err(GroupFailure::Failed(failure))
            }
            Err(_) => {
                self.silent_backends.lock().push(lease.backend_pid());
                Err(GroupFailure::Silent(DatabaseError::silent("committing", limit)))
            }
        }
    }

    /// Ids that are taken come together, as when a publisher sends a backlog again.
    fn expected_ids(&self) -> Ids {
        let less = |left: u32| left.checked_sub(1);
        match self.wary_commits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ids::MayBeTaken,
            Err(_) => Ids::New,
        }
    }

    async fn remedy_for(&self, undone: GroupFailure, rows: &[&Judged]) -> StoreError {
        match undone {
            GroupFailure::Failed(failure) => self.find_remedy(failure, rows).await,
            GroupFailure::Silent(error) => StoreError { remedy: Remedy::Halve, what: error.to_string() },
        }
    }

    /// A backend that waits for a synchronous standby does not notice that its client is gone, and would keep its place among
    /// the server's connections. What it committed is found by the next look, and waited for again.
    async fn end_silent_backends(&self, connection: &mut PgConnection) -> Result<(), CommitFailure> {
        let pids = self.silent_backends.lock().clone();
        if pids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "select pg_terminate_backend(pid)
            from pg_stat_activity
            where pid = any($1) and application_name = 'ledgerd' and usename = current_user",
        )
        .bind(&pids)
        .execute(connection)
        .await?;
        self.silent_backends.lock().retain(|pid| !pids.contains(pid));
        Ok(())
    }

    async fn find_remedy(&self, failure: CommitFailure, rows: &[&Judged]) -> StoreError {
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
            Ok(Culprit::Table(table, error)) => StoreError {
                remedy: Remedy::Operator,
                what: format!(
                    "{} refuses records that are good: {error}; look at its columns, constraints and triggers",
                    table.name()
                ),
            },
            Ok(Culprit::Nobody) => StoreError { remedy: Remedy::Retry, what: failure.error.to_string() },
            Err(error) => CommitFailure::of_custody(error).into_store_error(),
        }
    }

    /// Tries a good record and then the refused ones in one transaction, which is never committed. From the first insert on,
    /// nobody can change the table, so both meet the same columns and constraints.
    async fn find_culprit(&self, rows: &[&Judged]) -> Result<Culprit, DatabaseError> {
        let mut lease = self.writers.lease().await?;
        sqlx::raw_sql("begin isolation level read committed").execute(&mut *lease).await.map_err(DatabaseError::new)?;
        let records = records_of(rows);
        for &table in Table::ALL {
            if !records.iter().any(|record| record.table() == table) {
                continue;
            }
            if let Err(error) = projection::insert_a_good_record(&mut lease, table).await {
                let error = DatabaseError::new(error);
                return if error.cure == Cure::Record { Ok(Culprit::Table(table, error)) } else { Err(error) };
            }
        }
        match projection::place(&mut lease, &records, References::Settled, Ids::MayBeTaken).await {
            Ok(_) => Ok(Culprit::Nobody),
            Err(failure) if failure.cure() == Cure::Record => Ok(Culprit::Record(failure.error)),
            Err(failure) => Err(failure.error),
        }
    }
}

/// Whose fault a refusal was.
enum Culprit {
    /// The table takes good records, and refuses these.
    Record(DatabaseError),
    /// The table refuses what it must take.
    Table(Table, DatabaseError),
    /// It takes all of them now.
    Nobody,
}
