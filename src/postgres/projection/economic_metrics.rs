//! How does a metric become its row? The statements on `public.economic_metrics`: history, so each message is a new row.

use super::{Placed, column};
use crate::domain::metric::Metric;
use sqlx::PgConnection;

pub(super) async fn place(
    connection: &mut PgConnection,
    metrics: &[&Metric],
) -> Result<Vec<Option<Placed>>, sqlx::Error> {
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
    // A rule of the database's own may have turned some away.
    Ok((0..metrics.len()).map(|index| ids.get(index).map(|id| Placed::New(Some(*id)))).collect())
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
