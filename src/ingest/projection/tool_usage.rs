//! The statements on `ledger.tool_usage`, through which the daemon writes tool uses to `public.tool_usage_ledger`. They
//! also read the registries that a use refers to.

use crate::ingest::custody::RowOutcome;
use crate::ingest::projection::{DifferingColumns, Ids, Keyed, RowIds, column, place_keyed};
use crate::record::fields::Amount;
use crate::record::reject::{Reason, Rejection};
use crate::record::tool_usage::ToolUsage;
use sqlx::PgConnection;
use std::borrow::Cow;

struct ToolUsageLedger;

/// A use whose agent, tool or venture is unknown is refused, unless it is stored already: what it refers to was there once.
pub(crate) async fn place(
    connection: &mut PgConnection,
    usages: &[&ToolUsage],
) -> Result<Vec<Option<RowOutcome<'static>>>, sqlx::Error> {
    let mut placed: Vec<Option<RowOutcome<'static>>> = vec![None; usages.len()];
    for (place, field, id) in dangling(connection, usages).await? {
        let index = usize::try_from(place - 1).expect("ordinality counts from 1");
        let detail = format!("{field} {id} is not in its registry; add it there, then publish this record again");
        placed[index] = Some(RowOutcome::Rejected(Cow::Owned(Rejection::new(Reason::UnknownReference, &detail))));
    }
    let good: Vec<usize> = (0..usages.len()).filter(|&index| placed[index].is_none()).collect();
    let records: Vec<&ToolUsage> = good.iter().map(|&index| usages[index]).collect();
    for (index, verdict) in good.into_iter().zip(place_keyed::<ToolUsageLedger>(connection, &records).await?) {
        placed[index] = verdict;
    }
    Ok(placed)
}

/// For each use that is not stored yet: the first of its references that leads nowhere.
async fn dangling(
    connection: &mut PgConnection,
    usages: &[&ToolUsage],
) -> Result<Vec<(i64, String, String)>, sqlx::Error> {
    sqlx::query_as(
        "select distinct on (new.position) new.position, reference.field, reference.id::text
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[])
            with ordinality
            as new (id, agent_id, tool_id, venture_id, position)
        cross join lateral (values
            (1, 'agent_id', new.agent_id, exists (select from ledger.known_agent as known where known.id = new.agent_id)),
            (2, 'tool_id', new.tool_id, exists (select from ledger.known_tool as known where known.id = new.tool_id)),
            (3, 'venture_id', new.venture_id, exists (select from ledger.known_venture as known where known.id = new.venture_id))
        ) as reference (rank, field, id, is_known)
        where reference.id is not null and not reference.is_known
            and not exists (select from ledger.tool_usage as stored where stored.id = new.id)
        order by new.position, reference.rank",
    )
    .bind(column(usages, |usage| usage.id.as_str()))
    .bind(column(usages, |usage| usage.agent_id.as_str()))
    .bind(column(usages, |usage| usage.tool_id.as_str()))
    .bind(column(usages, |usage| usage.venture_id.as_deref()))
    .fetch_all(connection)
    .await
}

impl Keyed for ToolUsageLedger {
    type Record = ToolUsage;
    const KEY: &'static str = "id";

    fn shown(usage: &ToolUsage) -> &str {
        &usage.id
    }

    fn key(usage: &ToolUsage) -> String {
        usage.id.clone()
    }

    async fn insert(connection: &mut PgConnection, usages: &[&ToolUsage], _: Ids) -> Result<RowIds, sqlx::Error> {
        let ids: Vec<String> = sqlx::query_scalar(
            "insert into ledger.tool_usage
                (id, agent_id, venture_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at)
            select id, agent_id, venture_id, tool_id, tokens_consumed, coalesce(cost_usd::numeric, 0), execution_ms,
                created_at::timestamptz
            from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::bigint[], $8::text[])
                as new (id, agent_id, venture_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at)
            on conflict (id) do nothing
            returning id::text",
        )
        .bind(column(usages, |usage| usage.id.as_str()))
        .bind(column(usages, |usage| usage.agent_id.as_str()))
        .bind(column(usages, |usage| usage.venture_id.as_deref()))
        .bind(column(usages, |usage| usage.tool_id.as_str()))
        .bind(column(usages, |usage| usage.tokens_consumed))
        .bind(column(usages, |usage| usage.cost_usd.as_ref().map(Amount::text)))
        .bind(column(usages, |usage| usage.execution_ms))
        .bind(column(usages, |usage| usage.created_at.as_str()))
        .fetch_all(connection)
        .await?;
        Ok(ids.into_iter().map(|id| (id, None)).collect())
    }

    async fn compare(
        connection: &mut PgConnection,
        usages: &[&ToolUsage],
    ) -> Result<Vec<DifferingColumns>, sqlx::Error> {
        sqlx::query_as(
            "select
                again.position,
                array_remove(array[
                    case when stored.agent_id is distinct from again.agent_id then 'agent_id' end,
                    case when stored.tool_id is distinct from again.tool_id then 'tool_id' end,
                    case when stored.venture_id is distinct from again.venture_id
                        -- A venture that was deleted has left its usage behind.
                        and (stored.venture_id is not null or again.venture_id in (select id from ledger.known_venture))
                        then 'venture_id' end,
                    case when stored.tokens_consumed is distinct from again.tokens_consumed then 'tokens_consumed' end,
                    case when stored.cost_usd is distinct from round(coalesce(again.cost_usd::numeric, 0), 6) then 'cost_usd' end,
                    case when stored.execution_ms is distinct from again.execution_ms then 'execution_ms' end,
                    case when again.created_at_given and stored.created_at is distinct from again.created_at::timestamptz
                        then 'created_at' end
                ], null)
            from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bool[])
                with ordinality
                as again (id, agent_id, venture_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at,
                    created_at_given, position)
            join ledger.tool_usage as stored on stored.id = again.id",
        )
        .bind(column(usages, |usage| usage.id.as_str()))
        .bind(column(usages, |usage| usage.agent_id.as_str()))
        .bind(column(usages, |usage| usage.venture_id.as_deref()))
        .bind(column(usages, |usage| usage.tool_id.as_str()))
        .bind(column(usages, |usage| usage.tokens_consumed))
        .bind(column(usages, |usage| usage.cost_usd.as_ref().map(Amount::text)))
        .bind(column(usages, |usage| usage.execution_ms))
        .bind(column(usages, |usage| usage.created_at.as_str()))
        .bind(column(usages, |usage| usage.created_at_given))
        .fetch_all(connection)
        .await
    }
}

/// A use of any tool by any agent, as large as the rules allow. Without one of each there is nothing that the table could refuse.
pub(crate) async fn insert_a_good_record(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into ledger.tool_usage (id, agent_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at)
        select gen_random_uuid(), agent.id, tool.id, 2147483647, 9999.999999, 2147483647, current_timestamp
        from (select id from ledger.known_agent limit 1) as agent
        cross join (select id from ledger.known_tool limit 1) as tool",
    )
    .execute(connection)
    .await?;
    Ok(())
}
