//! The statements on `ledger.token_usage`, which project token usage to rows. The days of `public.token_ledger` are
//! summed up under the lock on the tree head (`budget/days.rs`). There, no other commit can come between its usage and
//! its day.

use crate::ingest::custody::RowOutcome;
use crate::ingest::lifecycle::References;
use crate::ingest::projection::{DifferingColumns, Ids, Keyed, RowIds, column, place_keyed};
use crate::postgres::failure::CommitFailure;
use crate::postgres::remedy::DatabaseError;
use crate::record::fields::Amount;
use crate::record::reject::{Reason, Rejection};
use crate::record::token_usage::TokenUsage;
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::HashSet;

struct TokenUsages;

/// A usage whose tier has no rates is refused. Rates never go away again, so none that is stored already is refused so.
pub(crate) async fn place(
    connection: &mut PgConnection,
    usages: &[&TokenUsage],
    references: References,
) -> Result<Vec<Option<RowOutcome<'static>>>, CommitFailure> {
    let missing = missing_rates(connection, usages).await?;
    if let (References::MayFollow, Some(rate)) = (references, missing.iter().min()) {
        let what = format!("rejecting usage for the lack of {rate}");
        return Err(CommitFailure::of_custody(DatabaseError::of_a_reference(what)));
    }
    let mut placed: Vec<Option<RowOutcome<'static>>> = usages.iter().map(|usage| unpriced(usage, &missing)).collect();
    let good: Vec<usize> = (0..usages.len()).filter(|&index| placed[index].is_none()).collect();
    let records: Vec<&TokenUsage> = good.iter().map(|&index| usages[index]).collect();
    for (index, verdict) in good.into_iter().zip(place_keyed::<TokenUsages>(connection, &records).await?) {
        placed[index] = verdict;
    }
    Ok(placed)
}

/// The rates that some usage needs, and that nobody has set.
async fn missing_rates(connection: &mut PgConnection, usages: &[&TokenUsage]) -> Result<HashSet<String>, sqlx::Error> {
    let mut keys: Vec<String> = usages.iter().filter_map(|usage| usage.cost.tier()).flat_map(rate_keys).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let missing: Vec<String> = sqlx::query_scalar(
        "select wanted.key
        from unnest($1::text[]) as wanted (key)
        where not exists (select from public.economic_metrics where metric_key = wanted.key)",
    )
    .bind(keys)
    .fetch_all(connection)
    .await?;
    Ok(missing.into_iter().collect())
}

fn rate_keys(tier: &str) -> [String; 2] {
    ["input", "output"].map(|direction| format!("token_rate_{tier}_{direction}"))
}

fn unpriced(usage: &TokenUsage, missing: &HashSet<String>) -> Option<RowOutcome<'static>> {
    let key = rate_keys(usage.cost.tier()?).into_iter().find(|key| missing.contains(key))?;
    let detail = format!("economic_metrics has no {key}; publish that rate as a METRIC, then this record again");
    Some(RowOutcome::Rejected(Cow::Owned(Rejection::new(Reason::UnknownReference, &detail))))
}

/// No two usages share one: a judged text has no U+0000.
fn key(agent_name: &str, usage_id: &str, usage_id_given: bool) -> String {
    format!("{agent_name}\0{usage_id_given}\0{usage_id}")
}

impl Keyed for TokenUsages {
    type Record = TokenUsage;
    const KEY: &'static str = "usage_id";

    fn shown(usage: &TokenUsage) -> &str {
        &usage.usage_id
    }

    fn key(usage: &TokenUsage) -> String {
        key(&usage.agent_name, &usage.usage_id, usage.usage_id_given)
    }

    async fn insert(connection: &mut PgConnection, usages: &[&TokenUsage], _: Ids) -> Result<RowIds, sqlx::Error> {
        let rows: Vec<(String, String, bool, i64)> = sqlx::query_as(
            "insert into ledger.token_usage
                (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given,
                input_rate_id, output_rate_id, model_tier, model_used, task_id, operation_type, timestamp_text)
            select new.agent_name, new.usage_id, new.usage_id_given, new.date, new.tokens_input, new.tokens_output,
                -- Rates are per 1,000 tokens. A division would round; this product is exact.
                coalesce(new.cost_usd::numeric,
                    (new.tokens_input * input_rate.metric_value + new.tokens_output * output_rate.metric_value) * 0.001),
                new.rate_tier is null, input_rate.id, output_rate.id,
                new.model_tier, new.model_used, new.task_id, new.operation_type, new.timestamp_text
            from unnest($1::text[], $2::text[], $3::bool[], $4::text[]::date[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
                    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[])
                as new (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, rate_tier,
                    model_tier, model_used, task_id, operation_type, timestamp_text, published_ns)
            -- The rate that was published last before the usage; where all came later, the first of them.
            left join lateral (
                select id, metric_value
                from public.economic_metrics as metric
                where metric_key = 'token_rate_' || new.rate_tier || '_input'
                order by ledger.metric_moment(metric) > new.published_ns, abs(ledger.metric_moment(metric) - new.published_ns), id desc
                limit 1
            ) as input_rate on true
            left join lateral (
                select id, metric_value
                from public.economic_metrics as metric
                where metric_key = 'token_rate_' || new.rate_tier || '_output'
                order by ledger.metric_moment(metric) > new.published_ns, abs(ledger.metric_moment(metric) - new.published_ns), id desc
                limit 1
            ) as output_rate on true
            on conflict (agent_name, usage_id, usage_id_given) do nothing
            returning agent_name, usage_id, usage_id_given, id",
        )
        .bind(column(usages, |usage| usage.agent_name.as_str()))
        .bind(column(usages, |usage| usage.usage_id.as_str()))
        .bind(column(usages, |usage| usage.usage_id_given))
        .bind(column(usages, |usage| usage.date.as_str()))
        .bind(column(usages, |usage| usage.tokens_input))
        .bind(column(usages, |usage| usage.tokens_output))
        .bind(column(usages, |usage| usage.cost.given().map(Amount::text)))
        .bind(column(usages, |usage| usage.cost.tier()))
        .bind(column(usages, |usage| usage.model_tier.as_deref()))
        .bind(column(usages, |usage| usage.model_used.as_deref()))
        .bind(column(usages, |usage| usage.task_id.as_deref()))
        .bind(column(usages, |usage| usage.operation_type.as_deref()))
        .bind(column(usages, |usage| usage.timestamp_text()))
        .bind(column(usages, |usage| usage.published_ns))
        .fetch_all(connection)
        .await?;
        Ok(rows.into_iter().map(|(agent, usage_id, given, id)| (key(&agent, &usage_id, given), Some(id))).collect())
    }

    async fn compare(
        connection: &mut PgConnection,
        usages: &[&TokenUsage],
    ) -> Result<Vec<DifferingColumns>, sqlx::Error> {
        sqlx::query_as(
            "select
                again.position,
                array_remove(array[
                    case when stored.tokens_input is distinct from again.tokens_input then 'tokens_input' end,
                    case when stored.tokens_output is distinct from again.tokens_output then 'tokens_output' end,
                    -- A cost that was computed is not compared: the rates may have changed since.
                    case when stored.cost_given is distinct from (again.cost_usd is not null)
                        or again.cost_usd is not null and stored.cost_usd is distinct from again.cost_usd::numeric
                        then 'cost_usd' end,
                    case when stored.model_tier is distinct from again.model_tier then 'model_tier' end,
                    case when stored.model_used is distinct from again.model_used then 'model_used' end,
                    case when stored.task_id is distinct from again.task_id then 'task_id' end,
                    case when stored.operation_type is distinct from again.operation_type then 'operation_type' end,
                    case when stored.timestamp_text is distinct from again.timestamp_text then 'timestamp' end
                ], null)
            from unnest($1::text[], $2::text[], $3::bool[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
                    $9::text[], $10::text[], $11::text[])
                with ordinality
                as again (agent_name, usage_id, usage_id_given, tokens_input, tokens_output, cost_usd, model_tier, model_used,
                    task_id, operation_type, timestamp_text, position)
            join ledger.token_usage as stored
                on (stored.agent_name, stored.usage_id, stored.usage_id_given)
                    = (again.agent_name, again.usage_id, again.usage_id_given)",
        )
        .bind(column(usages, |usage| usage.agent_name.as_str()))
        .bind(column(usages, |usage| usage.usage_id.as_str()))
        .bind(column(usages, |usage| usage.usage_id_given))
        .bind(column(usages, |usage| usage.tokens_input))
        .bind(column(usages, |usage| usage.tokens_output))
        .bind(column(usages, |usage| usage.cost.given().map(Amount::text)))
        .bind(column(usages, |usage| usage.model_tier.as_deref()))
        .bind(column(usages, |usage| usage.model_used.as_deref()))
        .bind(column(usages, |usage| usage.task_id.as_deref()))
        .bind(column(usages, |usage| usage.operation_type.as_deref()))
        .bind(column(usages, |usage| usage.timestamp_text()))
        .fetch_all(connection)
        .await
    }
}
