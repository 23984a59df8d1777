//! The outbox queue in PostgreSQL: rejects and alerts that are not published yet. The queue is the part of their table
//! without `published_at`.

use crate::outbox::{Numbered, OutboxQueue};
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use sqlx::postgres::PgRow;
use std::marker::PhantomData;

/// The letters of a kind that wait, over connections of their own.
#[derive(Debug)]
pub struct LetterQueue<L> {
    connections: Connections,
    kind: PhantomData<fn() -> L>,
}

impl<L> LetterQueue<L> {
    /// Asks over these connections.
    pub fn over(connections: Connections) -> Self {
        Self { connections, kind: PhantomData }
    }

    /// The connections, for a reload of their credentials.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }
}

/// How a kind of letters is stored. Another instance may have marked one already; and a reload may have moved the connections
/// to another database, which is what a letter's name is for.
pub trait QueuedLetter: Numbered + Sized + Send + Sync {
    /// What is being done, for an error.
    const DOING: &str;
    /// Those that wait, after the number $1, at most $2, and no more than $3 bytes after the first.
    const WAITING: &str;
    const BACKLOG: &str;
    /// One of them, by its number.
    const READ: &str;
    /// Marks the letters of these numbers and these names: never as published before it was made, where the clock stepped back since.
    const MARK: &str;

    /// Reads what [`Self::READ`] or [`Self::WAITING`] found.
    fn of(row: &PgRow) -> Result<Self, sqlx::Error>;

    /// What tells it from another database's letter of this number.
    fn name(&self) -> String;
}

/// Letters of one page at most,
const PAGE_MAX: i64 = 1_024;
/// and their bytes.
const PAGE_BYTES_MAX: i64 = 4 * 1024 * 1024;

impl<L: QueuedLetter> OutboxQueue for LetterQueue<L> {
    type Letter = L;

    async fn waiting(&self, after: i64) -> Result<Vec<L>, String> {
        let reading = self.connections.run(L::DOING, async |connection| {
            let asking = sqlx::query(L::WAITING).bind(after).bind(PAGE_MAX).bind(PAGE_BYTES_MAX);
            asking.fetch_all(connection).await?.iter().map(L::of).collect()
        });
        reading.await.map_err(|error| error.to_string())
    }

    async fn backlog(&self) -> Result<i64, String> {
        let counting = self
            .connections
            .run(L::DOING, async |connection| sqlx::query_scalar(L::BACKLOG).fetch_one(connection).await);
        counting.await.map_err(|error| error.to_string())
    }

    async fn mark(&self, letters: &[&L]) -> Result<(), String> {
        let marking = self.connections.run(L::DOING, async |connection| {
            sqlx::query(L::MARK)
                .bind(letters.iter().map(|letter| letter.number()).collect::<Vec<_>>())
                .bind(letters.iter().map(|letter| letter.name()).collect::<Vec<_>>())
                .execute(connection)
                .await
        });
        marking.await.map(drop).map_err(|error| error.to_string())
    }
}

pub async fn read<L: QueuedLetter>(connections: &Connections, number: i64) -> Result<L, DatabaseError> {
    connections
        .run(L::DOING, async |connection| {
            let row = sqlx::query(L::READ).bind(number).fetch_one(&mut *connection).await?;
            L::of(&row)
        })
        .await
}
