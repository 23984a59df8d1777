//! Which epoch is this message of? An epoch is one incarnation of a stream; a new one is opened when the stream was made
//! anew, or when it went back to a sequence that it had used for another message.

use crate::domain::message::Incarnation;
use sqlx::PgConnection;

/// An epoch as the database numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) number: i32,
    /// How often the stream's incarnation went back.
    pub(super) regressions: i32,
}

/// All epochs of an incarnation, the newest first; opens the first one when there is none.
pub(super) async fn of(connection: &mut PgConnection, incarnation: &Incarnation) -> Result<Vec<Epoch>, sqlx::Error> {
    let found = known(connection, incarnation).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    open(connection, incarnation, 0).await?;
    tracing::info!(stream = &*incarnation.stream, "new epoch: the stream {incarnation}");
    known(connection, incarnation).await
}

/// Opens the epoch after `latest`. Another instance may have done so already.
pub(super) async fn open_after(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
    latest: Epoch,
) -> Result<(), sqlx::Error> {
    tracing::error!(
        stream = &*incarnation.stream,
        "the stream {incarnation} uses sequences again for other messages: it was restored or lost data. \
         A new epoch holds what it delivers from now on; run `ledgerd check`"
    );
    // Under the lock that commits take: none can be between its look at the epochs and its entries.
    sqlx::raw_sql("begin; select from ledger.tree_head for update").execute(&mut *connection).await?;
    open(connection, incarnation, latest.regressions + 1).await?;
    sqlx::raw_sql("commit").execute(connection).await?;
    Ok(())
}

/// All epochs of an incarnation that are open, the newest first.
pub(super) async fn known(connection: &mut PgConnection, incarnation: &Incarnation) -> Result<Vec<Epoch>, sqlx::Error> {
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
