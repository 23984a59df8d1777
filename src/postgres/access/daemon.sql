-- What the daemon may do, and no more: `ledgerd migrate` grants it, and `ledgerd check` compares with it.
--
-- Columns are named where the whole row would be too much: ids are the database's to give (a writer of the whole row sets
-- them with OVERRIDING SYSTEM VALUE or COPY), and nothing is born published.
select schema, name, privilege, columns::text[]
from (
    values
        ('ledger', 'epoch', 'INSERT', '{stream, stream_created_ns, regressions}'),
        ('ledger', 'batch', 'INSERT', null),
        ('ledger', 'subtree', 'INSERT', null),
        ('ledger', 'position', 'INSERT', '{epoch, lane, sequence}'),
        ('ledger', 'position', 'UPDATE', '{sequence, fence, owner, renewed_at, suspect_after}'),
        ('ledger', 'counted', 'INSERT', '{epoch, through, counted_at}'),
        ('ledger', 'counted', 'UPDATE', '{through, counted_at}'),
        ('ledger', 'gap', 'INSERT', '{epoch, lane, first_sequence, last_sequence, why}'),
        ('ledger', 'tree_head', 'UPDATE', '{size, root, frontier}'),
        ('ledger', 'dead_letter', 'INSERT', '{leaf_index, reason, detail, dlq_subject, rejected_at}'),
        ('ledger', 'dead_letter', 'UPDATE', '{published_at}'),
        ('ledger', 'resolution', 'INSERT', '{leaf_index, round, action, decided_by, why, replacement, stream, '
            'stream_created_ns, after_sequence, message_id, event_id}'),
        ('ledger', 'resolution', 'UPDATE', '{settled_at, new_created_ns, new_sequence}'),

        ('public', 'audit_events', 'SELECT', null),
        ('public', 'audit_events', 'INSERT', '{event_id, actor, action, outcome, details, task_id, timestamp, '
            'integrity_hash, created_at, timestamp_text}'),
        ('public', 'audit_events_integrity', 'SELECT', null),

        ('public', 'token_ledger', 'SELECT', null),
        ('public', 'token_ledger', 'INSERT', null),
        ('public', 'token_ledger', 'UPDATE', '{total_tokens_input, total_tokens_output, total_cost, last_updated, '
            'budget_status, exact_cost, budget_group}'),
        ('ledger', 'token_usage', 'INSERT', '{agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, '
            'cost_usd, cost_given, input_rate_id, output_rate_id, model_tier, model_used, task_id, operation_type, '
            'timestamp_text}'),
        ('ledger', 'budget_alert', 'INSERT', '{agent_name, date, old_status, new_status, spent_usd, limit_usd, '
            'limit_key, raised_at}'),
        ('ledger', 'budget_alert', 'UPDATE', '{published_at}'),

        ('public', 'decision_trails', 'SELECT', null),
        ('public', 'decision_trails', 'INSERT', '{trail_id, council_vote, proposal, outcome, ledger_ref}'),

        ('public', 'economic_metrics', 'SELECT', null),
        ('public', 'economic_metrics', 'INSERT', '{metric_key, metric_value, period, set_by, published_ns}'),

        ('ledger', 'checkpoint', 'INSERT', '{origin, tree_size, root, note}'),
        ('ledger', 'cosignature', 'INSERT', '{origin, tree_size, witness, line}'),

        ('ledger', 'reconciled', 'INSERT', '{epoch, first_sequence, last_sequence, entries, expired, deleted, on_no_lane}'),

        -- `ledgerd verify` and `ledgerd reconcile` run with this login.
        ('ledger', 'run', 'INSERT', '{what, scope, started_at, ended_at, entries, findings, summary, program_version}'),

        -- For the operator, and no evidence: rows are replaced, and none is deleted.
        ('ledger', 'refusal', 'INSERT', null),
        ('ledger', 'refusal', 'UPDATE', '{status, webhook, address, calls, first_at, last_at}'),

        -- Webhooks out: notices are append-only, the others are for the operator, and none is deleted.
        ('ledger', 'notice', 'INSERT', '{event, type, subject, data}'),
        ('ledger', 'notify_target', 'INSERT', '{name, host, url_sha256, events}'),
        ('ledger', 'notify_target', 'UPDATE', '{host, url_sha256, events, removed_at, disabled_at, retry_at, leased_by, '
            'leased_until, delivered, failed_attempts, last_success_at, last_failure_at, last_failure}'),
        ('ledger', 'notify_position', 'INSERT', null),
        ('ledger', 'notify_position', 'UPDATE', '{last}'),
        ('ledger', 'notification', 'INSERT', null),
        ('ledger', 'notification', 'UPDATE', '{source, number, webhook_id, type, occurred_at, state, attempts, first_at, '
            'last_at, answer, took_ms}'),

        -- Through the view alone: the table and its policies know nothing of the daemon.
        ('ledger', 'tool_usage', 'INSERT', null)
) as written (schema, name, privilege, columns)

union all

-- It reads all of its own schema.
select schema, name, 'SELECT', null
from (:relations) as relation
where schema = 'ledger'
