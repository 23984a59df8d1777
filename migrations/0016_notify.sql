-- Webhooks out. What a commit causes is in the ledger already: alerts, dead letters, events with the outcome BLOCKED. A target has a
-- position in each of these sources, and the position moves after the delivery. So nothing is lost, and a commit writes nothing more.

-- What no commit causes: a lane that stands still, a difference that a check found, a gap.
create table ledger.notice (
    -- Without gaps, in the order of the commits: a reader that has seen a number has seen all below it.
    id        bigint      primary key,
    -- What targets ask for: `stall` or `integrity`.
    event     text        not null check (event in ('stall', 'integrity')),
    -- The type of the notification, such as `lane.stalled`.
    type      text        not null,
    -- A lane, or the check that found it.
    subject   text        not null,
    data      jsonb       not null,
    raised_at timestamptz not null default clock_timestamp()
);

-- "What was said last of this lane?"
create index notice_subject on ledger.notice (event, subject, id);

create function ledger.number_notice() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    perform pg_advisory_xact_lock(hashtext('ledger.notice'));
    new.id := (select coalesce(max(id), 0) + 1 from ledger.notice);
    return new;
end
$$;

create trigger numbered before insert on ledger.notice
    for each row execute function ledger.number_notice();
create trigger append_only before update or delete on ledger.notice
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.notice
    for each statement execute function ledger.refuse_change();
alter table ledger.notice enable always trigger numbered;
alter table ledger.notice enable always trigger append_only;
alter table ledger.notice enable always trigger never_truncated;

-- A gap is told by the transaction that records it.
create function ledger.notice_gap() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    insert into ledger.notice (event, type, subject, data)
    values (
        'integrity',
        'integrity.gap',
        new.lane,
        jsonb_build_object(
            'check', 'gap', 'lane', new.lane, 'epoch', new.epoch, 'first_sequence', new.first_sequence, 'last_sequence',
            new.last_sequence, 'detail', new.why
        )
    );
    return null;
end
$$;

create trigger noticed after insert on ledger.gap
    for each row execute function ledger.notice_gap();
alter table ledger.gap enable always trigger noticed;

-- "Which events were blocked after this one?"
create index audit_events_blocked on public.audit_events (id) where outcome = 'BLOCKED';

-- The targets of the settings, and how they fare. Operational like ledger.refusal: no evidence, and rows are updated.
create table ledger.notify_target (
    name            text        primary key,
    -- The rest of the URL may be secret.
    host            text        not null,
    -- A change of the URL enables a target again.
    url_sha256      text        not null,
    events          text[]      not null,
    created_at      timestamptz not null default clock_timestamp(),
    -- No longer in the settings.
    removed_at      timestamptz,
    -- It answered 410 Gone.
    disabled_at     timestamptz,
    -- An operator wants the next attempt at once.
    retry_at        timestamptz,
    -- The instance that delivers, and until when nobody else does.
    leased_by       text,
    leased_until    timestamptz,
    delivered       bigint      not null default 0,
    failed_attempts bigint      not null default 0,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_failure    text
);

-- How far each target was told of each source. Null: it does not ask for the source.
create table ledger.notify_position (
    target text   not null,
    -- `budget` (an id of ledger.budget_alert), `reject` and `blocked` (a leaf), `notice` (an id of ledger.notice).
    source text   not null,
    last   bigint,
    primary key (target, source)
);

-- The last notifications of each target. The daemon uses 500 slots for each; the oldest delivered one makes room for the next.
create table ledger.notification (
    target      text        not null,
    slot        integer     not null,
    source      text        not null,
    number      bigint      not null,
    webhook_id  text        not null,
    type        text        not null,
    occurred_at timestamptz not null,
    -- `delivered`; `waiting`: it is tried again; `failed`: it was given up; `retry`: an operator wants it tried once more.
    state       text        not null check (state in ('delivered', 'waiting', 'failed', 'retry')),
    attempts    integer     not null,
    first_at    timestamptz not null,
    last_at     timestamptz not null,
    -- Of the last attempt: the status and the beginning of the body, or why there was none.
    answer      text        not null,
    took_ms     integer     not null,
    primary key (target, slot)
);
