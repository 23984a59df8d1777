-- What operators decided about dead letters: to publish one again, or to let it rest. The dead letter and its entry stay as
-- they are. A decision is recorded before it is carried out, so that one that was cut short is finished and not made twice.

-- The id of a message that a requeue published, out of the headers that custody keeps of it: a line of its own, for the id of
-- an earlier requeue may stand in another's value. As bytes, which headers may be any.
create function ledger.requeue_id(headers bytea) returns bytea
    language sql
    immutable
begin atomic
    select substring(
        headers from nullif(position('\015\012Nats-Msg-Id: requeue-'::bytea in headers), 0) + length('__Nats-Msg-Id: ')
        for length('requeue-00000000-0000-0000-0000-000000000000')
    );
end;

create function ledger.requeue_ids(headers bytea[]) returns bytea[]
    language sql
    immutable
begin atomic
    select array_agg(found.id)
    from unnest(headers) as message (headers)
    cross join lateral ledger.requeue_id(message.headers) as found (id)
    where found.id is not null;
end;

-- "Did the requeued message arrive?" and "which dead letter did this one come from?"
create index batch_requeue_id on ledger.batch using gin (ledger.requeue_ids(headers)) where headers is not null;

-- The entries of the messages that a requeue published under this id: of one, unless a replay has read it again in another epoch.
create function ledger.entries_by_requeue(message_id text) returns setof ledger.entry
    language sql
    stable
    rows 1
begin atomic
    select entry.*
    from ledger.batch as batch
    cross join lateral (select * from ledger.entry as held where held.first_leaf = batch.first_leaf offset 0) as entry
    where batch.headers is not null
        and ledger.requeue_ids(batch.headers) @> array[convert_to(entries_by_requeue.message_id, 'UTF8')]
        and ledger.requeue_id(entry.headers) = convert_to(entries_by_requeue.message_id, 'UTF8');
end;

create table ledger.resolution (
    id                bigint      generated always as identity primary key,
    -- The dead letter.
    leaf_index        bigint      not null,
    -- Counts the decisions about it from 1: who decides on what is no longer so is refused.
    round             integer     not null check (round > 0),
    action            text        not null check (action in ('REQUEUED', 'DISCARDED')),
    decided_by        text        not null check (decided_by <> ''),
    why               text,
    -- What is published in place of the original bytes. Null: these.
    replacement       bytea,
    -- Where the stream stood at the decision: the message, if it was published, comes later.
    stream            text,
    stream_created_ns bigint,
    after_sequence    bigint,
    -- Drawn here, so nobody else can have published under it before.
    message_id        text        unique,
    -- The audit event that records it.
    event_id          text        not null unique,
    decided_at        timestamptz not null default current_timestamp,
    -- Where the message is in the stream. Set once.
    settled_at        timestamptz,
    new_created_ns    bigint,
    new_sequence      bigint,
    constraint resolution_round_key unique (leaf_index, round),
    constraint resolution_requeue_whole check (
        case action
            when 'REQUEUED' then num_nulls(stream, stream_created_ns, after_sequence, message_id) = 0
            else num_nonnulls(replacement, stream, stream_created_ns, after_sequence, message_id, settled_at) = 0
        end
    ),
    constraint resolution_reason_given check (why <> '' or why is null and action = 'REQUEUED' and replacement is null),
    constraint resolution_settled_whole check (num_nulls(settled_at, new_created_ns, new_sequence) in (0, 3))
);

-- What was begun is finished before anything else is decided about the letter.
create unique index resolution_unfinished on ledger.resolution (leaf_index) where action = 'REQUEUED' and settled_at is null;

create function ledger.allow_settling_a_resolution_once() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
declare
    settled constant text[] := array['settled_at', 'new_created_ns', 'new_sequence'];
begin
    if old.settled_at is null and new.settled_at is not null and to_jsonb(new) - settled = to_jsonb(old) - settled then
        return new;
    end if;
    raise exception 'a decision about a dead letter is settled once, and is never changed otherwise'
        using errcode = 'insufficient_privilege';
end
$$;

create trigger settled_once before update on ledger.resolution
    for each row execute function ledger.allow_settling_a_resolution_once();
create trigger append_only before delete on ledger.resolution
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.resolution
    for each statement execute function ledger.refuse_change();
alter table ledger.resolution enable always trigger settled_once;
alter table ledger.resolution enable always trigger append_only;
alter table ledger.resolution enable always trigger never_truncated;
