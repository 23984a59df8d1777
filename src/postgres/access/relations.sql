-- The ledger's relations: all of schema ledger, and those that stand in schema public under the specification's names.
select relation.oid, relation.relkind, relation.relowner, namespace.nspname as schema, relation.relname as name
from pg_catalog.pg_class as relation
join pg_catalog.pg_namespace as namespace on namespace.oid = relation.relnamespace
where relation.relkind in ('r', 'p', 'v', 'm')
    and (
        namespace.nspname = 'ledger'
        or namespace.nspname = 'public'
            and relation.relname in (
                'audit_events',
                'audit_events_integrity',
                'token_ledger',
                'decision_trails',
                'economic_metrics',
                'tool_usage_ledger'
            )
    )
