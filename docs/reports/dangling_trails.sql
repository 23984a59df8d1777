-- Which decision trails refer to a vote that is not there? The event may still be on its way, or have been rejected:
-- `ledgerd dlq list` shows that. A trail without a ledger_ref refers to nothing, and is not listed.
--
--     psql -f docs/reports/dangling_trails.sql

select trail.trail_id, trail.outcome, trail.ledger_ref, trail.created_at,
    coalesce('its action is ' || event.action, 'no such event') as why
from public.decision_trails as trail
left join public.audit_events as event on event.event_id = trail.ledger_ref
where trail.ledger_ref is not null and event.action is distinct from 'VOTE_RECORDED'
order by trail.created_at, trail.id;
