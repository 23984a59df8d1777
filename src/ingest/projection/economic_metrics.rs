//! The statements on `public.economic_metrics`, which project metrics to rows. The table is a history, so each message
//! is a new row. The metric that was published last is in force, whichever was stored last.

use crate::ingest::custody::RowOutcome;
use crate::ingest::projection::column;
use crate::record::metric::Metric;
use sqlx::PgConnection;

pub(crate) async fn place(
    connection: &mut PgConnection,
    metrics: &[&Metric],
) -> Result<Vec<Option<RowOutcome<'static>>>, sqlx::Error> {
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
    // A rule of the database's own may have turned some away.
    Ok((0..metrics.len())
        .map(|index| ids.get(index).map(|id| RowOutcome::Recorded { row_id: Some(*id), stored_as: None }))
        .collect())
}

/// As wide as the rules allow.
pub(crate) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
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
