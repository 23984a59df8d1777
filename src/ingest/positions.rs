//! The statements on `ledger.position`, `ledger.gap` and `ledger.identity`: the owner of each lane, and the sequence up
//! to which it is stored.

use crate::ingest::coverage;
use crate::ingest::epochs;
use crate::ingest::position::{Claim, Claimed, Move, Positions, SequenceMatch};
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::lane::Lane;
use crate::record::message::{Incarnation, Message};
use crate::record::sequences::Span;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

/// An owner that did not renew its claim for so long has lost it to whoever asks.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Claims are renewed this often.
const RENEW_INTERVAL: Duration = Duration::from_millis(2500);
/// A lane whose reader has not reached the stream for so long is given up, for another instance may reach it.
const READER_SILENCE_MAX: Duration = Duration::from_secs(8);

/// The positions of the lanes in PostgreSQL, as one instance sees them.
#[derive(Debug)]
pub struct LanePositions {
    connections: Connections,
    pub(crate) instance: String,
    owned: Mutex<BTreeMap<Lane, Owned>>,
}

/// A lane that this instance owns.
#[derive(Clone, Copy, Debug)]
struct Owned {
    claim: Claim,
    /// When its reader last showed that it works.
    alive: Instant,
}

/// A lane's position, for people.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LanePosition {
    pub lane: String,
    /// Everything up to this sequence is stored.
    pub sequence: i64,
    /// The instance that reads the lane.
    pub owner: Option<String>,
    /// How long its owner has been silent, in seconds.
    pub silent_s: f64,
    /// What is above this sequence may have been passed over.
    pub suspect_after: Option<i64>,
}

/// What the stream lost before it was read.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Gap {
    pub epoch: i32,
    pub lane: String,
    /// The first sequence that was lost.
    pub first_sequence: i64,
    pub last_sequence: i64,
    /// When it was noticed, ISO 8601 in UTC.
    pub noticed_at: String,
    pub why: String,
}

impl Gap {
    pub fn to_json(&self) -> Value {
        json!({
            "epoch": self.epoch, "lane": self.lane, "first": self.first_sequence, "last": self.last_sequence,
            "noticed_at": self.noticed_at, "why": self.why,
        })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lane, first_sequence, last_sequence, noticed_at, why, .. } = self;
        write!(
            f,
            "{lane}: GAP, sequences {first_sequence} to {last_sequence} were lost before they were read \
             (noticed {noticed_at}: {why})"
        )
    }
}

/// So many gaps are shown, the newest first.
pub const GAPS_SHOWN_MAX: i64 = 20;

impl LanePositions {
    /// Over these connections, in the name of this instance.
    pub fn new(connections: Connections, instance: String) -> Self {
        Self { connections, instance, owned: Mutex::default() }
    }

    /// The connections, for a reload of their credentials.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Renews the claims of the lanes whose readers work, and gives up the others, until told to stop. An instance that has not been
    /// able to commit for a while gives up all of them: `failing_for` says how long.
    pub async fn keep(&self, failing_for: impl Fn() -> Duration, stop: &CancellationToken) {
        let mut ticks = interval(RENEW_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let (alive, silent): (Vec<Claim>, Vec<Claim>) = {
                let owned = self.owned.lock();
                let can_commit = failing_for() < READER_SILENCE_MAX;
                let is_alive = |owned: &Owned| can_commit && owned.alive.elapsed() < READER_SILENCE_MAX;
                let claims = |alive: bool| owned.values().filter(move |it| is_alive(it) == alive).map(|it| it.claim);
                (claims(true).collect(), claims(false).collect())
            };
            for renewing in [self.set_owner(&alive, Some(&self.instance)).await, self.set_owner(&silent, None).await] {
                if let Err(error) = renewing {
                    // Its readers and pipelines tell what is wrong with the database.
                    tracing::debug!("claims were not renewed: {error}");
                }
            }
        }
    }

    /// Gives a lane to whoever waits for it.
    pub async fn release(&self, lane: Lane) {
        let owned = self.owned.lock().remove(&lane);
        if let Some(Owned { claim, .. }) = owned
            && let Err(error) = self.set_owner(&[claim], None).await
        {
            tracing::debug!(lane = lane.prefix(), "the lane was not released: {error}");
        }
    }

    /// Shows that an instance works on these lanes, or that it does not. A row that is locked is being committed, which shows as much.
    async fn set_owner(&self, claims: &[Claim], owner: Option<&str>) -> Result<(), DatabaseError> {
        if claims.is_empty() {
            return Ok(());
        }
        self.connections
            .run("renewing the claims of the lanes", async |connection| {
                sqlx::query(
                    "update ledger.position as p set owner = $1, renewed_at = clock_timestamp()
                from (
                    select p.epoch, p.lane
                    from ledger.position as p
                    join unnest($2::integer[], $3::text[], $4::bigint[]) as owned (epoch, lane, fence)
                        using (epoch, lane, fence)
                    for update of p skip locked
                ) as free
                where p.epoch = free.epoch and p.lane = free.lane",
                )
                .bind(owner)
                .bind(claims.iter().map(|claim| claim.epoch).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.lane.prefix()).collect::<Vec<_>>())
                .bind(claims.iter().map(|claim| claim.fence).collect::<Vec<_>>())
                .execute(connection)
                .await
                .map(drop)
            })
            .await
    }

    /// The positions of the newest epoch of a stream.
    pub async fn all(&self, stream: &str) -> Result<Vec<LanePosition>, DatabaseError> {
        of_stream(&self.connections, stream).await
    }

    /// The newest gaps of a stream.
    pub async fn gaps(&self, stream: &str, limit: i64) -> Result<Vec<Gap>, DatabaseError> {
        gaps_of_stream(&self.connections, stream, limit).await
    }

    /// Moves the positions of lanes that nobody owns over a range that was read as a whole, and gives the lanes that moved. A lane
    /// whose position lies before the range stays where it is. What the stream had lost of the range is a gap of the lane.
    pub async fn advance_free(
        &self,
        incarnation: &Incarnation,
        lanes: &[Lane],
        read: Span,
        lost_through: i64,
    ) -> Result<Vec<String>, DatabaseError> {
        self.connections
            .run("moving the positions", async |connection| {
                let epoch = epochs::of(connection, incarnation).await?[0];
                epochs::ensure_positions(connection, epoch.number, lanes).await?;
                sqlx::query_scalar(
                    "with
                free as (
                    select epoch, lane, sequence
                    from ledger.position
                    where epoch = $1 and lane = any($2)
                        and sequence >= $4 - 1 and sequence < $3
                        and (owner is null or renewed_at < clock_timestamp() - $5 * interval '1 second')
                    for update
                ),
                lost as (
                    insert into ledger.gap (epoch, lane, first_sequence, last_sequence, why)
                    select epoch, lane, sequence + 1, $6, 'the stream had lost them when it was replayed'
                    from free
                    where sequence < $6
                    on conflict do nothing
                )
                update ledger.position as p set sequence = $3, fence = p.fence + 1, owner = null
                from free
                where p.epoch = free.epoch and p.lane = free.lane
                returning p.lane",
                )
                .bind(epoch.number)
                .bind(lanes.iter().map(|lane| lane.prefix()).collect::<Vec<_>>())
                .bind(read.last())
                .bind(read.first())
                .bind(SILENCE_MAX.as_secs_f64())
                .bind(lost_through)
                .fetch_all(connection)
                .await
            })
            .await
    }

    async fn epochs(&self, incarnation: &Incarnation) -> Result<Vec<i32>, String> {
        let epochs =
            self.connections.run("reading the epochs", async |connection| epochs::known(connection, incarnation).await);
        Ok(epochs.await.map_err(text)?.into_iter().map(|epoch| epoch.number).collect())
    }
}

/// The positions of the newest epoch of a stream.
pub async fn of_stream(connections: &Connections, stream: &str) -> Result<Vec<LanePosition>, DatabaseError> {
    connections
        .run("reading the positions", async |connection| {
            sqlx::query_as(
                "select lane, sequence, owner, suspect_after,
                    extract(epoch from clock_timestamp() - renewed_at)::double precision as silent_s
                from ledger.position
                where epoch = (select max(epoch) from ledger.epoch where stream = $1)",
            )
            .bind(stream)
            .fetch_all(connection)
            .await
        })
        .await
}

/// The newest gaps of a stream.
pub async fn gaps_of_stream(connections: &Connections, stream: &str, limit: i64) -> Result<Vec<Gap>, DatabaseError> {
    connections
        .run("reading the gaps", async |connection| {
            sqlx::query_as(
                "select epoch, lane, first_sequence, last_sequence, why,
                    to_char(gap.noticed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as noticed_at
                from ledger.gap
                join ledger.epoch using (epoch)
                where stream = $1
                order by gap.noticed_at desc, lane
                limit $2",
            )
            .bind(stream)
            .bind(limit)
            .fetch_all(connection)
            .await
        })
        .await
}

/// Moves the positions of lanes whose messages are stored otherwise. Says no if one is not where the messages follow on.
pub(crate) async fn move_positions(connection: &mut PgConnection, moves: &[Move]) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "update ledger.position as p set sequence = move.to_sequence, renewed_at = clock_timestamp()
        from unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
            as move (epoch, lane, fence, from_sequence, to_sequence)
        where p.epoch = move.epoch and p.lane = move.lane and p.fence = move.fence and p.sequence = move.from_sequence",
    )
    .bind(moves.iter().map(|it| it.claim.epoch).collect::<Vec<_>>())
    .bind(moves.iter().map(|it| it.claim.lane.prefix()).collect::<Vec<_>>())
    .bind(moves.iter().map(|it| it.claim.fence).collect::<Vec<_>>())
    .bind(moves.iter().map(|it| it.from).collect::<Vec<_>>())
    .bind(moves.iter().map(|it| it.to).collect::<Vec<_>>())
    .execute(connection)
    .await?
    .rows_affected();
    Ok(updated == moves.len() as u64)
}

/// Takes a lane that nobody owns, that this instance owned before, or whose owner is silent.
async fn claim(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
    lane: Lane,
    instance: &str,
) -> Result<Claimed, sqlx::Error> {
    let epoch = epochs::of(connection, incarnation).await?[0];
    epochs::ensure_positions(connection, epoch.number, &[lane]).await?;
    let claimed: Option<(i64, i64, Option<i64>)> = sqlx::query_as(
        "update ledger.position set owner = $3, fence = fence + 1, renewed_at = clock_timestamp()
        where epoch = $1 and lane = $2
            and (owner is null or owner = $3 or renewed_at < clock_timestamp() - $4 * interval '1 second')
        returning sequence, fence, suspect_after",
    )
    .bind(epoch.number)
    .bind(lane.prefix())
    .bind(instance)
    .bind(SILENCE_MAX.as_secs_f64())
    .fetch_optional(&mut *connection)
    .await?;
    if let Some((position, fence, suspect_after)) = claimed {
        let claim = Claim { lane, epoch: epoch.number, regressions: epoch.regressions, fence };
        return Ok(Claimed::Owned { claim, position, suspect_after });
    }
    let owner: Option<Option<String>> =
        sqlx::query_scalar("select owner from ledger.position where epoch = $1 and lane = $2")
            .bind(epoch.number)
            .bind(lane.prefix())
            .fetch_optional(connection)
            .await?;
    Ok(Claimed::Foreign { owner: owner.flatten().unwrap_or_default() })
}

impl Positions for LanePositions {
    async fn claim(&self, incarnation: &Incarnation, lane: Lane) -> Result<Claimed, String> {
        let claimed = self
            .connections
            .run("claiming a lane", async |connection| claim(connection, incarnation, lane, &self.instance).await)
            .await
            .map_err(text)?;
        let mut owned = self.owned.lock();
        match &claimed {
            Claimed::Owned { claim, .. } => owned.insert(lane, Owned { claim: *claim, alive: Instant::now() }),
            Claimed::Foreign { .. } => owned.remove(&lane),
        };
        Ok(claimed)
    }

    fn is_alive(&self, lane: Lane) {
        if let Some(owned) = self.owned.lock().get_mut(&lane) {
            owned.alive = Instant::now();
        }
    }

    async fn pass(&self, claim: Claim, from: i64, to: i64) -> Result<bool, String> {
        // A position that stays is looked at, and the row is left alone.
        let statement = if from == to {
            "select from ledger.position where epoch = $1 and lane = $2 and fence = $3 and sequence = $4 and $5 = sequence"
        } else {
            "update ledger.position set sequence = $5, renewed_at = clock_timestamp()
            where epoch = $1 and lane = $2 and fence = $3 and sequence = $4
            returning 1"
        };
        self.connections
            .run("moving a position", async |connection| {
                let moved = sqlx::query(statement)
                    .bind(claim.epoch)
                    .bind(claim.lane.prefix())
                    .bind(claim.fence)
                    .bind(from)
                    .bind(to)
                    .fetch_optional(connection)
                    .await?;
                Ok(moved.is_some())
            })
            .await
            .map_err(text)
    }

    async fn record_gap(&self, claim: Claim, gap: Span, why: &str) -> Result<bool, String> {
        self.connections
            .run("recording a gap", async |connection| {
                sqlx::query(
                    "insert into ledger.gap (epoch, lane, first_sequence, last_sequence, why)
                values ($1, $2, $3, $4, $5)
                on conflict do nothing",
                )
                .bind(claim.epoch)
                .bind(claim.lane.prefix())
                .bind(gap.first())
                .bind(gap.last())
                .bind(why)
                .execute(connection)
                .await
                .map(|done| done.rows_affected() > 0)
            })
            .await
            .map_err(text)
    }

    async fn suspect(&self, claim: Claim, after: Option<i64>) -> Result<(), String> {
        self.connections.run("noting what is suspect", async |connection| {
            sqlx::query(
                "update ledger.position set suspect_after = case when $4::bigint is null then null else least(suspect_after, $4) end
                where epoch = $1 and lane = $2 and fence = $3",
            )
            .bind(claim.epoch)
            .bind(claim.lane.prefix())
            .bind(claim.fence)
            .bind(after)
            .execute(connection)
            .await
            .map(drop)
        })
        .await
        .map_err(text)
    }

    async fn reliable_position(&self, incarnation: &Incarnation, lane: Lane) -> Result<i64, String> {
        let position: Option<i64> = self
            .connections
            .run("reading a position", async |connection| {
                sqlx::query_scalar(
                    "select least(sequence, suspect_after)
                    from ledger.position
                    join ledger.epoch using (epoch)
                    where stream = $1 and stream_created_ns = $2 and lane = $3
                    order by regressions desc
                    limit 1",
                )
                .bind(&*incarnation.stream)
                .bind(incarnation.created_ns)
                .bind(lane.prefix())
                .fetch_optional(connection)
                .await
            })
            .await
            .map_err(text)?;
        Ok(position.unwrap_or(0))
    }

    async fn last_commit(&self, claim: Claim) -> Result<Option<Span>, String> {
        let last: Option<(i64, i64)> = self
            .connections
            .run("reading a lane's last commit", async |connection| {
                sqlx::query_as(
                    "select first_sequence, last_sequence
                    from ledger.batch
                    where epoch = $1 and lane = $2 and layer = 0
                    order by first_sequence desc
                    limit 1",
                )
                .bind(claim.epoch)
                .bind(claim.lane.prefix())
                .fetch_optional(connection)
                .await
            })
            .await
            .map_err(text)?;
        Ok(last.and_then(|(first, last)| Span::new(first, last)))
    }

    async fn highest(&self, incarnation: &Incarnation, through: i64) -> Result<Option<i64>, String> {
        coverage::highest(&self.connections, &self.epochs(incarnation).await?, through).await.map_err(text)
    }

    async fn compare(&self, message: &Message) -> Result<SequenceMatch, String> {
        coverage::compare(&self.connections, &self.epochs(&message.incarnation).await?, message).await.map_err(text)
    }

    async fn open_epoch(&self, incarnation: &Incarnation, since: i32, divergence: i64) -> Result<(), String> {
        self.connections
            .run("opening an epoch", async |connection| {
                epochs::open_after(connection, incarnation, since, divergence).await
            })
            .await
            .map_err(text)
    }

    async fn ledger_id(&self) -> Result<String, String> {
        self.connections
            .run("reading the ledger's name", async |connection| {
                sqlx::query_scalar("select id::text from ledger.identity").fetch_one(connection).await
            })
            .await
            .map_err(text)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn text(error: DatabaseError) -> String {
    error.to_string()
}
