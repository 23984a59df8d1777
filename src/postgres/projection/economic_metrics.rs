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
        "with
        new as (
            select metric_key, metric_value::numeric as metric_value, period, set_by, position
            from unnest($1::text[], $2::text[], $3::text[], $4::text[])
                with ordinality
                as said (metric_key, metric_value, period, set_by, position)
        ),
        history as (
            select metric_key, metric_value, period, set_by, position from new
            union all
            select in_force.metric_key, in_force.metric_value, in_force.period, in_force.set_by, 0
            from (select distinct metric_key from new) as key
            cross join lateral (
                select * from public.economic_metrics as metric
                where metric.metric_key = key.metric_key
                order by created_at desc, id desc
                limit 1
            ) as in_force
        ),
        compared as (
            select
                position,
                (metric_value, period, set_by) is not distinct from (
                    lag(metric_value) over before, lag(period) over before, lag(set_by) over before
                ) as is_repeated
            from history
            window before as (partition by metric_key order by position)
        )
        select position from compared where position > 0 and not is_repeated order by position",
    )
    .bind(column(metrics, |metric| metric.key.as_str()))
    .bind(column(metrics, |metric| metric.value.text()))
    .bind(column(metrics, |metric| metric.period.as_deref()))
    .bind(column(metrics, |metric| metric.set_by.as_str()))
    .fetch_all(connection)
    .await?;
    Ok(places.into_iter().map(|place| usize::try_from(place - 1).expect("ordinality counts from 1")).collect())
}

async fn insert(connection: &mut PgConnection, metrics: &[&Metric]) -> Result<Vec<i64>, sqlx::Error> {
    // PostgreSQL numbers the rows in the order of the query, and so the ids, sorted, are those of the metrics in theirs.
    let mut ids: Vec<i64> = sqlx::query_scalar(
        "insert into public.economic_metrics (metric_key, metric_value, period, set_by)
        select metric_key, metric_value::numeric, period, set_by
        from unnest($1::text[], $2::text[], $3::text[], $4::text[])
            with ordinality
            as new (metric_key, metric_value, period, set_by, position)
        order by position
        returning id",
    )
    .bind(column(metrics, |metric| metric.key.as_str()))
    .bind(column(metrics, |metric| metric.value.text()))
    .bind(column(metrics, |metric| metric.period.as_deref()))
    .bind(column(metrics, |metric| metric.set_by.as_str()))
    .fetch_all(connection)
    .await?;
    ids.sort_unstable();
    Ok(ids)
}

/// The newest row's own values.
pub(super) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into public.economic_metrics (metric_key, metric_value, period, set_by)
        select
            coalesce(newest.metric_key, 'daily_limit_SYSTEM'),
            coalesce(newest.metric_value, 25),
            coalesce(newest.period, 'daily'),
            coalesce(newest.set_by, 'ARCHITECT')
        from (values (1)) as always_one_row
        left join (select * from public.economic_metrics order by id desc limit 1) as newest on true",
    )
    .execute(connection)
    .await?;
    Ok(())
}
