//! Checks that the other four tables say what was published. Each question names what is wrong, and a good ledger answers none.

use super::ledger::Faults;
use sqlx::postgres::PgConnection;

/// The recorded entries of a lane, with their payloads as JSON.
const RECORDED: &str = "
    select sequence, row_id, record_id, convert_from(payload, 'UTF8')::jsonb as said, split_part(subject, '.', 3) as actor
    from ledger.entry
    where disposition = 'recorded' and subject like 'ledger.LANE.%'";

/// What each lane's records must be in its table, and that nothing else is there.
const QUESTIONS: [(&str, &str); 9] = [
    (
        "TOKENS",
        "select 'usage ' || coalesce(record_id, u.usage_id) || ' is not what was published'
        from entry full join ledger.token_usage as u on u.id = row_id
        where (u.agent_name, u.tokens_input, u.tokens_output, u.cost_given, u.usage_id)
            is distinct from (said ->> 'agent_name', (said ->> 'tokens_input')::numeric, (said ->> 'tokens_output')::numeric,
                said ->> 'cost_usd' is not null, record_id)
            or u.cost_given and u.cost_usd is distinct from (said ->> 'cost_usd')::numeric
            or u.usage_id_given is distinct from (said ->> 'usage_id' is not null)
            or (u.model_used, u.model_tier, u.task_id, u.operation_type, u.timestamp_text) is distinct from
                (said ->> 'model_used', said ->> 'model_tier', said ->> 'task_id', said ->> 'operation_type', said ->> 'timestamp')",
    ),
    (
        "TOKENS",
        "select 'the cost of usage ' || u.usage_id || ' is not its rates'''
        from ledger.token_usage as u
        left join economic_metrics as input on input.id = input_rate_id
        left join economic_metrics as output on output.id = output_rate_id
        where not cost_given and cost_usd is distinct from
            tokens_input * input.metric_value / 1000 + tokens_output * output.metric_value / 1000",
    ),
    (
        "TOKENS",
        "select 'the day ' || agent_name || ' ' || date || ' is not the sum of its usage'
        from (
            select agent_name, date, sum(tokens_input) as input, sum(tokens_output) as output, sum(cost_usd) as cost
            from ledger.token_usage group by agent_name, date
        ) as sums
        full join token_ledger as day using (agent_name, date)
        where (input, output, cost, round(cost, 4)) is distinct from
            (total_tokens_input, total_tokens_output, exact_cost, total_cost)",
    ),
    (
        "TRAIL",
        "select 'trail ' || coalesce(record_id, t.trail_id) || ' is not what was published'
        from entry full join decision_trails as t on t.id = row_id
        where (t.trail_id, t.trail_id, t.council_vote, t.proposal, t.outcome, t.ledger_ref) is distinct from
            (record_id, said ->> 'trail_id', said -> 'council_vote', said -> 'proposal', said ->> 'outcome', said ->> 'ledger_ref')",
    ),
    (
        "METRIC",
        "select 'metric ' || coalesce(record_id, m.metric_key) || ' is not what was published'
        from entry full join economic_metrics as m on m.id = row_id
        where (m.metric_key, m.metric_key, m.metric_value, m.set_by) is distinct from
            (record_id, said ->> 'metric_key', (said ->> 'metric_value')::numeric, actor)",
    ),
    (
        "USAGE",
        "select 'tool usage ' || coalesce(record_id, u.id::text) || ' is not what was published'
        from entry full join tool_usage_ledger as u on u.id::text = record_id
        where (u.agent_id::text, u.tool_id::text, u.tokens_consumed, u.cost_usd, u.execution_ms) is distinct from
            (said ->> 'agent_id', said ->> 'tool_id', coalesce((said ->> 'tokens_consumed')::numeric, 0),
                round(coalesce((said ->> 'cost_usd')::numeric, 0), 6), (said ->> 'execution_ms')::numeric)
            or u.venture_id is not null and u.venture_id::text is distinct from said ->> 'venture_id'
            or said ->> 'created_at' is not null and u.created_at is distinct from (said ->> 'created_at')::timestamptz",
    ),
    ("TOKENS", "select 'entry ' || sequence || ' names a row that another names' from entry where (select count(*) from entry as e where e.row_id = entry.row_id) > 1"),
    ("TRAIL", "select 'entry ' || sequence || ' names a row that another names' from entry where (select count(*) from entry as e where e.row_id = entry.row_id) > 1"),
    ("METRIC", "select 'entry ' || sequence || ' names a row that another names' from entry where (select count(*) from entry as e where e.row_id = entry.row_id) > 1"),
];

/// Compares each of the four tables with custody.
pub(super) async fn check_tables(connection: &mut PgConnection, faults: &mut Faults) -> Result<(), sqlx::Error> {
    for (lane, question) in QUESTIONS {
        let statement = format!("with entry as ({}) {question}", RECORDED.replace("LANE", lane));
        let wrong: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(&mut *connection).await?;
        for fault in wrong {
            faults.unless(false, || fault);
        }
    }
    Ok(())
}
