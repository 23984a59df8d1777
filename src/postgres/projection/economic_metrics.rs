//! How does a metric become its row? The statements on `public.economic_metrics`: history, so each change is a new row. What
//! only repeats the row in force is a duplicate.

use super::{Placed, column};
use crate::domain::metric::Metric;
use sqlx::PgConnection;

pub(super) async fn place(
    connection: &mut PgConnection,
    metrics: &[&Metric],
) -> Result<Vec<Option<Placed>>, sqlx::Error> {
    let changes = changes(connection, metrics).await?;
    let new: Vec<&Metric> = changes.iter().map(|&index| metrics[index]).collect();
    let ids = insert(connection, &new).await?;
    let mut placed = vec![Some(Placed::Same); metrics.len()];
    for (position, index) in changes.into_iter().enumerate() {
        // A rule of the database's own may have turned some away.
        placed[index] = ids.get(position).map(|id| Placed::New(Some(*id)));
    }
    Ok(placed)
}

/// The metrics that say something else than the row in force, or than the metric before them.
async fn changes(connection: &mut PgConnection, metrics: &[&Metric]) -> Result<Vec<usize>, sqlx::Error> {
    let places: Vec<i64> = sqlx::query_scalar(
        "with new as (
            select metric_key, metric_value::numeric as metric_value, period, set_by, published_ns, position
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
                with ordinality
                as said (metric_key, metric_value, period, set_by, published_ns, position)
        )
        select new.position
        from new
        -- What was in force when it was published: stored already, or before it in this batch.
        left join lateral (
            (
                select metric_value, period, set_by, ledger.metric_moment(stored) as moment, 0 as position
                from public.economic_metrics as stored
                where stored.metric_key = new.metric_key and ledger.metric_moment(stored) <= new.published_ns
                order by moment desc, id desc
                limit 1
            )
            union all
            select metric_value, period, set_by, published_ns, position
            from new as earlier
            where earlier.metric_key = new.metric_key
                and (earlier.published_ns, earlier.position) < (new.published_ns, new.position)
            order by moment desc, position desc
            limit 1
        ) as before on true
        where (new.metric_value, new.period, new.set_by) is distinct from (before.metric_value, before.period, before.set_by)
        order by new.position",
    )
    .bind(column(metrics, |metric| metric.key.as_str()))
    .bind(column(metrics, |metric| metric.value.text()))
    .bind(column(metrics, |metric| metric.period.as_deref()))
    .bind(column(metrics, |metric| metric.set_by.as_str()))
    .bind(column(metrics, |metric| metric.published_ns))
    .fetch_all(connection)
    .await?;
    Ok(places.into_iter().map(|place| usize::try_from(place - 1).expect("ordinality counts from 1")).collect())
}

async fn insert(connection: &mut PgConnection, metrics: &[&Metric]) -> Result<Vec<i64>, sqlx::Error> {
    // PostgreSQL numbers the rows in the order of the query, and so the ids, sorted, are those of the metrics in theirs.
    let mut ids: Vec<i64> = sqlx::query_scalar(
        "insert into public.economic_metrics (metric_key, metric_value, period, set_by, published_ns)
        select metric_key, metric_value::numeric, period, set_by, published_ns
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
            with ordinality
            as new (metric_key, metric_value, period, set_by, published_ns, position)
        order by position
        returning id",
    )
    .bind(column(metrics, |metric| metric.key.as_str()))
    .bind(column(metrics, |metric| metric.value.text()))
    .bind(column(metrics, |metric| metric.period.as_deref()))
    .bind(column(metrics, |metric| metric.set_by.as_str()))
    .bind(column(metrics, |metric| metric.published_ns))
    .fetch_all(connection)
    .await?;
    ids.sort_unstable();
    Ok(ids)
}

/// As wide as the rules allow.
pub(super) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into public.economic_metrics (metric_key, metric_value, period, set_by, published_ns)
        values (
            rpad('venture_capital_', 255, 'x'),
            9999999999999.0000000000000000000000000000000000000001,
            rpad('', 20, 'x'),
            rpad('', 50, 'x'),
            9223372036854775807
        )",
    )
    .execute(connection)
    .await?;
    Ok(())
}
