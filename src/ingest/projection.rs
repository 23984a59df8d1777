//! Projects records to the rows of their tables. Each table has its statements in a file of its own; this file has the
//! shared code.

mod audit_events;
mod decision_trails;
mod economic_metrics;
mod token_usage;
mod tool_usage;

use crate::ingest::custody::RowOutcome;
use crate::ingest::lifecycle::References;
use crate::postgres::failure::CommitFailure;
use crate::record::kinds::Record;
use crate::record::reject::{Reason, Rejection};
use crate::record::table::Table;
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::HashMap;

/// What a commit expects of the ids of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// None is stored yet, as a rule. One that is refuses the insert, and the commit is tried again with [`Ids::MayBeTaken`].
    New,
    /// Some may be stored: each is looked up while it is inserted, which costs a tenth more.
    MayBeTaken,
}

/// Writes the records, and says for each, in their order, what became of it. `None` for one whose id another transaction
/// took away again in the meantime: try again.
pub(crate) async fn place(
    connection: &mut PgConnection,
    records: &[&Record],
    references: References,
    ids: Ids,
) -> Result<Vec<Option<RowOutcome<'static>>>, CommitFailure> {
    let mut placed: Vec<Option<RowOutcome<'static>>> = vec![None; records.len()];
    // Always in the same order of tables, so that two transactions never wait for each other.
    for &table in Table::ALL {
        let positions: Vec<usize> = (0..records.len()).filter(|&index| records[index].table() == table).collect();
        if positions.is_empty() {
            continue;
        }
        let here: Vec<&Record> = positions.iter().map(|&index| records[index]).collect();
        for (position, verdict) in positions.into_iter().zip(place_in(connection, table, &here, references, ids).await?)
        {
            placed[position] = verdict;
        }
    }
    Ok(placed)
}

async fn place_in(
    connection: &mut PgConnection,
    table: Table,
    records: &[&Record],
    references: References,
    ids: Ids,
) -> Result<Vec<Option<RowOutcome<'static>>>, CommitFailure> {
    /// The records of one kind.
    macro_rules! of_kind {
        ($kind:ident) => {
            records
                .iter()
                .filter_map(|record| if let Record::$kind(it) = record { Some(it) } else { None })
                .collect::<Vec<_>>()
        };
    }
    match table {
        Table::AuditEvents => audit_events::place(connection, &of_kind!(Event), ids).await,
        Table::TokenLedger => {
            return token_usage::place(connection, &of_kind!(TokenUsage), references).await;
        }
        Table::DecisionTrails => place_keyed::<decision_trails::DecisionTrails>(connection, &of_kind!(Trail)).await,
        Table::EconomicMetrics => economic_metrics::place(connection, &of_kind!(Metric)).await,
        Table::ToolUsageLedger => tool_usage::place(connection, &of_kind!(ToolUsage)).await,
    }
    .map_err(CommitFailure::of_projection)
}

/// Inserts a good record into a transaction that is never committed. A table that refuses it is at fault, and no record is.
/// The table of token usage is the daemon's own, and finds fault with nobody.
pub(crate) async fn insert_a_good_record(connection: &mut PgConnection, table: Table) -> Result<(), sqlx::Error> {
    match table {
        Table::AuditEvents => audit_events::insert_a_good_record(connection).await,
        Table::TokenLedger => Ok(()),
        Table::DecisionTrails => decision_trails::insert_a_good_record(connection).await,
        Table::EconomicMetrics => economic_metrics::insert_a_good_record(connection).await,
        Table::ToolUsageLedger => tool_usage::insert_a_good_record(connection).await,
    }
}

/// New rows by their key, with their numbers.
type RowIds = HashMap<String, Option<i64>>;

/// A record's place among those that were compared, from 1, and the names of the fields in which its row differs.
type DifferingColumns = (i64, Vec<String>);

/// A table whose rows have names of their own, so that a record that comes again is known.
trait Keyed {
    type Record: Sync;
    /// What publishers call the name.
    const KEY: &'static str;

    /// The publisher's own name for it.
    fn shown(record: &Self::Record) -> &str;

    /// What tells it from all other rows.
    fn key(record: &Self::Record) -> String;

    /// Inserts records with different keys. Those whose key is taken are left out; of a table that knows how, they refuse the insert
    /// where all are expected to be new.
    fn insert(
        connection: &mut PgConnection,
        records: &[&Self::Record],
        ids: Ids,
    ) -> impl Future<Output = Result<RowIds, sqlx::Error>> + Send;

    /// Compares records with the rows that have their keys. A statement of its own: an insert does not see a row that
    /// another transaction committed while it ran.
    fn compare(
        connection: &mut PgConnection,
        records: &[&Self::Record],
    ) -> impl Future<Output = Result<Vec<DifferingColumns>, sqlx::Error>> + Send;
}

/// What its table said to one try.
enum InsertAttempt {
    /// A new row, with its number.
    New(Option<i64>),
    /// Its key is taken by a record that differs in these fields, or in none.
    Taken(Vec<String>),
}

async fn place_keyed<T: Keyed>(
    connection: &mut PgConnection,
    records: &[&T::Record],
) -> Result<Vec<Option<RowOutcome<'static>>>, sqlx::Error> {
    let tried = try_to_place::<T>(connection, records, Ids::MayBeTaken).await?;
    Ok(records.iter().zip(tried).map(|(record, tried)| Some(tried?.settled(T::KEY, T::shown(record)))).collect())
}

impl InsertAttempt {
    /// Other content under a key that is taken is a conflict.
    fn settled(self, name: &str, key: &str) -> RowOutcome<'static> {
        match self {
            InsertAttempt::New(row_id) => RowOutcome::Recorded { row_id, stored_as: None },
            InsertAttempt::Taken(differing) if differing.is_empty() => RowOutcome::Duplicate { stored_as: None },
            InsertAttempt::Taken(differing) => {
                let detail = format!("{name} \"{key}\" is stored already, with another {}", differing.join(", "));
                RowOutcome::Rejected(Cow::Owned(Rejection::new(Reason::Conflict, &detail)))
            }
        }
    }
}

async fn try_to_place<T: Keyed>(
    connection: &mut PgConnection,
    records: &[&T::Record],
    ids: Ids,
) -> Result<Vec<Option<InsertAttempt>>, sqlx::Error> {
    let keys: Vec<String> = records.iter().map(|record| T::key(record)).collect();
    // Sorted by key, so that two transactions never wait for each other. A key that stands twice is inserted once.
    let mut firsts: Vec<usize> = (0..records.len()).collect();
    firsts.sort_by_key(|&index| (&keys[index], index));
    firsts.dedup_by_key(|index| &keys[*index]);
    let sorted: Vec<&T::Record> = firsts.iter().map(|&index| records[index]).collect();
    let row_ids = T::insert(connection, &sorted, ids).await?;

    let mut tried: Vec<Option<InsertAttempt>> = records.iter().map(|_| None).collect();
    for index in firsts {
        tried[index] = row_ids.get(&keys[index]).map(|id| InsertAttempt::New(*id));
    }
    let known: Vec<usize> = (0..records.len()).filter(|&index| tried[index].is_none()).collect();
    if known.is_empty() {
        return Ok(tried);
    }
    let again: Vec<&T::Record> = known.iter().map(|&index| records[index]).collect();
    for (place, differing) in T::compare(connection, &again).await? {
        let index = known[usize::try_from(place - 1).expect("ordinality counts from 1")];
        tried[index] = Some(InsertAttempt::Taken(differing));
    }
    Ok(tried)
}

fn column<'a, R, V>(records: &[&'a R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    records.iter().map(|record| value(record)).collect()
}
