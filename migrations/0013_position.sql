-- How far each lane is stored, who may store more of it, and what was lost.

-- One name for this ledger, whatever server or database it is moved to: it is in every dump. The consumers bear it, so that two
-- ledgers never share one.
create table ledger.identity (
    only_row boolean primary key default true check (only_row),
    id       uuid    not null default gen_random_uuid()
);

insert into ledger.identity default values;

create trigger append_only before insert or update or delete on ledger.identity
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.identity
    for each statement execute function ledger.refuse_change();
alter table ledger.identity enable always trigger append_only;
alter table ledger.identity enable always trigger never_truncated;

-- Every message of the lane up to `sequence`, as far as the stream held it, is in custody. A commit moves the position in the
-- transaction that stores the rows; the consumer on the server is a cursor that is made anew from here.
create table ledger.position (
    epoch         integer     not null,
    lane          text        not null,
    sequence      bigint      not null default 0 check (sequence >= 0),
    -- Grows with each claim. A commit under an older fence is refused.
    fence         bigint      not null default 0 check (fence >= 0),
    -- The instance that reads the lane. Null: nobody does.
    owner         text,
    -- When the owner last showed that it works, by the database's clock.
    renewed_at    timestamptz not null default clock_timestamp(),
    -- The consumer may have passed over messages above this sequence: nobody relies on the position until they are read again.
    suspect_after bigint      check (suspect_after >= 0),
    primary key (epoch, lane)
) with (fillfactor = 10); -- room for new versions of a row on its own page, so that no index is touched

create function ledger.allow_position_growth() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if new.epoch <> old.epoch or new.lane <> old.lane or new.sequence < old.sequence or new.fence < old.fence then
        raise exception 'the position of % only grows: % under fence % cannot follow % under fence %',
            old.lane, new.sequence, new.fence, old.sequence, old.fence
            using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;

create trigger grows_only before update on ledger.position
    for each row execute function ledger.allow_position_growth();
create trigger append_only before delete on ledger.position
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.position
    for each statement execute function ledger.refuse_change();
alter table ledger.position enable always trigger grows_only;
alter table ledger.position enable always trigger append_only;
alter table ledger.position enable always trigger never_truncated;

-- Sequences that the stream lost before anybody had read them for a lane: what it held there is not in custody.
create table ledger.gap (
    epoch          integer     not null,
    lane           text        not null,
    first_sequence bigint      not null,
    last_sequence  bigint      not null,
    noticed_at     timestamptz not null default current_timestamp,
    why            text        not null,
    primary key (epoch, lane, first_sequence, last_sequence),
    constraint gap_in_order check (first_sequence > 0 and last_sequence >= first_sequence)
);

create trigger append_only before update or delete on ledger.gap
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.gap
    for each statement execute function ledger.refuse_change();
alter table ledger.gap enable always trigger append_only;
alter table ledger.gap enable always trigger never_truncated;

-- Up to here every sequence of an epoch's stream was counted: it is in custody, or the stream has removed it, or it is on no lane. The
-- daemon goes on from here all the time; `ledgerd reconcile` compares message by message.
create table ledger.counted (
    epoch      integer     primary key,
    through    bigint      not null check (through >= 0),
    counted_at timestamptz not null default clock_timestamp()
);

create function ledger.allow_count_growth() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if new.epoch <> old.epoch or new.through < old.through then
        raise exception 'what was counted only grows: % cannot follow %', new.through, old.through
            using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;

create trigger grows_only before update on ledger.counted
    for each row execute function ledger.allow_count_growth();
create trigger append_only before delete on ledger.counted
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.counted
    for each statement execute function ledger.refuse_change();
alter table ledger.counted enable always trigger grows_only;
alter table ledger.counted enable always trigger append_only;
alter table ledger.counted enable always trigger never_truncated;
