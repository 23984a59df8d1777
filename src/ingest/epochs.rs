//! The epochs of a stream. An epoch is one incarnation of the stream. A new one is opened when the stream was created
//! again, or went back to a sequence that it had used for another message.

use crate::record::lane::Lane;
use crate::record::message::Incarnation;
use sqlx::{Connection as _, PgConnection};

/// An epoch as the database numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) number: i32,
    /// How often the stream's incarnation went back.
    pub(crate) regressions: i32,
}

/// All epochs of an incarnation, the newest first; opens the first one when there is none.
pub(crate) async fn of(connection: &mut PgConnection, incarnation: &Incarnation) -> Result<Vec<Epoch>, sqlx::Error> {
    let found = known(connection, incarnation).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    open(connection, incarnation, 0).await?;
    tracing::info!(stream = &*incarnation.stream, "new epoch: the stream {incarnation}");
    known(connection, incarnation).await
}

/// Opens the epoch after `since`, whose lanes go on where the stream and custody diverge. Claims of the old one stay valid: what was
/// taken from the stream before it went back may be nowhere else. Does nothing where another instance has opened one already.
pub(crate) async fn open_after(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
    since: i32,
    divergence: i64,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Under the lock that commits take: none can be between its positions and its entries.
    sqlx::query("select from ledger.tree_head for update").execute(&mut *transaction).await?;
    let newest = known(&mut transaction, incarnation).await?.into_iter().next();
    if let Some(newest) = newest.filter(|newest| newest.number == since) {
        open(&mut transaction, incarnation, newest.regressions + 1).await?;
        sqlx::query(
            "insert into ledger.position (epoch, lane, sequence)
            select new.epoch, old.lane, least(old.sequence, $2 - 1)
            from ledger.position as old
            join ledger.epoch as new on new.stream = $3 and new.stream_created_ns = $4 and new.regressions = $5
            where old.epoch = $1",
        )
        .bind(since)
        .bind(divergence)
        .bind(&*incarnation.stream)
        .bind(incarnation.created_ns)
        .bind(newest.regressions + 1)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// All epochs of an incarnation that are open, the newest first.
pub(crate) async fn known(connection: &mut PgConnection, incarnation: &Incarnation) -> Result<Vec<Epoch>, sqlx::Error> {
    let rows: Vec<(i32, i32)> = sqlx::query_as(
        "select epoch, regressions
        from ledger.epoch
        where stream = $1 and stream_created_ns = $2
        order by regressions desc",
    )
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(number, regressions)| Epoch { number, regressions }).collect())
}

async fn open(connection: &mut PgConnection, incarnation: &Incarnation, regressions: i32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into ledger.epoch (stream, stream_created_ns, regressions)
        values ($1, $2, $3)
        on conflict (stream, stream_created_ns, regressions) do nothing",
    )
    .bind(&*incarnation.stream)
    .bind(incarnation.created_ns)
    .bind(regressions)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lanes that the epoch has no position of begin before its first sequence.
pub(crate) async fn ensure_positions(
    connection: &mut PgConnection,
    epoch: i32,
    lanes: &[Lane],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into ledger.position (epoch, lane)
        select $1, lane
        from unnest($2::text[]) as wanted (lane)
        where not exists (select from ledger.position as p where p.epoch = $1 and p.lane = wanted.lane)
        on conflict do nothing",
    )
    .bind(epoch)
    .bind(lanes.iter().map(|lane| lane.prefix()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
