-- What the timeline, the stories of tasks and proposals, and the search are asked for. The prices are per row of the table named,
-- and were measured on PostgreSQL 15.

-- "What did this agent do, the newest first, on that day?" 78 bytes an event: agents take turns, so pages split in the middle.
create index audit_events_actor_time on public.audit_events (actor, timestamp, id);

-- "What was blocked, what failed?" Almost everything is a success, and a walk through the newest events finds those. 76 bytes an
-- event that is none.
create index audit_events_outcome_time on public.audit_events (outcome, timestamp, id) where outcome <> 'SUCCESS';

-- "What followed this proposal?" An id is free text of any length, and an index takes no long ones.
create function ledger.proposal_of(details jsonb) returns text
    language sql
    immutable
    parallel safe
return left(details ->> 'proposal_id', 200);

-- The same for the task that a decision trail names.
create function ledger.task_of(proposal jsonb) returns text
    language sql
    immutable
    parallel safe
return left(proposal ->> 'task_id', 200);

create index audit_events_proposal on public.audit_events (ledger.proposal_of(details))
    where ledger.proposal_of(details) is not null;
create index decision_trails_proposal on public.decision_trails (ledger.proposal_of(proposal));
create index decision_trails_task on public.decision_trails (ledger.task_of(proposal));

-- "What did this agent spend, and on what?" 78 bytes a usage. "What was spent on that day?" 30 bytes. "What did this task cost?"
create index token_usage_agent_date on ledger.token_usage (agent_name, date, id);
create index token_usage_date on ledger.token_usage (date, id);
create index token_usage_task on ledger.token_usage (task_id) where task_id is not null;

-- "What came in on this lane before that moment?" One entry for each lane and commit.
create index batch_lane_time on ledger.batch (lane, (server_times_ns[1]), first_leaf);

-- "What was rejected before that moment, and of whom?" The fourth token of its subject is the publisher.
create index dead_letter_time on ledger.dead_letter (rejected_at, leaf_index);
create index dead_letter_actor_time on ledger.dead_letter ((split_part(dlq_subject, '.', 4)), rejected_at, leaf_index);

-- The publisher's header `traceparent` (W3C Trace Context), out of the headers that custody keeps: a line of its own. Null where there
-- is none, or none that is well-formed.
create function ledger.trace_parent(headers bytea) returns text
    language sql
    immutable
    parallel safe
begin atomic
    select found.value
    from (
        select '\015\012'::bytea || headers as lines
        where position('raceparent: '::bytea in headers) > 0
    ) as kept
    cross join lateral (
        select coalesce(
            nullif(position('\015\012traceparent: '::bytea in kept.lines), 0),
            nullif(position('\015\012Traceparent: '::bytea in kept.lines), 0)
        ) as at
    ) as line
    cross join lateral (
        select encode(
            substring(kept.lines from line.at + length('__traceparent: ') for length('00-') + 32 + length('-') + 16 + length('-00')),
            'escape'
        ) as value
    ) as found
    where found.value ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
        and left(found.value, 2) <> 'ff'
        and substring(found.value from 4 for 32) <> repeat('0', 32);
end;

create function ledger.trace_id(headers bytea) returns text
    language sql
    immutable
    parallel safe
return substring(ledger.trace_parent(headers) from 4 for 32);

create function ledger.trace_ids(headers bytea[]) returns text[]
    language sql
    immutable
    parallel safe
begin atomic
    select array_agg(distinct found.id)
    from unnest(headers) as message (headers)
    cross join lateral (select ledger.trace_id(message.headers) as id) as found
    where position('raceparent: '::bytea in message.headers) > 0 and found.id is not null;
end;

-- "Which entries belong to this trace?" A batch whose messages have no such header adds nothing.
create index batch_trace on ledger.batch using gin (ledger.trace_ids(headers)) where headers is not null;

-- The trace of each entry that has one. A condition on anything but `first_leaf` reads all batches: `ledger.entries_by_trace` finds
-- the entries of one trace.
create view ledger.trace as
select
    substring(parent.value from 4 for 32) as trace_id,
    substring(parent.value from 37 for 16) as parent_id,
    entry.leaf_index,
    entry.epoch,
    entry.sequence,
    entry.subject,
    entry.record_id,
    entry.disposition,
    entry.first_leaf
from ledger.entry as entry
cross join lateral ledger.trace_parent(entry.headers) as parent (value)
where entry.headers is not null and parent.value is not null;

create function ledger.entries_by_trace(trace_id text) returns setof ledger.trace
    language sql
    stable
    rows 5
begin atomic
    select trace.*
    from ledger.batch as batch
    cross join lateral (select * from ledger.trace as held where held.first_leaf = batch.first_leaf offset 0) as trace
    where batch.headers is not null
        and ledger.trace_ids(batch.headers) @> array[entries_by_trace.trace_id]
        and trace.trace_id = entries_by_trace.trace_id;
end;
