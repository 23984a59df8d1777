//! The statements on `public.decision_trails`, which project council votes to rows.

use crate::ingest::projection::{DifferingColumns, Ids, Keyed, RowIds, column};
use crate::record::trail::Trail;
use sqlx::PgConnection;

pub(crate) struct DecisionTrails;

impl Keyed for DecisionTrails {
    type Record = Trail;
    const KEY: &'static str = "trail_id";

    fn shown(trail: &Trail) -> &str {
        &trail.trail_id
    }

    fn key(trail: &Trail) -> String {
        trail.trail_id.clone()
    }

    async fn insert(connection: &mut PgConnection, trails: &[&Trail], _: Ids) -> Result<RowIds, sqlx::Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "insert into public.decision_trails (trail_id, council_vote, proposal, outcome, ledger_ref)
            select trail_id, council_vote::jsonb, proposal::jsonb, outcome, ledger_ref
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
                as new (trail_id, council_vote, proposal, outcome, ledger_ref)
            on conflict (trail_id) do nothing
            returning trail_id, id",
        )
        .bind(column(trails, |trail| trail.trail_id.as_str()))
        .bind(column(trails, |trail| trail.council_vote.as_str()))
        .bind(column(trails, |trail| trail.proposal.as_str()))
        .bind(column(trails, |trail| trail.outcome.as_str()))
        .bind(column(trails, |trail| trail.ledger_ref.as_deref()))
        .fetch_all(connection)
        .await?;
        Ok(rows.into_iter().map(|(trail_id, id)| (trail_id, Some(id))).collect())
    }

    async fn compare(connection: &mut PgConnection, trails: &[&Trail]) -> Result<Vec<DifferingColumns>, sqlx::Error> {
        sqlx::query_as(
            "select
                again.position,
                array_remove(array[
                    case when stored.council_vote is distinct from again.council_vote::jsonb then 'council_vote' end,
                    case when stored.proposal is distinct from again.proposal::jsonb then 'proposal' end,
                    case when stored.outcome is distinct from again.outcome then 'outcome' end,
                    case when stored.ledger_ref is distinct from again.ledger_ref then 'ledger_ref' end
                ], null)
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
                with ordinality
                as again (trail_id, council_vote, proposal, outcome, ledger_ref, position)
            join public.decision_trails as stored on stored.trail_id = again.trail_id",
        )
        .bind(column(trails, |trail| trail.trail_id.as_str()))
        .bind(column(trails, |trail| trail.council_vote.as_str()))
        .bind(column(trails, |trail| trail.proposal.as_str()))
        .bind(column(trails, |trail| trail.outcome.as_str()))
        .bind(column(trails, |trail| trail.ledger_ref.as_deref()))
        .fetch_all(connection)
        .await
    }
}

/// The newest row's own values, under a new id as long as the specification allows.
pub(crate) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into public.decision_trails (trail_id, council_vote, proposal, outcome, ledger_ref)
        select
            rpad('probe-' || gen_random_uuid(), 255, '-'),
            coalesce(newest.council_vote, '{}'),
            coalesce(newest.proposal, '{}'),
            'APPROVED',
            rpad('probe-', 255, '-')
        from (values (1)) as always_one_row
        left join (select * from public.decision_trails order by id desc limit 1) as newest on true",
    )
    .execute(connection)
    .await?;
    Ok(())
}
