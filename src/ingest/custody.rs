//! Enters messages in custody: the statements on `ledger.batch`, `ledger.dead_letter`, `ledger.subtree` and
//! `ledger.tree_head`. The tree head is locked before them, or by the append itself. Such an append writes nothing if
//! the head is not the assumed one.

use crate::ingest::epochs::Epoch;
use crate::ingest::lifecycle::Judged;
use crate::ingest::position::Move;
use crate::postgres::failure::CommitFailure;
use crate::postgres::remedy::DatabaseError;
use crate::record::dead_letter::dlq_subject;
use crate::record::digest::Hash;
use crate::record::leaf::{Disposition, Leaf, headers_sha256, payload_sha256};
use crate::record::reject::Rejection;
use crate::record::subject::lane_of;
use sqlx::PgConnection;
use std::borrow::Cow;
use tlog::tree::{Frontier, Subtree};

/// What becomes of a message in this commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowOutcome<'a> {
    Recorded {
        /// Its number, if its table numbers its rows.
        row_id: Option<i64>,
        /// Its id, where that is not the one that the publisher gave.
        stored_as: Option<String>,
    },
    /// The same record is stored already.
    Duplicate {
        /// As in a new row.
        stored_as: Option<String>,
    },
    /// The record breaks a rule, its id is stored with other content, or what it refers to does not exist.
    Rejected(Cow<'a, Rejection>),
}

impl RowOutcome<'_> {
    pub(crate) fn disposition(&self) -> Disposition {
        match self {
            RowOutcome::Recorded { .. } => Disposition::Recorded,
            RowOutcome::Duplicate { .. } => Disposition::Duplicate,
            RowOutcome::Rejected(_) => Disposition::Rejected,
        }
    }

    pub(crate) fn row_id(&self) -> Option<i64> {
        if let RowOutcome::Recorded { row_id, .. } = self { *row_id } else { None }
    }

    /// The id under which the record is stored, or that a reject gave.
    pub(crate) fn record_id<'s>(&'s self, row: &'s Judged) -> Option<&'s str> {
        match self {
            RowOutcome::Recorded { stored_as: Some(id), .. } | RowOutcome::Duplicate { stored_as: Some(id) } => {
                Some(id)
            }
            _ => row.verdict.record_id(),
        }
    }

    pub(crate) fn rejection(&self) -> Option<&Rejection> {
        if let RowOutcome::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

/// The tree's head, as an append finds it.
pub(crate) struct AppendHead {
    tip: Tip,
    committed_at_us: i64,
    /// Locked until the end of the transaction: nobody else can change it.
    is_locked: bool,
}

/// How far the tree has grown.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    size: i64,
    frontier: Frontier,
}

impl Tip {
    /// The head, if nobody has appended since. The append finds out.
    pub(crate) fn assumed(self, committed_at_us: i64) -> AppendHead {
        AppendHead { tip: self, committed_at_us, is_locked: false }
    }
}

/// Locks the tree's head: from here to the commit, nobody else commits.
pub(crate) async fn lock_head(connection: &mut PgConnection) -> Result<AppendHead, CommitFailure> {
    let (size, stored_frontier, committed_at_us): (i64, Vec<u8>, i64) = sqlx::query_as(
        "select size, frontier, (extract(epoch from current_timestamp) * 1000000)::bigint
        from ledger.tree_head
        for update",
    )
    .fetch_optional(&mut *connection)
    .await?
    .ok_or_else(|| broken("ledger.tree_head has no row"))?;
    let frontier = u64::try_from(size).ok().and_then(|size| Frontier::restore(size, &stored_frontier).ok());
    let frontier = frontier.ok_or_else(|| broken("ledger.tree_head contradicts itself"))?;
    Ok(AppendHead { tip: Tip { size, frontier }, committed_at_us, is_locked: true })
}

/// Whether an append was made.
#[must_use]
pub(crate) enum Appended {
    Done(Tip),
    /// The head was assumed, and is another one: the transaction is to be given up.
    HeadMoved,
    /// The lanes are at other positions, or a newer epoch was opened since the commit looked: the transaction is to be given up.
    Refused,
    /// Some of the messages are stored already: the transaction is to be given up.
    Overlaps,
}

/// What the messages of an append follow on.
#[derive(Clone, Copy)]
pub(crate) enum Follows<'a> {
    /// The positions of their lanes, which the append moves.
    Positions(&'a [Move]),
    /// Nothing: their epoch must be the newest, for another instance may have opened one since we looked. From the lock on, nobody can.
    NewestEpoch,
}

impl<'a> Follows<'a> {
    fn moves(self) -> &'a [Move] {
        if let Follows::Positions(moves) = self { moves } else { &[] }
    }
}

/// Appends the messages to the tree and to custody, one batch for each lane. Without any it changes nothing. No two of the messages
/// have the same sequence.
pub(crate) async fn append(
    connection: &mut PgConnection,
    head: AppendHead,
    epoch: Epoch,
    rows: &[&Judged],
    outcomes: &[RowOutcome<'_>],
    follows: Follows<'_>,
) -> Result<Appended, CommitFailure> {
    let AppendHead { tip: before, committed_at_us, is_locked } = head;
    if rows.is_empty() {
        return Ok(Appended::Done(before));
    }
    let mut frontier = before.frontier.clone();
    let order = by_lane_and_sequence(rows);
    let placed: Vec<Placed<'_>> = order.iter().map(|&at| Placed { row: rows[at], outcome: &outcomes[at] }).collect();
    let mut completed = Vec::new();
    let mut leaf_hashes = Vec::with_capacity(rows.len());
    for it in &placed {
        let leaf = leaf_hash(it.row, it.outcome, epoch, committed_at_us);
        frontier.append(leaf, &mut completed);
        leaf_hashes.push(leaf);
    }
    let after = Tip { size: i64::try_from(frontier.size()).expect("a leaf index fits"), frontier };
    let growth = Growth { before: &before, after: &after, completed };
    if !insert_batches(connection, epoch, growth, &placed, &leaf_hashes, follows).await? {
        return why_not(connection, epoch, (&before, is_locked), follows).await;
    }
    insert_dead_letters(connection, epoch, before.size, &placed).await?;
    Ok(Appended::Done(after))
}

/// Why nothing was appended. The statement has moved those positions that the messages follow on, and the transaction sees it.
async fn why_not(
    connection: &mut PgConnection,
    epoch: Epoch,
    (before, is_locked): (&Tip, bool),
    follows: Follows<'_>,
) -> Result<Appended, CommitFailure> {
    let (is_same, is_newest): (bool, bool) = sqlx::query_as(
        "select size = $2 and frontier = $3, not exists (
            select from ledger.epoch as this
            join ledger.epoch as newer using (stream, stream_created_ns)
            where this.epoch = $1 and newer.regressions > this.regressions
        )
        from ledger.tree_head",
    )
    .bind(epoch.number)
    .bind(before.size)
    .bind(before.frontier.to_bytes())
    .fetch_one(&mut *connection)
    .await?;
    if !is_same {
        return if is_locked {
            Err(broken("ledger.tree_head changed under its lock"))
        } else {
            Ok(Appended::HeadMoved)
        };
    }
    let follows = match follows {
        Follows::NewestEpoch => is_newest,
        Follows::Positions(moves) => {
            let mut all_moved = true;
            for Move { claim, to, .. } in moves {
                let is_there: bool = sqlx::query_scalar(
                    "select exists (select from ledger.position where epoch = $1 and lane = $2 and fence = $3 and sequence = $4)",
                )
                .bind(claim.epoch)
                .bind(claim.lane.prefix())
                .bind(claim.fence)
                .bind(to)
                .fetch_one(&mut *connection)
                .await?;
                all_moved &= is_there;
            }
            all_moved
        }
    };
    Ok(if follows { Appended::Overlaps } else { Appended::Refused })
}

fn broken(what: &str) -> CommitFailure {
    CommitFailure::of_custody(DatabaseError::of_the_operator(what.to_owned()))
}

/// A message in its place.
struct Placed<'a> {
    row: &'a Judged,
    outcome: &'a RowOutcome<'a>,
}

/// The order in which messages become leaves: lane by lane, each in the order of its stream.
fn by_lane_and_sequence(rows: &[&Judged]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&at| (lane_of(&rows[at].message.subject), rows[at].message.sequence));
    order
}

/// How a commit changes the tree.
struct Growth<'a> {
    before: &'a Tip,
    after: &'a Tip,
    completed: Vec<Subtree>,
}

fn leaf_hash(row: &Judged, outcome: &RowOutcome<'_>, epoch: Epoch, committed_at_us: i64) -> Hash {
    let message = &row.message;
    Leaf {
        stream: &message.incarnation.stream,
        stream_created_ns: message.incarnation.created_ns,
        regressions: epoch.regressions,
        sequence: message.sequence,
        subject: &message.subject,
        server_time_ns: message.server_time_ns,
        headers_sha256: headers_sha256(message),
        payload_sha256: payload_sha256(message),
        disposition: outcome.disposition(),
        record_id: outcome.record_id(row),
        row_id: outcome.row_id(),
        committed_at_us,
        rejection: outcome.rejection().map(|rejection| (rejection.reason().code(), rejection.detail())),
    }
    .hash()
}

/// The batches of a commit, column by column.
#[derive(Default)]
struct Batches<'a> {
    lanes: Vec<&'a str>,
    /// Of each, where its first message stands among all, from 1.
    starts: Vec<i32>,
    leaves: Vec<i32>,
    first_sequences: Vec<i64>,
    last_sequences: Vec<i64>,
    first_row_ids: Vec<Option<i64>>,
    last_row_ids: Vec<Option<i64>>,
    duplicates: Vec<i32>,
    rejected: Vec<i32>,
    have_headers: Vec<bool>,
}

impl<'a> Batches<'a> {
    fn of(placed: &[Placed<'a>]) -> Self {
        let count = |number: usize| i32::try_from(number).expect("a commit is bounded");
        let mut batches = Self::default();
        let mut start = 1;
        for batch in
            placed.chunk_by(|one, next| lane_of(&one.row.message.subject) == lane_of(&next.row.message.subject))
        {
            let of = |disposition| count(batch.iter().filter(|it| it.outcome.disposition() == disposition).count());
            let row_ids = || batch.iter().filter_map(|it| it.outcome.row_id());
            batches.lanes.push(lane_of(&batch[0].row.message.subject));
            batches.starts.push(start);
            batches.leaves.push(count(batch.len()));
            batches.first_sequences.push(batch[0].row.message.sequence);
            batches.last_sequences.push(batch[batch.len() - 1].row.message.sequence);
            batches.first_row_ids.push(row_ids().min());
            batches.last_row_ids.push(row_ids().max());
            batches.duplicates.push(of(Disposition::Duplicate));
            batches.rejected.push(of(Disposition::Rejected));
            batches.have_headers.push(batch.iter().any(|it| it.row.message.headers.as_bytes().is_some()));
            start += count(batch.len());
        }
        batches
    }
}

/// Writes batches, subtrees, head and positions. One statement for any number of lanes: each batch is a slice of the arrays.
const INSERT_BATCHES: &str = "
    with
    given as (
        select *
        from unnest($3::text[], $4::integer[], $5::integer[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::integer[],
                $11::integer[], $12::boolean[])
            as given (lane, start, leaves, first_sequence, last_sequence, first_row_id, last_row_id, duplicates, rejected,
                have_headers)
    ),
    -- Hardly ever any: lanes of which something may stand in the way of the lowest layer. The newest batch of the highest layer tells.
    crossing as materialized (
        select given.*
        from given
        left join lateral (
            select layer, last_sequence
            from ledger.batch
            where epoch = $2 and lane = given.lane
            order by layer desc, first_sequence desc
            limit 1
        ) as by_sequence on true
        left join lateral (
            select layer, last_row_id
            from ledger.batch
            where lane = given.lane and first_row_id is not null
            order by layer desc, first_row_id desc
            limit 1
        ) as by_row on true
        where by_sequence.layer > 0 or by_row.layer > 0
            or by_sequence.last_sequence >= given.first_sequence
            or by_row.last_row_id >= given.first_row_id
    ),
    overlapped as materialized (
        select given.lane, batch.layer, batch.first_leaf, found.is_by_sequence
        from crossing as given
        cross join lateral (
            select place, true from ledger.batches_of_lane($2, given.lane, first_sequence, last_sequence) as place
            union all
            select place, false from ledger.batches_of_rows(given.lane, first_row_id, last_row_id) as place
        ) as found (first_leaf, is_by_sequence)
        -- `offset 0`: a plan that was made while the table was empty would read all of it for ever after.
        cross join lateral (
            select layer, first_leaf from ledger.batch where batch.first_leaf = found.first_leaf offset 0
        ) as batch
    ),
    stored as (
        select
        from overlapped
        cross join lateral (select sequences from ledger.batch where batch.first_leaf = overlapped.first_leaf offset 0) as batch
        cross join unnest(batch.sequences) as covered (sequence)
        where is_by_sequence and covered.sequence = any($13)
        limit 1
    ),
    moved as (
        update ledger.position as p set sequence = move.to_sequence, renewed_at = clock_timestamp()
        from unnest($31::text[], $32::bigint[], $33::bigint[], $34::bigint[])
            as move (lane, fence, from_sequence, to_sequence)
        where p.epoch = $2 and p.lane = move.lane and p.fence = move.fence and p.sequence = move.from_sequence
        returning 1
    ),
    grown as (
        update ledger.tree_head set size = $25, root = $26, frontier = $27
        where size = $1 and frontier = $35
            and not exists (select from stored)
            and (select count(*) from moved) = cardinality($31)
            and (not $30 or $2 = (
                select epoch from ledger.epoch
                where stream = $28 and stream_created_ns = $29
                order by regressions desc
                limit 1
            ))
        returning 1
    ),
    completed as (
        insert into ledger.subtree (level, index, hash)
        select level, index, hash
        from unnest($22::smallint[], $23::bigint[], $24::bytea[]) as new (level, index, hash)
        cross join grown
    )
    insert into ledger.batch
        (first_leaf, leaves, epoch, lane, layer, first_sequence, last_sequence, first_row_id, last_row_id, duplicates, rejected,
        committed_at, sequences, subjects, server_times_ns, headers, payloads, dispositions, record_ids, row_ids, leaf_hashes)
    select $1 + start - 1, leaves, $2, lane,
        (
            select free.layer
            from (select 0 union all select layer + 1 from overlapped where overlapped.lane = given.lane) as free (layer)
            where not exists (select from overlapped where overlapped.lane = given.lane and overlapped.layer = free.layer)
            order by free.layer
            limit 1
        ),
        first_sequence, last_sequence, first_row_id, last_row_id, duplicates, rejected, current_timestamp,
        ($13::bigint[])[start:start + leaves - 1],
        ($14::text[])[start:start + leaves - 1],
        ($15::bigint[])[start:start + leaves - 1],
        case when have_headers then ($16::bytea[])[start:start + leaves - 1] end,
        ($17::bytea[])[start:start + leaves - 1],
        ($18::\"char\"[])[start:start + leaves - 1],
        ($19::text[])[start:start + leaves - 1],
        case when first_row_id is not null then ($20::bigint[])[start:start + leaves - 1] end,
        ($21::bytea[])[start:start + leaves - 1]
    from given
    cross join grown";

/// Writes batches, subtrees, head and positions in one statement, for the others wait until the commit. Says no, and writes no batch,
/// if the head is not the one that was locked, the messages do not follow, or one of them is stored already.
async fn insert_batches(
    connection: &mut PgConnection,
    epoch: Epoch,
    Growth { before, after, completed }: Growth<'_>,
    placed: &[Placed<'_>],
    leaf_hashes: &[Hash],
    follows: Follows<'_>,
) -> Result<bool, sqlx::Error> {
    let moves = follows.moves();
    let incarnation = &placed[0].row.message.incarnation;
    let batches = Batches::of(placed);
    let expected = batches.lanes.len() as u64;
    let messages = || placed.iter().map(|it| &it.row.message);
    let inserted = sqlx::query(INSERT_BATCHES)
        .bind(before.size)
        .bind(epoch.number)
        .bind(batches.lanes)
        .bind(batches.starts)
        .bind(batches.leaves)
        .bind(batches.first_sequences)
        .bind(batches.last_sequences)
        .bind(batches.first_row_ids)
        .bind(batches.last_row_ids)
        .bind(batches.duplicates)
        .bind(batches.rejected)
        .bind(batches.have_headers)
        .bind(messages().map(|message| message.sequence).collect::<Vec<_>>())
        .bind(messages().map(|message| message.subject.as_str()).collect::<Vec<_>>())
        .bind(messages().map(|message| message.server_time_ns).collect::<Vec<_>>())
        .bind(messages().map(|message| message.headers.as_bytes()).collect::<Vec<_>>())
        .bind(messages().map(|message| &message.payload[..]).collect::<Vec<_>>())
        .bind(placed.iter().map(|it| letter_of(it.outcome.disposition())).collect::<Vec<_>>())
        .bind(placed.iter().map(|it| it.outcome.record_id(it.row)).collect::<Vec<_>>())
        .bind(placed.iter().map(|it| it.outcome.row_id()).collect::<Vec<_>>())
        .bind(leaf_hashes.iter().map(|hash| &hash[..]).collect::<Vec<_>>())
        .bind(completed.iter().map(|subtree| subtree.level).collect::<Vec<_>>())
        .bind(completed.iter().map(|subtree| subtree.index).collect::<Vec<_>>())
        .bind(completed.iter().map(|subtree| &subtree.hash[..]).collect::<Vec<_>>())
        .bind(after.size)
        .bind(&after.frontier.root()[..])
        .bind(after.frontier.to_bytes())
        .bind(&*incarnation.stream)
        .bind(incarnation.created_ns)
        .bind(matches!(follows, Follows::NewestEpoch))
        .bind(moves.iter().map(|it| it.claim.lane.prefix()).collect::<Vec<_>>())
        .bind(moves.iter().map(|it| it.claim.fence).collect::<Vec<_>>())
        .bind(moves.iter().map(|it| it.from).collect::<Vec<_>>())
        .bind(moves.iter().map(|it| it.to).collect::<Vec<_>>())
        .bind(before.frontier.to_bytes())
        .execute(connection)
        .await?
        .rows_affected();
    Ok(inserted == expected)
}

/// How a batch stores what became of a message, as PostgreSQL's `"char"`.
const fn letter_of(disposition: Disposition) -> i8 {
    match disposition {
        Disposition::Recorded => b'r'.cast_signed(),
        Disposition::Duplicate => b'd'.cast_signed(),
        Disposition::Rejected => b'x'.cast_signed(),
    }
}

async fn insert_dead_letters(
    connection: &mut PgConnection,
    epoch: Epoch,
    first_leaf_index: i64,
    placed: &[Placed<'_>],
) -> Result<(), sqlx::Error> {
    let mut leaf_indexes = Vec::new();
    let mut reasons = Vec::new();
    let mut details = Vec::new();
    let mut subjects = Vec::new();
    for (it, leaf_index) in placed.iter().zip(first_leaf_index..) {
        if let Some(rejection) = it.outcome.rejection() {
            leaf_indexes.push(leaf_index);
            reasons.push(rejection.reason().code());
            details.push(rejection.detail());
            subjects.push(dlq_subject(&it.row.message, epoch.regressions));
        }
    }
    if leaf_indexes.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into ledger.dead_letter (leaf_index, reason, detail, dlq_subject, rejected_at)
        select leaf_index, reason, detail, dlq_subject, current_timestamp
        from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as new (leaf_index, reason, detail, dlq_subject)",
    )
    .bind(leaf_indexes)
    .bind(reasons)
    .bind(details)
    .bind(subjects)
    .execute(connection)
    .await?;
    Ok(())
}
