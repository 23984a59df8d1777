//! How does a record become its row? Each table has its statements in a file of its own; what they share is here.

mod audit_events;
mod decision_trails;
mod economic_metrics;
mod token_usage;
mod tool_usage;

use super::failure::Failure;
use crate::domain::record::Record;
use crate::domain::reject::{Reason, Rejection};
use crate::domain::subject::Table;
use crate::lifecycle::References;
use sqlx::PgConnection;
use std::collections::HashMap;

/// What its table said to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// A new row, with this number if its table numbers its rows.
    New(Option<i64>),
    /// The same record is there.
    Same,
    /// The id is there with other content, or what it refers to is not.
    Refused(Rejection),
}

/// Writes the records, and says for each, in their order, what became of it. `None` for one whose id another transaction
/// took away again in the meantime: try again.
pub(super) async fn place(
    connection: &mut PgConnection,
    records: &[&Record],
    references: References,
) -> Result<Vec<Option<Placed>>, Failure> {
    let mut placed: Vec<Option<Placed>> = vec![None; records.len()];
    // Always in the same order of tables, so that two transactions never wait for each other.
    for table in Table::ALL {
        let positions: Vec<usize> = (0..records.len()).filter(|&index| records[index].table() == table).collect();
        if positions.is_empty() {
            continue;
        }
        let here: Vec<&Record> = positions.iter().map(|&index| records[index]).collect();
        for (position, verdict) in positions.into_iter().zip(place_in(connection, table, &here, references).await?) {
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
) -> Result<Vec<Option<Placed>>, Failure> {
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
        Table::AuditEvents => place_keyed::<audit_events::AuditEvents>(connection, &of_kind!(Event)).await,
        Table::TokenLedger => {
            return token_usage::place(connection, &of_kind!(TokenUsage), references).await;
        }
        Table::DecisionTrails => place_keyed::<decision_trails::DecisionTrails>(connection, &of_kind!(Trail)).await,
        Table::EconomicMetrics => economic_metrics::place(connection, &of_kind!(Metric)).await,
        Table::ToolUsageLedger => tool_usage::place(connection, &of_kind!(ToolUsage)).await,
    }
    .map_err(Failure::of_projection)
}

/// Inserts a good record into a transaction that is never committed. A table that refuses it is at fault, and no record is.
/// The table of token usage is the daemon's own, and finds fault with nobody.
pub(super) async fn insert_a_good_record(connection: &mut PgConnection, table: Table) -> Result<(), sqlx::Error> {
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
type Comparison = (i64, Vec<String>);

/// A table whose rows have names of their own, so that a record that comes again is known.
trait Keyed {
    type Record: Sync;
    /// What publishers call the name.
    const KEY: &'static str;

    /// The publisher's own name for it.
    fn shown(record: &Self::Record) -> &str;

    /// What tells it from all other rows.
    fn key(record: &Self::Record) -> String;

    /// Inserts records with different keys. Those whose key is taken are left out.
    fn insert(
        connection: &mut PgConnection,
        records: &[&Self::Record],
    ) -> impl Future<Output = Result<RowIds, sqlx::Error>> + Send;

    /// Compares records with the rows that have their keys. A statement of its own: an insert does not see a row that
    /// another transaction committed while it ran.
    fn compare(
        connection: &mut PgConnection,
        records: &[&Self::Record],
    ) -> impl Future<Output = Result<Vec<Comparison>, sqlx::Error>> + Send;
}

async fn place_keyed<T: Keyed>(
    connection: &mut PgConnection,
    records: &[&T::Record],
) -> Result<Vec<Option<Placed>>, sqlx::Error> {
    let keys: Vec<String> = records.iter().map(|record| T::key(record)).collect();
    // Sorted by key, so that two transactions never wait for each other. A key that stands twice is inserted once.
    let mut firsts: Vec<usize> = (0..records.len()).collect();
    firsts.sort_by_key(|&index| (&keys[index], index));
    firsts.dedup_by_key(|index| &keys[*index]);
    let sorted: Vec<&T::Record> = firsts.iter().map(|&index| records[index]).collect();
    let ids = T::insert(connection, &sorted).await?;

    let mut placed: Vec<Option<Placed>> = vec![None; records.len()];
    for index in firsts {
        placed[index] = ids.get(&keys[index]).map(|id| Placed::New(*id));
    }
    let known: Vec<usize> = (0..records.len()).filter(|&index| placed[index].is_none()).collect();
    if known.is_empty() {
        return Ok(placed);
    }
    let again: Vec<&T::Record> = known.iter().map(|&index| records[index]).collect();
    for (place, differing) in T::compare(connection, &again).await? {
        let index = known[usize::try_from(place - 1).expect("ordinality counts from 1")];
        placed[index] = Some(if differing.is_empty() {
            Placed::Same
        } else {
            let (name, key, fields) = (T::KEY, T::shown(records[index]), differing.join(", "));
            let detail = format!("{name} \"{key}\" is stored already, with another {fields}");
            Placed::Refused(Rejection::new(Reason::Conflict, &detail))
        });
    }
    Ok(placed)
}

fn column<'a, R, V>(records: &[&'a R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    records.iter().map(|record| value(record)).collect()
}
