//! What does a commit write? One transaction: the projections, then the lock on the tree's head, then the custody entries
//! with their leaf indexes, the dead letters, the complete subtrees and the new head.
//!
//! The head is locked as late as possible: from there to the commit, nobody else commits. A message that is stored already
//! is recognised by epoch and sequence before anything is written, so a commit whose answer was lost is simply tried again.

use super::budget::{self, Changes, News};
use super::connections::Connections;
use super::custody::{self, Appended, Fate};
use super::epochs::{self, Epoch};
use super::failure::{self, Failure};
use super::projection::{self, Placed};
use super::remedy::{Cure, DatabaseError};
use crate::domain::budget::Budget;
use crate::domain::leaf::payload_sha256;
use crate::domain::message::Incarnation;
use crate::domain::record::Record;
use crate::domain::rules::Verdict;
use crate::domain::subject::Table;
use crate::lifecycle::{Judged, References, Remedy, Store, StoreError, Tally};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::timeout;

/// The ledger in PostgreSQL.
#[derive(Debug)]
pub struct Ledger {
    writers: Connections,
    /// Processes of the server that did not answer a commit in time.
    silent_backends: Mutex<Vec<i32>>,
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
            silent_backends: Mutex::default(),
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
}

impl Store for Ledger {
    async fn commit(&self, rows: &[Judged], references: References) -> Result<Tally, StoreError> {
        let mut lease = self.writers.lease().await.map_err(|error| Failure::of_custody(error).into_store_error())?;
        let limit = self.writers.limits().transaction();
        let committing = async {
            self.end_silent_backends(&mut lease).await?;
            commit(&mut lease, rows, references, (&self.budget, self.news)).await
        };
        match timeout(limit, committing).await {
            Ok(Ok(Committed { tally, alerts })) => {
                lease.keep();
                if !tally.rejected.is_empty() {
                    self.dead_letters_waiting.notify_one();
                }
                if alerts > 0 {
                    self.alerts_waiting.notify_one();
                }
                Ok(tally)
            }
            Ok(Err(failure)) => {
                drop(lease);
                Err(self.find_remedy(failure, rows).await)
            }
            Err(_) => {
                self.lock_silent_backends().push(lease.backend_pid());
                let what = DatabaseError::silent("committing", limit).to_string();
                Err(StoreError { remedy: Remedy::Halve, what })
            }
        }
    }
}

impl Ledger {
    /// A backend that waits for a synchronous standby does not notice that its client is gone, and would keep its place among
    /// the server's connections. What it committed is found by the next look, and waited for again.
    async fn end_silent_backends(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let pids = self.lock_silent_backends().clone();
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
        self.lock_silent_backends().retain(|pid| !pids.contains(pid));
        Ok(())
    }

    fn lock_silent_backends(&self) -> MutexGuard<'_, Vec<i32>> {
        self.silent_backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
            Ok(Culprit::Table(table, error)) => StoreError {
                remedy: Remedy::Operator,
                what: format!(
                    "{} refuses records that are good: {error}; look at its columns, constraints and triggers",
                    table.name()
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
        let all: Vec<&Judged> = rows.iter().collect();
        let records = records_of(&all);
        for table in Table::ALL {
            if !records.iter().any(|record| record.table() == table) {
                continue;
            }
            if let Err(error) = projection::insert_a_good_record(&mut lease, table).await {
                let error = DatabaseError::new(error);
                return if error.cure == Cure::Record { Ok(Culprit::Table(table, error)) } else { Err(error) };
            }
        }
        match projection::place(&mut lease, &records, References::Settled).await {
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

/// What a commit did.
#[derive(Default)]
struct Committed {
    tally: Tally,
    /// Budget alerts that it raised.
    alerts: u64,
}

async fn commit(
    connection: &mut PgConnection,
    rows: &[Judged],
    references: References,
    (budget, news): (&Budget, News),
) -> Result<Committed, Failure> {
    let Some(first) = rows.first() else { return Ok(Committed::default()) };
    let incarnation = &first.message.incarnation;
    debug_assert!(rows.iter().all(|row| row.message.incarnation == *incarnation), "one take has one incarnation");
    loop {
        sqlx::raw_sql("begin isolation level read committed").execute(&mut *connection).await?;
        let (epoch, fresh) = match not_stored_yet(connection, incarnation, rows).await? {
            Custody::Fresh(epoch, fresh) => (epoch, fresh),
            Custody::NoEpoch => {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                epochs::of(connection, incarnation).await?;
                continue;
            }
            Custody::SequenceReused(epoch) => {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                epochs::open_after(connection, incarnation, epoch).await?;
                continue;
            }
        };
        let mut alerts = 0;
        let mut tally = Tally { known: rows.len() - fresh.len(), ..Tally::default() };
        if fresh.is_empty() {
            // These rows may be on this server's disk alone, their commit having been cut short while it waited for a
            // synchronous standby. A record in the log makes this commit wait for it.
            sqlx::query("select pg_logical_emit_message(true, 'ledgerd', '')").execute(&mut *connection).await?;
        } else {
            let fates = project(connection, &fresh, references).await?;
            let head = custody::lock_head(connection).await?;
            alerts = budget::settle(connection, &changes(&fresh, &fates), budget, news).await?;
            if let Appended::EpochIsOver = custody::append(connection, head, epoch, &fresh, &fates).await? {
                sqlx::raw_sql("rollback").execute(&mut *connection).await?;
                continue;
            }
            count(&fates, &mut tally);
        }
        // A timeout would end the wait for a synchronous standby and let the commit pass as if it had been there.
        sqlx::raw_sql("set local statement_timeout = 0; commit").execute(&mut *connection).await?;
        return Ok(Committed { tally, alerts });
    }
}

enum Custody<'a> {
    /// What the newest epoch has not stored yet.
    Fresh(Epoch, Vec<&'a Judged>),
    /// The incarnation has no epoch yet.
    NoEpoch,
    /// A sequence of the newest epoch belongs to another message.
    SequenceReused(Epoch),
}

/// An epoch, and one of the messages that it has stored: sequence, time and digest.
type StoredMessage = (i32, i32, Option<i64>, Option<i64>, Option<Vec<u8>>);

/// Leaves out what earlier commits stored.
async fn not_stored_yet<'a>(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
    rows: &'a [Judged],
) -> Result<Custody<'a>, sqlx::Error> {
    let sequences: Vec<i64> = rows.iter().map(|row| row.message.sequence).collect();
    // Epochs come out even if they have stored none of these.
    let stored: Vec<StoredMessage> = sqlx::query_as(
        "select epoch.epoch, regressions, sequence, server_time_ns, payload_sha256
        from ledger.epoch
        left join ledger.entry on entry.epoch = epoch.epoch and entry.sequence = any($3)
        where stream = $1 and stream_created_ns = $2",
    )
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .bind(&sequences)
    .fetch_all(connection)
    .await?;
    let newest = stored.iter().map(|(number, regressions, ..)| Epoch { number: *number, regressions: *regressions });
    let Some(newest) = newest.max_by_key(|epoch| epoch.regressions) else { return Ok(Custody::NoEpoch) };
    let mut by_sequence: HashMap<i64, Vec<(i32, i64, Vec<u8>)>> = HashMap::new();
    for message in stored {
        if let (epoch, _, Some(sequence), Some(time), Some(digest)) = message {
            by_sequence.entry(sequence).or_default().push((epoch, time, digest));
        }
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
        if candidates.iter().any(|(epoch, ..)| *epoch == newest.number) {
            return Ok(Custody::SequenceReused(newest));
        }
        fresh.push(row);
    }
    Ok(Custody::Fresh(newest, fresh))
}

fn records_of<'a>(rows: &[&'a Judged]) -> Vec<&'a Record> {
    rows.iter()
        .filter_map(|row| match &row.verdict {
            Verdict::Record(record) => Some(record),
            Verdict::Reject { .. } => None,
        })
        .collect()
}

/// Writes the projections, and so learns each message's fate.
pub(super) async fn project<'a>(
    connection: &mut PgConnection,
    rows: &[&'a Judged],
    references: References,
) -> Result<Vec<Fate<'a>>, Failure> {
    let placed = projection::place(connection, &records_of(rows), references).await?;
    let mut placed = placed.into_iter();
    rows.iter()
        .map(|row| match &row.verdict {
            Verdict::Reject { rejection, .. } => Ok(Fate::Rejected(std::borrow::Cow::Borrowed(rejection))),
            Verdict::Record(record) => match placed.next().expect("one place for each record") {
                Some(Placed::New(row_id)) => Ok(Fate::Recorded { row_id }),
                Some(Placed::Same) => Ok(Fate::Duplicate),
                Some(Placed::Refused(rejection)) => Ok(Fate::Rejected(std::borrow::Cow::Owned(rejection))),
                None => Err(Failure::of_custody(DatabaseError::of_the_world(format!(
                    "the row of {} came and went during the commit",
                    record.id()
                )))),
            },
        })
        .collect()
}

fn changes(rows: &[&Judged], fates: &[Fate<'_>]) -> Changes {
    let mut changes = Changes::default();
    for (row, fate) in rows.iter().zip(fates) {
        if let (Verdict::Record(record), Fate::Recorded { row_id }) = (&row.verdict, fate) {
            changes.note(record, *row_id);
        }
    }
    changes
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
