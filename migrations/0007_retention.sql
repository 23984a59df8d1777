-- Retention: rows past their time leave the active tables, and what left, why, and by whose word stays here for ever.
-- `ledgerd retention` exports days of token_ledger and rows of economic_metrics, reads the archive back, records one audit
-- event, and only then removes. Rows of audit_events and decision_trails leave by the word of the Architect alone.

-- One archived file of rows. Entered once the archive was read back and found whole; settled once, when its rows are gone.
create table ledger.export (
    id              bigint      generated always as identity primary key,
    table_name      text        not null check (table_name in ('token_ledger', 'economic_metrics')),
    -- Everything in it is older than this UTC day.
    cutoff          date        not null,
    row_count       bigint      not null check (row_count > 0),
    first_key       text        not null,
    last_key        text        not null,
    oldest          text        not null,
    newest          text        not null,
    -- The archive's URL, and the file's name below it.
    location        text        not null,
    file            text        not null,
    file_bytes      bigint      not null check (file_bytes > 0),
    file_sha256     bytea       not null check (octet_length(file_sha256) = 32),
    -- The same without its compression: one JSON object per row and line.
    lines_bytes     bigint      not null check (lines_bytes > 0),
    lines_sha256    bytea       not null check (octet_length(lines_sha256) = 32),
    manifest        text        not null,
    manifest_sha256 bytea       not null check (octet_length(manifest_sha256) = 32),
    -- The audit event that records it.
    event_id        text        not null unique,
    exported_at     timestamptz not null default current_timestamp,
    settled_at      timestamptz,
    rows_removed    bigint,
    constraint export_settled_whole check ((settled_at is null) = (rows_removed is null)),
    constraint export_removed_no_more check (rows_removed between 0 and row_count)
);

-- One carried out authorisation to delete from a permanent table.
create table ledger.erasure (
    id            bigint      generated always as identity primary key,
    table_name    text        not null check (table_name in ('audit_events', 'decision_trails')),
    -- The event_id of the DELETION_AUTHORIZED. Each is good for one erasure.
    authorized_by text        not null unique,
    row_count     bigint      not null check (row_count > 0),
    -- The audit event that records it.
    event_id      text        not null unique,
    erased_at     timestamptz not null default current_timestamp
);

-- One row for each row that left.
create table ledger.removal (
    id            bigint      generated always as identity primary key,
    table_name    text        not null,
    -- `agent_name/date` in token_ledger, `id` in economic_metrics, `event_id` in audit_events, `trail_id` in decision_trails.
    row_key       text        not null,
    -- No foreign keys: the trigger below asks for more than they could.
    export_id     bigint,
    erasure_id    bigint,
    removed_at    timestamptz not null default current_timestamp,
    -- SHA-256 of the row's line in the archive.
    line_sha256   bytea       check (octet_length(line_sha256) = 32),
    -- What a day had added up: usage of that day that comes later begins a new row, and the two sums are the whole.
    tokens_input  bigint,
    tokens_output bigint,
    exact_cost    numeric,
    -- The leaf of an erased row's record. Null where custody never had it.
    leaf_index    bigint,
    constraint removal_has_one_reason check (
        export_id is not null and erasure_id is null and line_sha256 is not null and leaf_index is null
            and table_name in ('token_ledger', 'economic_metrics')
        or erasure_id is not null and export_id is null and line_sha256 is null
            and table_name in ('audit_events', 'decision_trails')
    ),
    constraint removal_keeps_sums check (
        table_name = 'token_ledger' and tokens_input is not null and tokens_output is not null and exact_cost is not null
        or table_name <> 'token_ledger' and tokens_input is null and tokens_output is null and exact_cost is null
    )
);

-- "Where is row X?"
create index removal_row on ledger.removal (row_key, table_name);
create index removal_table on ledger.removal (table_name) where erasure_id is not null;
create index removal_erasure on ledger.removal (erasure_id) where erasure_id is not null;

-- An event id of the program's own that no event has yet.
create function ledger.unused_event_id() returns text
    language sql
    volatile
begin atomic
    select candidate.event_id
    from generate_series(0, 1000) as later (ms)
    cross join lateral (
        select 'SYS-ARCHITECT-' || ((extract(epoch from current_timestamp) * 1000)::bigint + later.ms) as event_id
    ) as candidate
    where not exists (select from public.audit_events as taken where taken.event_id = candidate.event_id)
        and not exists (select from ledger.export as taken where taken.event_id = candidate.event_id)
        and not exists (select from ledger.erasure as taken where taken.event_id = candidate.event_id)
    order by later.ms
    limit 1;
end;

-- The rows of economic_metrics that may leave: those from before the day, except
-- * limits and rates that were in force on that day or later, so each that no other had replaced by then;
-- * rates that usage was charged by, which keep its cost explainable.
create function ledger.removable_metrics(before date) returns setof public.economic_metrics
    language sql
    stable
begin atomic
    select metric.*
    from public.economic_metrics as metric
    where metric.created_at < before
        and case
            when starts_with(metric.metric_key, 'daily_limit_') or starts_with(metric.metric_key, 'token_rate_')
                then exists (
                    select
                    from public.economic_metrics as later
                    where later.metric_key = metric.metric_key
                        and (ledger.metric_moment(later), later.id) > (ledger.metric_moment(metric), metric.id)
                        and later.created_at < before
                )
                and metric.id not in (
                    select usage.input_rate_id from ledger.token_usage as usage where usage.input_rate_id is not null
                    union
                    select usage.output_rate_id from ledger.token_usage as usage where usage.output_rate_id is not null
                )
            else true
        end;
end;

-- Whether the audit event of an export is in custody, in the stream that is the program's own.
create function ledger.is_recorded(export_id bigint) returns boolean
    language sql
    stable
begin atomic
    select exists (
        select
        from ledger.export
        join ledger.epoch on epoch.stream = 'ledgerd-retention'
        cross join lateral ledger.entry_by_sequence(epoch.epoch, export.id) as entry
        join public.audit_events as event on event.id = entry.row_id and event.event_id = export.event_id
        where export.id = export_id
            and entry.disposition = 'recorded'
            and entry.record_id = export.event_id
            and event.action = 'RETENTION_EXPORTED'
    );
end;

-- What the specification promises to keep, in days. The configuration may keep rows longer, and nobody shorter.
create function ledger.check_export() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
declare
    days constant integer := case new.table_name when 'token_ledger' then 90 else 365 end;
begin
    if new.cutoff > (current_timestamp at time zone 'UTC')::date - days then
        raise exception '% keeps its rows for % days', new.table_name, days using errcode = 'insufficient_privilege';
    end if;
    if new.settled_at is not null then
        raise exception 'an export is settled when its rows are gone' using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;

create function ledger.allow_only_settling_once() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if old.settled_at is null and new.settled_at is not null
        and to_jsonb(new) - array['settled_at', 'rows_removed'] = to_jsonb(old) - array['settled_at', 'rows_removed']
    then
        return new;
    end if;
    raise exception 'an export is settled once, and is never changed otherwise' using errcode = 'insufficient_privilege';
end
$$;

-- The removals of one statement that nothing entitles to, or that name no row. One question for each reason, so that each is
-- one join and not one look per row.
create function ledger.check_removals() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
declare
    unfounded text;
begin
    select removal.table_name || ' ' || removal.row_key into unfounded
    from new_rows as removal
    where removal.removed_at <> current_timestamp
    limit 1;

    if unfounded is null then
        select 'export ' || named.export_id into unfounded
        from (select distinct export_id, table_name from new_rows where export_id is not null) as named
        where not exists (
            select
            from ledger.export
            where export.id = named.export_id
                and export.table_name = named.table_name
                and export.settled_at is null
                and ledger.is_recorded(export.id)
        )
        limit 1;
    end if;

    if unfounded is null then
        select 'token_ledger ' || removal.row_key into unfounded
        from new_rows as removal
        where removal.table_name = 'token_ledger' and not exists (
            select
            from public.token_ledger as day
            join ledger.export on day.date < export.cutoff
            where export.id = removal.export_id
                and day.agent_name = left(removal.row_key, -11)
                and day.date = right(removal.row_key, 10)::date
                and (coalesce(day.total_tokens_input, 0), coalesce(day.total_tokens_output, 0), day.exact_cost)
                    = (removal.tokens_input, removal.tokens_output, removal.exact_cost)
        )
        limit 1;
    end if;

    if unfounded is null then
        select 'economic_metrics ' || removal.row_key into unfounded
        from new_rows as removal
        where removal.table_name = 'economic_metrics' and not exists (
            select
            from ledger.export
            cross join lateral ledger.removable_metrics(export.cutoff) as metric
            where export.id = removal.export_id and metric.id = removal.row_key::bigint
        )
        limit 1;
    end if;

    if unfounded is null then
        select removal.table_name || ' ' || removal.row_key into unfounded
        from new_rows as removal
        where removal.erasure_id is not null and not exists (
            select
            from ledger.erasure
            join public.audit_events as event on event.event_id = erasure.authorized_by
            -- The Architect's event came on the Architect's subject, and is a leaf.
            join lateral ledger.entry_of_row('audit_events', event.id) as entry on entry.record_id = event.event_id
            where erasure.id = removal.erasure_id
                and erasure.table_name = removal.table_name
                and erasure.erased_at = current_timestamp
                and erasure.row_count = jsonb_array_length(event.details -> 'ids')
                and entry.disposition = 'recorded'
                and entry.subject like 'ledger.%.ARCHITECT'
                and ledger.table_of(entry.subject) = 'audit_events'
                and event.actor = 'ARCHITECT'
                and event.action = 'DELETION_AUTHORIZED'
                and event.outcome = 'APPROVED'
                and event.details ->> 'table' = removal.table_name
                and event.details -> 'ids' ? removal.row_key
        )
        limit 1;
    end if;

    if unfounded is null then
        select removal.table_name || ' ' || removal.row_key into unfounded
        from new_rows as removal
        where removal.table_name = 'audit_events' and not exists (
            select
            from public.audit_events as event
            left join lateral ledger.entry_of_row('audit_events', event.id) as entry
                on entry.record_id = event.event_id and entry.disposition = 'recorded'
            where event.event_id = removal.row_key
                and entry.leaf_index is not distinct from removal.leaf_index
                -- What explains a gap stays.
                and event.action not in ('DELETION_AUTHORIZED', 'RECORDS_DELETED', 'RETENTION_EXPORTED')
        )
        limit 1;
    end if;

    if unfounded is null then
        select removal.table_name || ' ' || removal.row_key into unfounded
        from new_rows as removal
        where removal.table_name = 'decision_trails' and not exists (
            select
            from public.decision_trails as trail
            left join lateral ledger.entry_of_row('decision_trails', trail.id) as entry
                on entry.record_id = trail.trail_id and entry.disposition = 'recorded'
            where trail.trail_id = removal.row_key and entry.leaf_index is not distinct from removal.leaf_index
        )
        limit 1;
    end if;

    if unfounded is null then
        -- All that an authorisation names, and nothing else.
        select 'a part of ' || erasure.authorized_by into unfounded
        from ledger.erasure
        where erasure.id in (select erasure_id from new_rows)
            and erasure.row_count <> (select count(distinct row_key) from ledger.removal where removal.erasure_id = erasure.id)
        limit 1;
    end if;

    if unfounded is not null then
        raise exception 'the ledger is append-only: nothing entitles to the removal of %', unfounded
            using errcode = 'insufficient_privilege';
    end if;
    return null;
end
$$;

-- A removal that removed nothing would excuse a gap that somebody makes later.
create function ledger.check_removed() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if (case new.table_name
        when 'token_ledger' then exists (
            select
            from public.token_ledger
            where agent_name = left(new.row_key, -11) and date = right(new.row_key, 10)::date
        )
        when 'economic_metrics' then exists (select from public.economic_metrics where id = new.row_key::bigint)
        when 'audit_events' then exists (select from public.audit_events where event_id = new.row_key)
        else exists (select from public.decision_trails where trail_id = new.row_key)
    end) then
        raise exception '% % is entered as removed, and is still there', new.table_name, new.row_key
            using errcode = 'insufficient_privilege';
    end if;
    return null;
end
$$;

-- A row leaves in the very transaction that enters its removal. The arguments are the columns of its key.
create function ledger.allow_entered_removal() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
declare
    old_row constant jsonb := to_jsonb(old);
    -- Of type name, as it comes, it would not find the index.
    left_table constant text := tg_table_name;
    key text := old_row ->> tg_argv[0];
begin
    if tg_nargs = 2 then
        key := key || '/' || (old_row ->> tg_argv[1]);
    end if;
    if exists (
        select
        from ledger.removal
        where removal.row_key = key and removal.table_name = left_table and removal.removed_at = current_timestamp
    ) then
        return old;
    end if;
    raise exception 'the ledger is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

-- An erased id stays taken: nothing else may be put in the place of what was erased. Of the definer, so that the daemon
-- needs no further grant.
create function ledger.refuse_erased_ids() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog
as $$
declare
    erased text;
    -- Of type name, as it comes, it would not find the index.
    entered_table constant text := tg_table_name;
begin
    if not exists (select from ledger.removal where removal.table_name = entered_table and removal.erasure_id is not null) then
        return null;
    end if;
    if entered_table = 'audit_events' then
        select new_rows.event_id into erased
        from new_rows
        join ledger.removal on removal.table_name = entered_table and removal.row_key = new_rows.event_id
        limit 1;
    else
        select new_rows.trail_id into erased
        from new_rows
        join ledger.removal on removal.table_name = entered_table and removal.row_key = new_rows.trail_id
        limit 1;
    end if;
    if erased is not null then
        raise exception '% was erased from % by the authority of the Architect, and is not taken again', erased, tg_table_name
            using errcode = 'unique_violation', constraint = tg_table_name || '_erased';
    end if;
    return null;
end
$$;

-- Of an erased record custody gives up the bytes, and keeps everything that its leaf is made of: the one change that a batch may
-- see. Nothing passes but nulls in the places of entries whose removal and hashes this very transaction has entered.
create function ledger.allow_only_erasure() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
declare
    expected  ledger.batch := old;
    given_up  integer;
    unfounded integer;
begin
    expected.payloads := new.payloads;
    expected.headers := new.headers;
    expected.erased := new.erased;
    select count(*), count(*) filter (where not coalesce(is_founded, false)) into given_up, unfounded
    from (
        select
            is_of_a_record
                and new_payload is null
                and new_headers is null
                and exists (
                    select
                    from ledger.erased
                    join ledger.removal on removal.erasure_id = erased.erasure_id
                    where erased.leaf_index = old.first_leaf + position - 1
                        and erased.payload_sha256 = sha256(old_payload)
                        and erased.headers_sha256 is not distinct from sha256(old_headers)
                        and removal.row_key = record_id
                        and removal.removed_at = current_timestamp
                        and removal.table_name = ledger.table_of(subject)
                ) as is_founded
        from (
            select *, disposition in ('r', 'd') as is_of_a_record
            from unnest(
                old.payloads, new.payloads, old.headers, new.headers, old.dispositions, old.record_ids, old.subjects
            ) with ordinality as item (
                old_payload, new_payload, old_headers, new_headers, disposition, record_id, subject, position
            )
        ) as item
        where old_payload is distinct from new_payload or old_headers is distinct from new_headers
    ) as change;
    if given_up > 0 and unfounded = 0 and new.erased = old.erased + given_up and expected *= new then
        return new;
    end if;
    raise exception 'the ledger is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

-- The same bytes with nulls at these places.
create function ledger.without(items bytea[], places integer[]) returns bytea[]
    language plpgsql
    immutable
    strict
    set search_path = pg_catalog
as $$
declare
    place integer;
begin
    foreach place in array places loop
        items[place] := null;
    end loop;
    return items;
end
$$;

-- Hashes of bytes that are still there would excuse their loss later, and so would those of a record that nobody removed.
create function ledger.check_erased() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if not exists (
        select
        from ledger.entry_at(new.leaf_index) as entry
        join ledger.removal on removal.row_key = entry.record_id
        where entry.payload is null
            and entry.headers is null
            and removal.erasure_id = new.erasure_id
            and removal.removed_at = current_timestamp
            and removal.table_name = ledger.table_of(entry.subject)
    ) then
        raise exception 'leaf % is entered as erased, and nothing entitles to it, or its bytes are still there', new.leaf_index
            using errcode = 'insufficient_privilege';
    end if;
    return null;
end
$$;

drop trigger append_only on ledger.batch;
create trigger append_only before delete on ledger.batch
    for each row execute function ledger.refuse_change();
create trigger erased_only before update on ledger.batch
    for each row execute function ledger.allow_only_erasure();
alter table ledger.batch enable always trigger append_only;
alter table ledger.batch enable always trigger erased_only;

create constraint trigger carried_out after insert on ledger.erased
    deferrable initially deferred
    for each row execute function ledger.check_erased();
alter table ledger.erased enable always trigger carried_out;

drop trigger append_only on public.token_ledger;
create trigger removed_only before delete on public.token_ledger
    for each row execute function ledger.allow_entered_removal('agent_name', 'date');
alter table public.token_ledger enable always trigger removed_only;

drop trigger append_only on public.economic_metrics;
create trigger append_only before update on public.economic_metrics
    for each row execute function ledger.refuse_change();
create trigger removed_only before delete on public.economic_metrics
    for each row execute function ledger.allow_entered_removal('id');
alter table public.economic_metrics enable always trigger append_only;
alter table public.economic_metrics enable always trigger removed_only;

drop trigger append_only on public.audit_events;
create trigger append_only before update on public.audit_events
    for each row execute function ledger.refuse_change();
create trigger removed_only before delete on public.audit_events
    for each row execute function ledger.allow_entered_removal('event_id');
create trigger erased_stay_erased after insert on public.audit_events
    referencing new table as new_rows
    for each statement execute function ledger.refuse_erased_ids();
alter table public.audit_events enable always trigger append_only;
alter table public.audit_events enable always trigger removed_only;
alter table public.audit_events enable always trigger erased_stay_erased;

drop trigger append_only on public.decision_trails;
create trigger append_only before update on public.decision_trails
    for each row execute function ledger.refuse_change();
create trigger removed_only before delete on public.decision_trails
    for each row execute function ledger.allow_entered_removal('trail_id');
create trigger erased_stay_erased after insert on public.decision_trails
    referencing new table as new_rows
    for each statement execute function ledger.refuse_erased_ids();
alter table public.decision_trails enable always trigger append_only;
alter table public.decision_trails enable always trigger removed_only;
alter table public.decision_trails enable always trigger erased_stay_erased;

create trigger kept_its_time before insert on ledger.export
    for each row execute function ledger.check_export();
create trigger settled_once before update on ledger.export
    for each row execute function ledger.allow_only_settling_once();
create trigger append_only before delete on ledger.export
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.export
    for each statement execute function ledger.refuse_change();
alter table ledger.export enable always trigger kept_its_time;
alter table ledger.export enable always trigger settled_once;
alter table ledger.export enable always trigger append_only;
alter table ledger.export enable always trigger never_truncated;

create trigger append_only before update or delete on ledger.erasure
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.erasure
    for each statement execute function ledger.refuse_change();
alter table ledger.erasure enable always trigger append_only;
alter table ledger.erasure enable always trigger never_truncated;

create trigger entitled after insert on ledger.removal
    referencing new table as new_rows
    for each statement execute function ledger.check_removals();
create constraint trigger carried_out after insert on ledger.removal
    deferrable initially deferred
    for each row execute function ledger.check_removed();
create trigger append_only before update or delete on ledger.removal
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.removal
    for each statement execute function ledger.refuse_change();
alter table ledger.removal enable always trigger entitled;
alter table ledger.removal enable always trigger carried_out;
alter table ledger.removal enable always trigger append_only;
alter table ledger.removal enable always trigger never_truncated;
