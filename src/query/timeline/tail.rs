//! The tail of the timeline: lines in the order of the log, as they are committed.

use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::query::line::{Entry, TimelineLine, entry_columns, lines};

/// How far the log was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    size: i64,
}

impl Tail {
    /// The log's end when it had so many leaves.
    pub(crate) fn at(size: i64) -> Self {
        Self { size: size.max(0) }
    }

    pub(crate) fn size(self) -> i64 {
        self.size
    }
}

/// What was committed since.
#[derive(Debug)]
pub(crate) struct TailPage {
    /// In the order of the log. Duplicates give none.
    pub(crate) lines: Vec<TimelineLine>,
    pub(crate) tail: Tail,
    /// Entries that were left out, because too many came at a time.
    pub(crate) skipped: i64,
}

impl Reader {
    /// The end of the log as it is.
    pub(crate) async fn tail(&self) -> Result<Tail, DatabaseError> {
        self.0
            .run("reading the tree's head", async |connection| {
                let size = sqlx::query_scalar("select size from ledger.tree_head").fetch_one(connection).await?;
                Ok(Tail { size })
            })
            .await
    }

    /// What follows on a tail: the newest entries, and at most so many.
    pub(crate) async fn newest_since(&self, tail: Tail, entries_max: u16) -> Result<TailPage, DatabaseError> {
        let end = self.tail().await?;
        let first = tail.size.max(end.size - i64::from(entries_max));
        self.entries(first, end.size).await.map(|lines| TailPage {
            lines,
            tail: end,
            skipped: first - tail.size.min(first),
        })
    }

    /// What follows on a tail: the next entries, and at most so many.
    pub(crate) async fn next_since(&self, tail: Tail, entries_max: u16) -> Result<TailPage, DatabaseError> {
        let end = self.tail().await?.size.min(tail.size + i64::from(entries_max));
        self.entries(tail.size, end).await.map(|lines| TailPage {
            lines,
            tail: Tail { size: end.max(tail.size) },
            skipped: 0,
        })
    }

    async fn entries(&self, first: i64, end: i64) -> Result<Vec<TimelineLine>, DatabaseError> {
        if first >= end {
            return Ok(Vec::new());
        }
        self.0
            .run("reading the newest entries", async |connection| {
                let entries: Vec<Entry> = sqlx::query_as(concat!(
                    "select ",
                    entry_columns!(),
                    " from (
                        select *
                        from ledger.batch as held
                        where held.first_leaf >= (select max(first_leaf) from ledger.batch where first_leaf <= $1) and held.first_leaf < $2
                        order by held.first_leaf
                    ) as batch
                    cross join lateral generate_series(1, batch.leaves) as place (at)
                    where batch.first_leaf + place.at - 1 >= $1 and batch.first_leaf + place.at - 1 < $2
                    order by 1"
                ))
                .persistent(false)
                .bind(first)
                .bind(end)
                .fetch_all(&mut *connection)
                .await?;
                let found = lines(connection, &entries.iter().collect::<Vec<_>>()).await?;
                Ok(found.into_iter().flatten().collect())
            })
            .await
    }
}
