//! The checks across all of custody, which no single batch can answer: overlapping layers, and duplicates of messages
//! that were never recorded.

use crate::postgres::remedy::DatabaseError;
use crate::verify::findings::{Finding, Findings, shown};
use crate::verify::snapshot::{Snapshot, answer};

/// How many of a kind are listed; all are counted.
const LISTED_MAX: i64 = 1000;

/// Batches whose ranges overlap within a layer, where one step in an index finds one of them alone; and batches of a layer that is
/// not the lowest that had room for them.
const LAYERS: &str = "
    with
    neighbours as (
        select first_leaf,
            first_sequence <= lag(last_sequence) over (partition by epoch, lane, layer order by first_sequence, first_leaf) as is_overlapping
        from ledger.batch
        union all
        select first_leaf,
            first_row_id <= lag(last_row_id) over (partition by lane, layer order by first_row_id, first_leaf)
        from ledger.batch
        where first_row_id is not null
    ),
    misplaced as (
        select first_leaf, 'overlaps another of its layer' as says from neighbours where is_overlapping
        union
        select first_leaf, 'is not the lowest that had room for it'
        from ledger.batch as it
        where layer > 0
            and not exists (
                select
                from ledger.batch as below
                where below.first_leaf < it.first_leaf
                    and below.lane = it.lane
                    and below.layer = it.layer - 1
                    and (
                        below.epoch = it.epoch
                            and below.first_sequence <= it.last_sequence
                            and below.last_sequence >= it.first_sequence
                        or below.first_row_id <= it.last_row_id and below.last_row_id >= it.first_row_id
                    )
            )
    )
    select first_leaf, says, count(*) over () from misplaced order by first_leaf limit $1";

/// Sequences that two batches of different layers of a lane have.
const TWICE: &str = "
    select upper.first_leaf, min(covered.sequence), count(*) over ()
    from ledger.batch as upper
    join ledger.batch as lower
        on lower.epoch = upper.epoch and lower.lane = upper.lane and lower.layer < upper.layer
            and lower.first_sequence <= upper.last_sequence and lower.last_sequence >= upper.first_sequence
    cross join lateral (select unnest(upper.sequences) intersect select unnest(lower.sequences)) as covered (sequence)
    where upper.layer > 0
    group by upper.first_leaf
    order by upper.first_leaf
    limit $1";

/// Duplicates of what nobody recorded.
const DUPLICATES: &str = "
    with
    again as materialized (
        select batch.first_leaf + item.position - 1 as leaf_index, ledger.table_of(item.subject) as table_name, item.record_id
        from ledger.batch
        cross join lateral unnest(batch.subjects, batch.dispositions, batch.record_ids)
            with ordinality as item (subject, disposition, record_id, position)
        where 'd' = any (batch.dispositions) and item.disposition = 'd'
    ),
    recorded as materialized (
        select distinct ledger.table_of(item.subject) as table_name, item.record_id
        from ledger.batch
        cross join lateral unnest(batch.subjects, batch.dispositions, batch.record_ids) as item (subject, disposition, record_id)
        where item.disposition = 'r' and item.record_id in (select record_id from again)
    )
    select leaf_index, record_id, count(*) over ()
    from again
    where not exists (
        select from recorded where recorded.table_name = again.table_name and recorded.record_id = again.record_id
    )
    order by leaf_index
    limit $1";

impl Snapshot {
    /// Compares the layers of batches with each other.
    pub async fn layers(&self, findings: &mut Findings) -> Result<(), DatabaseError> {
        let misplaced: Vec<(i64, String, i64)> = self.list(LAYERS).await?;
        note(findings, misplaced, |first_leaf, says| Finding::new("ledger.batch", first_leaf, "layer", says));
        let twice: Vec<(i64, i64, i64)> = self.list(TWICE).await?;
        note(findings, twice, |first_leaf, sequence| {
            let says = format!("has {sequence}, which another batch of the lane has");
            Finding::new("ledger.batch", first_leaf, "sequences", says)
        });
        Ok(())
    }

    /// Names the entries that came again after nothing.
    pub async fn duplicates_of_nothing(&self, findings: &mut Findings) -> Result<(), DatabaseError> {
        let found: Vec<(i64, Option<String>, i64)> = self.list(DUPLICATES).await?;
        note(findings, found, |leaf, record_id: Option<String>| {
            let says = format!("is {}, a duplicate of what nobody recorded", shown(record_id.as_deref()));
            Finding::new("ledger.entry", leaf, "record_id", says)
        });
        Ok(())
    }

    async fn list<T>(&self, query: &'static str) -> Result<Vec<T>, DatabaseError>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let ask = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query_as(query).bind(LISTED_MAX).fetch_all(reader)).await
        };
        self.with(ask).await
    }
}

/// Takes note of those that are listed, and counts the rest.
fn note<T>(findings: &mut Findings, found: Vec<(i64, T, i64)>, finding: impl Fn(i64, T) -> Finding) {
    let rest = found.first().map_or(0, |(.., all)| *all) - i64::try_from(found.len()).unwrap_or(0);
    let mut like = None;
    for (leaf, what, _) in found {
        let finding = finding(leaf, what);
        like = Some(finding.clone());
        findings.add(finding);
    }
    if let Some(like) = like {
        findings.count(&like, u64::try_from(rest).unwrap_or(0));
    }
}
