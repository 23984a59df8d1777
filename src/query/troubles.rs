//! What waits for a person: open dead letters, what the stream lost lately, and refused webhooks.

use sqlx::PgConnection;

#[derive(Debug)]
pub(crate) struct Troubles {
    /// By reason, the most first.
    pub(crate) open_letters: Vec<OpenLetters>,
    pub(crate) gaps: Vec<RecentGap>,
    pub(crate) refused: RefusedCalls,
}

/// Dead letters of one reason that nobody has decided about.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct OpenLetters {
    pub(crate) reason: String,
    /// Of the newest 5,000 dead letters.
    pub(crate) letters: i64,
    /// Of the newest.
    pub(crate) detail: String,
}

/// A gap that was noticed in the last seven days.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct RecentGap {
    pub(crate) lane: String,
    pub(crate) sequences: i64,
    pub(crate) noticed_at: String,
    pub(crate) why: String,
}

/// Calls of the webhooks that were refused, of callers that came within the last hour.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub(crate) struct RefusedCalls {
    pub(crate) callers: i64,
    pub(crate) calls: i64,
    pub(crate) newest: Option<String>,
}

/// Dead letters that are looked at; older ones are on the screen of rejects.
pub(crate) const LETTERS_MAX: i64 = 5_000;
const GAPS_MAX: i64 = 20;

pub(crate) async fn read(connection: &mut PgConnection) -> Result<Troubles, sqlx::Error> {
    Ok(Troubles {
        open_letters: open_letters(connection).await?,
        gaps: gaps(connection).await?,
        refused: refused(connection).await?,
    })
}

async fn open_letters(connection: &mut PgConnection) -> Result<Vec<OpenLetters>, sqlx::Error> {
    sqlx::query_as(
        "select reason, count(*) as letters,
            (array_agg(detail order by leaf_index desc))[1] as detail
        from (select * from ledger.dead_letter order by leaf_index desc limit $1) as letter
        where not exists (select from ledger.resolution where resolution.leaf_index = letter.leaf_index)
        group by reason
        order by letters desc, reason",
    )
    .bind(LETTERS_MAX)
    .fetch_all(connection)
    .await
}

async fn gaps(connection: &mut PgConnection) -> Result<Vec<RecentGap>, sqlx::Error> {
    sqlx::query_as(
        "select lane, last_sequence - first_sequence + 1 as sequences,
            to_char(noticed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as noticed_at, why
        from ledger.gap
        where gap.noticed_at > current_timestamp - interval '7 days'
        order by gap.noticed_at desc, lane
        limit $1",
    )
    .bind(GAPS_MAX)
    .fetch_all(connection)
    .await
}

/// The table has 256 rows at most.
async fn refused(connection: &mut PgConnection) -> Result<RefusedCalls, sqlx::Error> {
    sqlx::query_as(
        "select count(*) as callers, coalesce(sum(calls), 0)::bigint as calls,
            (array_agg(format('%s on %s from %s', status, webhook, address) order by last_at desc))[1] as newest
        from ledger.refusal
        where last_at > current_timestamp - interval '1 hour'",
    )
    .fetch_one(connection)
    .await
}
