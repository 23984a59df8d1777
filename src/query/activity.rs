//! How much was committed in the last 24 hours: by outcome, and by lane. Leaves follow each other, so what was committed between two
//! moments is the difference of two leaves, and no entry is read.

use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A quarter of an hour.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct Quarter {
    /// ISO 8601 in UTC.
    pub begins_at: String,
    pub recorded: i64,
    pub duplicates: i64,
    pub rejected: i64,
}

/// A lane's share.
#[derive(Clone, Debug, Default, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct LaneRate {
    /// Entries per minute, over the last five.
    pub per_minute: f64,
    /// Entries in each of the last 24 hours, the newest last. Of a busy hour, from a sample of its commits.
    pub hours: Vec<f64>,
}

/// Commits that are read of each hour.
const SAMPLE_MAX: i64 = 100;
/// The same of the last five minutes.
const NEWEST_MAX: i64 = 1000;
pub(crate) const HOURS: usize = 24;

/// The quarters of the last 24 hours, the newest last and not over yet.
pub(crate) async fn quarters(connection: &mut PgConnection) -> Result<Vec<Quarter>, sqlx::Error> {
    sqlx::query_as(
        "with
        quarter as materialized (
            select at, lead(at) over (order by at) as ends
            from generate_series(-95, 1) as step
            cross join lateral (
                select date_bin('15 minutes', clock_timestamp(), 'epoch') + step * interval '15 minutes' as at
            ) as moment
        ),
        oldest as materialized (select ledger.leaf_at(min(at)) as leaf from quarter),
        edge as materialized (
            select at, leaf, lead(leaf) over (order by at) as next_leaf
            from (select at, ledger.leaf_at(at, oldest.leaf) as leaf from quarter cross join oldest) as placed
        )
        select to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as begins_at,
            next_leaf - leaf - duplicate.entries - rejected.entries as recorded,
            duplicate.entries as duplicates,
            rejected.entries as rejected
        from edge
        cross join lateral (
            select coalesce(sum(duplicates), 0)::bigint as entries
            from ledger.batch
            where duplicates > 0 and first_leaf >= leaf and first_leaf < next_leaf
        ) as duplicate
        cross join lateral (
            select count(*) as entries from ledger.dead_letter where leaf_index >= leaf and leaf_index < next_leaf
        ) as rejected
        where next_leaf is not null
        order by at",
    )
    .fetch_all(connection)
    .await
}

/// The lanes' shares.
pub(crate) async fn lanes(connection: &mut PgConnection) -> Result<BTreeMap<String, LaneRate>, sqlx::Error> {
    let mut rates: BTreeMap<String, LaneRate> = BTreeMap::new();
    let new = || LaneRate { per_minute: 0.0, hours: vec![0.0; HOURS] };
    for (hour, lane, entries) in hours(connection).await? {
        let rate = rates.entry(lane).or_insert_with(new);
        if let Some(place) = usize::try_from(hour).ok().and_then(|hour| rate.hours.get_mut(hour)) {
            *place = entries;
        }
    }
    for (lane, per_minute) in newest(connection).await? {
        rates.entry(lane).or_insert_with(new).per_minute = per_minute;
    }
    Ok(rates)
}

/// How many entries a lane had in an hour: its share of the first commits, and the exact number of all entries of the hour.
async fn hours(connection: &mut PgConnection) -> Result<Vec<(i32, String, f64)>, sqlx::Error> {
    sqlx::query_as(
        "with
        oldest as materialized (
            select now, ledger.leaf_at(now - interval '24 hours') as leaf from (select clock_timestamp() as now) as clock
        ),
        edge as materialized (
            select hour, leaf, lead(leaf) over (order by hour) as next_leaf
            from (
                select hour, ledger.leaf_at(now - (24 - hour) * interval '1 hour', oldest.leaf) as leaf
                from oldest
                cross join generate_series(0, 24) as hour
            ) as placed
        )
        select hour, lane,
            (sum(leaves)::double precision / sum(sum(leaves)) over (partition by hour)::double precision * (next_leaf - leaf))
                as entries
        from edge
        cross join lateral (
            select lane, leaves
            from ledger.batch
            where first_leaf >= edge.leaf and first_leaf < edge.next_leaf
            order by first_leaf
            limit $1
        ) as sampled
        group by hour, lane, leaf, next_leaf",
    )
    .bind(SAMPLE_MAX)
    .fetch_all(connection)
    .await
}

async fn newest(connection: &mut PgConnection) -> Result<Vec<(String, f64)>, sqlx::Error> {
    sqlx::query_as(
        "with
        recent as materialized (select ledger.leaf_at(clock_timestamp() - interval '5 minutes') as leaf),
        size as materialized (select first_leaf + leaves as leaf from ledger.batch order by first_leaf desc limit 1)
        select lane,
            (
                sum(leaves)::double precision / sum(sum(leaves)) over ()::double precision * (size.leaf - recent.leaf) / 5
            ) as per_minute
        from recent
        cross join size
        cross join lateral (
            select lane, leaves from ledger.batch where first_leaf >= recent.leaf order by first_leaf desc limit $1
        ) as sampled
        group by lane, size.leaf, recent.leaf",
    )
    .bind(NEWEST_MAX)
    .fetch_all(connection)
    .await
}
