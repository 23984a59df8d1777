-- LDG-002, table 1. Departures from the specification's text, each for a reason it gives itself:
-- * `id` is BIGINT: the ledger is permanent, and SERIAL ends at 2^31;
-- * `outcome` holds 32 characters: DENIED_NEEDS_ARCHITECT has 22;
-- * `timestamp_text` keeps the text that the hash covers: TIMESTAMP forgets digits, zone and format.
create table public.audit_events (
    id             bigint       generated always as identity primary key,
    event_id       varchar(255) not null,
    actor          varchar(50)  not null,
    action         text         not null,
    outcome        varchar(32)  not null,
    details        jsonb,
    task_id        varchar(255),
    timestamp      timestamp    not null,
    integrity_hash varchar(64)  not null,
    created_at     timestamp    not null default (current_timestamp at time zone 'UTC'),
    timestamp_text text         not null,
    constraint audit_events_event_id_key unique (event_id)
);

create index idx_actor on public.audit_events (actor);
create index idx_outcome on public.audit_events (outcome);
create index idx_timestamp on public.audit_events (timestamp);
create index idx_task_id on public.audit_events (task_id);

create trigger append_only before update or delete on public.audit_events
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on public.audit_events
    for each statement execute function ledger.refuse_change();
alter table public.audit_events enable always trigger append_only;
alter table public.audit_events enable always trigger never_truncated;

-- The specification's integrity check in plain SQL: any row where `intact` is false was changed after it was stored.
create view public.audit_events_integrity as
select
    id,
    event_id,
    timestamp,
    integrity_hash,
    hashed.computed_hash,
    integrity_hash = hashed.computed_hash as intact
from public.audit_events
cross join lateral (
    select encode(
        sha256(convert_to(concat(event_id, actor, action, outcome, timestamp_text), 'UTF8')),
        'hex'
    ) as computed_hash
) as hashed;
