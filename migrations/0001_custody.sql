-- Custody: each message that was taken from a stream is one row here, whatever its lane and its fate.
-- The tables of the specification (schema public) are typed projections of these rows, written in the same transaction.

-- One incarnation of a stream. A stream that is deleted and made anew starts again at sequence 1,
-- so a sequence means something only together with its epoch.
create table ledger.epoch (
    epoch             integer     generated always as identity primary key,
    stream            text        not null,
    -- When the server made the stream, in nanoseconds since 1970.
    stream_created_ns bigint      not null,
    -- Counts the times that a stream went back to a sequence it had already used (a store restored from a backup).
    regressions       integer     not null default 0 check (regressions >= 0),
    opened_at         timestamptz not null default now(),
    constraint epoch_identity_key unique (stream, stream_created_ns, regressions)
);

-- Custody itself: one row for each lane and commit, with a place in each array for each message. One row per message would cost
-- seven times the room: here what the messages of a lane have in common is compressed away, and an index has one entry per commit.
-- People read the view ledger.entry, one line per message. A batch is bounded as its commit is: by pipeline.batch_messages_max, by
-- pipeline.batch_bytes_max (64 MiB at most) and one message beyond it, far below the gigabyte that an array may have.
create table ledger.batch (
    -- The leaf of the first message; the others follow. Leaves are contiguous from 0 and assigned under the lock on ledger.tree_head.
    first_leaf      bigint      primary key check (first_leaf >= 0),
    -- How many messages.
    leaves          integer     not null check (leaves > 0),
    -- No foreign key: epochs are never removed, and a check per row would slow every commit.
    epoch           integer     not null,
    -- The second token of the subjects.
    lane            text        collate "C" not null,
    -- Within a layer of a lane no ranges overlap, neither of sequences nor of rows: so each is found by one step in an index. What
    -- is stored in order is of layer 0; what fills a hole, or overtakes another commit, is of the lowest layer that has room for it.
    layer           smallint    not null check (layer >= 0),
    first_sequence  bigint      not null,
    last_sequence   bigint      not null,
    -- The least and the greatest of row_ids. Null where no message made a row that has a number.
    first_row_id    bigint,
    last_row_id     bigint,
    -- How many messages had these ends.
    duplicates      integer     not null check (duplicates >= 0),
    rejected        integer     not null check (rejected >= 0),
    -- How many gave up their bytes by the authority of the Architect: see ledger.erased.
    erased          integer     not null default 0 check (erased >= 0),
    committed_at    timestamptz not null,
    -- Ascending.
    sequences       bigint[]    not null,
    subjects        text[]      not null,
    -- When the server stored the message, in nanoseconds since 1970 (timestamptz would forget the last three digits).
    server_times_ns bigint[]    not null,
    -- The publisher's headers, as sorted `Name: value` lines, or the raw block where it could not be parsed. Null where the
    -- publisher set none, and altogether where nobody did.
    headers         bytea[],
    -- The publisher's bytes.
    payloads        bytea[]     not null,
    -- r recorded, d duplicate, x rejected.
    dispositions    "char"[]    not null check (dispositions <@ array['r', 'd', 'x']::"char"[]),
    -- The record's own name (for an audit event its event_id). Null where a reject had none that could be read.
    record_ids      text[]      not null,
    -- The row of the projection that the message made. Null where it made none that has a number, and altogether where nobody did.
    row_ids         bigint[],
    leaf_hashes     bytea[]     not null,
    constraint batch_whole check (
        cardinality(sequences) = leaves
        and cardinality(subjects) = leaves
        and cardinality(server_times_ns) = leaves
        and coalesce(cardinality(headers), leaves) = leaves
        and cardinality(payloads) = leaves
        and cardinality(dispositions) = leaves
        and cardinality(record_ids) = leaves
        and coalesce(cardinality(row_ids), leaves) = leaves
        and cardinality(leaf_hashes) = leaves
    ),
    constraint batch_payloads_kept check (leaves - cardinality(array_remove(payloads, null)) = erased),
    constraint batch_range check (
        first_sequence = sequences[1] and last_sequence = sequences[leaves] and first_sequence <= last_sequence
        and (first_row_id is null) = (row_ids is null) and (last_row_id is null) = (row_ids is null) and first_row_id <= last_row_id
    )
);

-- "Which batch holds this sequence?" In each layer, the last one that begins at or before it.
create unique index batch_sequence on ledger.batch (epoch, lane, layer, first_sequence);
-- "Which batch made this row?"
create unique index batch_row on ledger.batch (lane, layer, first_row_id) where first_row_id is not null;

do $$
declare
    stored text;
begin
    -- Hashes cannot be compressed; everything else can, and lz4 takes a fraction of the time where the server was built with it.
    alter table ledger.batch alter column leaf_hashes set storage external;
    if (select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression') then
        for stored in
            select attname
            from pg_attribute
            where attrelid = 'ledger.batch'::regclass and attnum > 0 and attstorage = 'x'
        loop
            execute format('alter table ledger.batch alter column %I set compression lz4', stored);
        end loop;
    end if;
end
$$;

-- What the leaf needs of bytes that were given up by the authority of the Architect (see migration 7).
create table ledger.erased (
    leaf_index     bigint primary key,
    erasure_id     bigint not null,
    payload_sha256 bytea  not null check (octet_length(payload_sha256) = 32),
    -- Null where there were no headers.
    headers_sha256 bytea  check (octet_length(headers_sha256) = 32)
);

-- The reason of each reject. Everything here is fixed at the commit, except that `published_at` is set once.
create table ledger.dead_letter (
    leaf_index   bigint      primary key,
    reason       text        not null,
    detail       text        not null,
    -- Where the outbox publishes it; one subject for each reject, so that the server refuses a second copy.
    dlq_subject  text        not null unique,
    rejected_at  timestamptz not null,
    published_at timestamptz
);

-- The outbox's queue.
create index dead_letter_unpublished on ledger.dead_letter (leaf_index) where published_at is null;

-- The complete subtrees of 256^level leaves: the full tiles of c2sp.org/tlog-tiles, as one hash each.
create table ledger.subtree (
    level smallint not null check (level > 0),
    index bigint   not null check (index >= 0),
    hash  bytea    not null check (octet_length(hash) = 32),
    primary key (level, index)
);

-- The tree's head: the one row that every commit locks, and the only one that changes.
create table ledger.tree_head (
    only_row boolean primary key default true check (only_row),
    size     bigint  not null check (size >= 0),
    root     bytea   not null check (octet_length(root) = 32),
    -- The roots of the perfect subtrees that cover the leaves, largest first: what an append needs to go on.
    frontier bytea   not null check (octet_length(frontier) % 32 = 0)
) with (fillfactor = 10); -- room for new versions of the row on its own page, so that no index is touched

-- The empty tree: its root is SHA-256 of nothing (RFC 6962 §2.1).
insert into ledger.tree_head (size, root, frontier) values (0, sha256(''::bytea), ''::bytea);

-- Append-only. Grants are the first line; these triggers stop owners and superusers who do not mean it.
create function ledger.refuse_change() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    raise exception 'the ledger is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

create function ledger.allow_growth_only() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if new.size <= old.size then
        raise exception 'the tree only grows: % leaves cannot follow %', new.size, old.size
            using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;

create function ledger.allow_publishing_once() returns trigger
    language plpgsql
    set search_path = pg_catalog
as $$
begin
    if old.published_at is null and new.published_at is not null
        and (new.leaf_index, new.reason, new.detail, new.dlq_subject, new.rejected_at)
          = (old.leaf_index, old.reason, old.detail, old.dlq_subject, old.rejected_at)
    then
        return new;
    end if;
    raise exception 'a dead letter is marked published once, and is never changed otherwise'
        using errcode = 'insufficient_privilege';
end
$$;

-- `enable always`: an ordinary trigger sleeps while session_replication_role is `replica`.
create trigger append_only before update or delete on ledger.batch
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.batch
    for each statement execute function ledger.refuse_change();
alter table ledger.batch enable always trigger append_only;
alter table ledger.batch enable always trigger never_truncated;

create trigger append_only before update or delete on ledger.erased
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.erased
    for each statement execute function ledger.refuse_change();
alter table ledger.erased enable always trigger append_only;
alter table ledger.erased enable always trigger never_truncated;

create trigger append_only before update or delete on ledger.epoch
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.epoch
    for each statement execute function ledger.refuse_change();
alter table ledger.epoch enable always trigger append_only;
alter table ledger.epoch enable always trigger never_truncated;

create trigger append_only before update or delete on ledger.subtree
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.subtree
    for each statement execute function ledger.refuse_change();
alter table ledger.subtree enable always trigger append_only;
alter table ledger.subtree enable always trigger never_truncated;

create trigger published_once before update on ledger.dead_letter
    for each row execute function ledger.allow_publishing_once();
create trigger append_only before delete on ledger.dead_letter
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.dead_letter
    for each statement execute function ledger.refuse_change();
alter table ledger.dead_letter enable always trigger published_once;
alter table ledger.dead_letter enable always trigger append_only;
alter table ledger.dead_letter enable always trigger never_truncated;

create trigger grows_only before update on ledger.tree_head
    for each row execute function ledger.allow_growth_only();
create trigger append_only before insert or delete on ledger.tree_head
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.tree_head
    for each statement execute function ledger.refuse_change();
alter table ledger.tree_head enable always trigger grows_only;
alter table ledger.tree_head enable always trigger append_only;
alter table ledger.tree_head enable always trigger never_truncated;

-- Custody message by message. `first_leaf` names the batch, and is what narrows a search: a condition on any other column reads all
-- batches. The functions below know how to find one.
create view ledger.entry as
select
    batch.first_leaf + item.position - 1 as leaf_index,
    batch.epoch,
    item.sequence,
    item.subject,
    item.server_time_ns,
    item.headers,
    item.payload,
    coalesce(erased.payload_sha256, sha256(item.payload)) as payload_sha256,
    case item.disposition
        when 'r' then 'recorded'
        when 'd' then 'duplicate'
        when 'x' then 'rejected'
        else item.disposition::text
    end as disposition,
    item.record_id,
    item.row_id,
    item.leaf_hash,
    batch.committed_at,
    erased.erasure_id,
    erased.headers_sha256,
    batch.first_leaf
from ledger.batch
cross join lateral unnest(
    batch.sequences,
    batch.subjects,
    batch.server_times_ns,
    batch.headers,
    batch.payloads,
    batch.dispositions,
    batch.record_ids,
    batch.row_ids,
    batch.leaf_hashes
) with ordinality as item (
    sequence, subject, server_time_ns, headers, payload, disposition, record_id, row_id, leaf_hash, position
)
left join ledger.erased as erased on erased.leaf_index = batch.first_leaf + item.position - 1;

-- Custody for people: one line for each message, with its reason where it was rejected.
create view ledger.journal as
select
    e.leaf_index,
    p.stream,
    e.epoch,
    e.sequence,
    e.subject,
    e.record_id,
    e.disposition,
    d.reason,
    d.detail,
    to_timestamp(e.server_time_ns / 1000000000) + (e.server_time_ns % 1000000000) / 1000 * interval '1 microsecond'
        as received_at,
    e.committed_at,
    encode(e.payload, 'escape') as payload_text,
    e.first_leaf
from ledger.entry as e
join ledger.epoch as p using (epoch)
left join ledger.dead_letter as d using (leaf_index);

-- The batches of a lane that may hold sequences of this range, by their first leaves: those whose own range overlaps it.
create function ledger.batches_of_lane(in_epoch integer, in_lane text, first bigint, last bigint) returns setof bigint
    language plpgsql
    stable
    rows 2
    set search_path = pg_catalog
as $$
declare
    in_layer smallint := -1;
    nearest  record;
begin
    loop
        select layer into in_layer
        from ledger.batch
        where epoch = in_epoch and lane = in_lane and layer > in_layer
        order by layer
        limit 1;
        exit when not found;

        select first_leaf, last_sequence into nearest
        from ledger.batch
        where epoch = in_epoch and lane = in_lane and layer = in_layer and first_sequence <= first
        order by first_sequence desc
        limit 1;
        if nearest.last_sequence >= first then
            return next nearest.first_leaf;
        end if;

        if last > first then
            return query
            select first_leaf
            from ledger.batch
            where epoch = in_epoch and lane = in_lane and layer = in_layer and first_sequence > first and first_sequence <= last
            order by first_sequence;
        end if;
    end loop;
end
$$;

-- The lanes of an epoch with their layers: steps in an index, however many batches there are.
create function ledger.layers_of(in_epoch integer) returns table (lane text, layer smallint)
    language plpgsql
    stable
    rows 20
    set search_path = pg_catalog
as $$
#variable_conflict use_column
declare
    last record;
begin
    select batch.lane, batch.layer into last
    from ledger.batch as batch
    where epoch = in_epoch
    order by lane, layer
    limit 1;
    while found loop
        return query select last.lane::text, last.layer::smallint;
        select batch.lane, batch.layer into last
        from ledger.batch as batch
        where epoch = in_epoch and (batch.lane, batch.layer) > (last.lane, last.layer)
        order by lane, layer
        limit 1;
    end loop;
end
$$;

-- The batches of an epoch that may hold sequences of this range.
create function ledger.batches_of_epoch(in_epoch integer, first bigint, last bigint) returns setof bigint
    language sql
    stable
    rows 20
begin atomic
    select place.first_leaf
    from (select distinct lane from ledger.layers_of(in_epoch)) as known
    cross join lateral ledger.batches_of_lane(in_epoch, known.lane, first, last) as place (first_leaf);
end;

-- The batches of a lane that may have made rows of this range, by their first leaves.
create function ledger.batches_of_rows(in_lane text, first bigint, last bigint) returns setof bigint
    language plpgsql
    stable
    rows 2
    set search_path = pg_catalog
as $$
declare
    in_layer smallint := -1;
    nearest  record;
begin
    if first is null then
        return;
    end if;
    loop
        select layer into in_layer
        from ledger.batch
        where lane = in_lane and layer > in_layer and first_row_id is not null
        order by layer
        limit 1;
        exit when not found;

        select first_leaf, last_row_id into nearest
        from ledger.batch
        where lane = in_lane and layer = in_layer and first_row_id <= first
        order by first_row_id desc
        limit 1;
        if nearest.last_row_id >= first then
            return next nearest.first_leaf;
        end if;

        if last > first then
            return query
            select first_leaf
            from ledger.batch
            where lane = in_lane and layer = in_layer and first_row_id > first and first_row_id <= last
            order by first_row_id;
        end if;
    end loop;
end
$$;

-- The table that a subject's lane fills.
create function ledger.table_of_lane(lane text) returns text
    language sql
    immutable
begin atomic
    select case lane
        when 'TOKENS' then 'token_ledger'
        when 'TRAIL' then 'decision_trails'
        when 'METRIC' then 'economic_metrics'
        when 'USAGE' then 'tool_usage_ledger'
        else 'audit_events'
    end;
end;

create function ledger.table_of(subject text) returns text
    language sql
    immutable
begin atomic
    select ledger.table_of_lane(split_part(subject, '.', 2));
end;

-- The batches that may have made this row of a table, by their first leaves. For token_ledger these are rows of ledger.token_usage.
create function ledger.batches_of_row(in_table text, row_id bigint) returns setof bigint
    language plpgsql
    stable
    rows 11
    set search_path = pg_catalog
as $$
declare
    in_lane text collate "C" := '';
begin
    loop
        select lane into in_lane
        from ledger.batch
        where lane > in_lane and first_row_id is not null
        order by lane
        limit 1;
        exit when not found;
        if ledger.table_of_lane(in_lane) = in_table then
            return query select * from ledger.batches_of_rows(in_lane, row_id, row_id);
        end if;
    end loop;
end
$$;

-- One entry, by its leaf.
create function ledger.entry_at(leaf bigint) returns setof ledger.entry
    language sql
    stable
    rows 1
begin atomic
    select
        leaf,
        batch.epoch,
        batch.sequences[place.at],
        batch.subjects[place.at],
        batch.server_times_ns[place.at],
        item.headers,
        item.payload,
        coalesce(erased.payload_sha256, sha256(item.payload)),
        case item.disposition
            when 'r' then 'recorded'
            when 'd' then 'duplicate'
            when 'x' then 'rejected'
            else item.disposition::text
        end,
        batch.record_ids[place.at],
        batch.row_ids[place.at],
        batch.leaf_hashes[place.at],
        batch.committed_at,
        erased.erasure_id,
        erased.headers_sha256,
        batch.first_leaf
    from ledger.batch
    cross join lateral (select (leaf - batch.first_leaf + 1)::integer as at) as place
    -- Each array is decompressed once.
    cross join lateral (
        select
            batch.headers[place.at] as headers,
            batch.payloads[place.at] as payload,
            batch.dispositions[place.at] as disposition
        offset 0
    ) as item
    left join ledger.erased as erased on erased.leaf_index = leaf
    where batch.first_leaf = (select max(candidate.first_leaf) from ledger.batch as candidate where candidate.first_leaf <= leaf)
        and leaf < batch.first_leaf + batch.leaves;
end;

-- One entry, by its place in its stream.
create function ledger.entry_by_sequence(epoch integer, sequence bigint) returns setof ledger.entry
    language sql
    stable
    rows 1
begin atomic
    select entry.*
    from ledger.batches_of_epoch(entry_by_sequence.epoch, entry_by_sequence.sequence, entry_by_sequence.sequence) as place (first_leaf)
    cross join lateral (
        select array_position(batch.sequences, entry_by_sequence.sequence) as at
        from ledger.batch as batch
        where batch.first_leaf = place.first_leaf
        offset 0
    ) as found
    cross join lateral ledger.entry_at(place.first_leaf + found.at - 1) as entry
    where found.at is not null;
end;

-- The entry that made this row of a table; for token_ledger, of ledger.token_usage. Uses of tools have no numbers.
create function ledger.entry_of_row(table_name text, row_id bigint) returns setof ledger.entry
    language sql
    stable
    rows 1
begin atomic
    select entry.*
    from ledger.batches_of_row(entry_of_row.table_name, entry_of_row.row_id) as place (first_leaf)
    cross join lateral (
        select array_position(batch.row_ids, entry_of_row.row_id) as at
        from ledger.batch as batch
        where batch.first_leaf = place.first_leaf
        offset 0
    ) as found
    cross join lateral ledger.entry_at(place.first_leaf + found.at - 1) as entry
    where found.at is not null;
end;

-- The newest lines of the journal. Of the view itself PostgreSQL would have to sort all.
create function ledger.newest(lines integer) returns setof ledger.journal
    language sql
    stable
begin atomic
    select journal.*
    from ledger.journal as journal
    where journal.first_leaf >= (
        select max(batch.first_leaf)
        from ledger.batch as batch
        where batch.first_leaf <= greatest(
            0,
            (select last.first_leaf + last.leaves from ledger.batch as last order by last.first_leaf desc limit 1) - lines
        )
    )
    order by journal.leaf_index desc
    limit lines;
end;

-- The batches of an epoch that hold any of these sequences, by their first leaves. Nothing but sequences is read, and only of batches
-- whose ranges these fall into.
create function ledger.batches_holding(in_epoch integer, wanted bigint[]) returns setof bigint
    language plpgsql
    stable
    rows 2
    set search_path = pg_catalog
as $$
declare
    first constant bigint := (select min(number) from unnest(wanted) as number);
    last  constant bigint := (select max(number) from unnest(wanted) as number);
begin
    return query
    select distinct place.first_leaf
    from ledger.batches_of_epoch(in_epoch, first, last) as place (first_leaf)
    -- Without `offset 0`, a plan that was made while the table was empty would read all of it for ever after.
    cross join lateral (select sequences from ledger.batch where batch.first_leaf = place.first_leaf offset 0) as batch
    cross join lateral unnest(batch.sequences) as held (sequence)
    -- `is true` makes it one look into a hash for each sequence; as a join it would be a loop over all pairs.
    where (held.sequence in (select number from unnest(wanted) as number)) is true;
end
$$;
