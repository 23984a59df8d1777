-- LDG-002, table 3. `id` is BIGINT, as in audit_events.
create table public.decision_trails (
    id           bigint       generated always as identity primary key,
    trail_id     varchar(255) not null,
    council_vote jsonb        not null,
    proposal     jsonb        not null,
    outcome      varchar(20)  not null,
    -- The event_id of a VOTE_RECORDED, which may arrive later: so no foreign key, and `ledgerd verify` lists what dangles.
    ledger_ref   varchar(255),
    created_at   timestamp    default (current_timestamp at time zone 'UTC'),
    constraint decision_trails_trail_id_key unique (trail_id)
);

create trigger append_only before update or delete on public.decision_trails
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on public.decision_trails
    for each statement execute function ledger.refuse_change();
alter table public.decision_trails enable always trigger append_only;
alter table public.decision_trails enable always trigger never_truncated;
