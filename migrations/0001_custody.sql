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

create table ledger.entry (
    -- The position in the RFC 6962 tree: contiguous from 0, assigned under the lock on ledger.tree_head.
    leaf_index     bigint      primary key check (leaf_index >= 0),
    -- No foreign key: epochs are never removed, and a check per row would slow every commit.
    epoch          integer     not null,
    sequence       bigint      not null,
    subject        text        not null,
    -- When the server stored the message, in nanoseconds since 1970 (timestamptz would forget the last three digits).
    server_time_ns bigint      not null,
    -- The publisher's headers, as sorted `Name: value` lines, or the raw block where it could not be parsed. Null: none.
    headers        bytea,
    -- The publisher's bytes. Null for a duplicate, whose bytes another entry holds.
    payload        bytea,
    payload_sha256 bytea       not null check (octet_length(payload_sha256) = 32),
    disposition    text        not null check (disposition in ('recorded', 'duplicate', 'rejected')),
    -- The record's own name (for an audit event its event_id). Null where a reject had none that could be read.
    record_id      text,
    -- The row of the projection that this entry made. Null unless recorded.
    row_id         bigint,
    leaf_hash      bytea       not null check (octet_length(leaf_hash) = 32),
    committed_at   timestamptz not null,
    -- Makes a redelivery recognisable, whoever it reaches.
    constraint entry_sequence_key unique (epoch, sequence),
    constraint entry_payload_kept check (payload is not null or disposition = 'duplicate')
);

-- "What became of event X?"
create index entry_record_id on ledger.entry (record_id) where record_id is not null;

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
create trigger append_only before update or delete on ledger.entry
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.entry
    for each statement execute function ledger.refuse_change();
alter table ledger.entry enable always trigger append_only;
alter table ledger.entry enable always trigger never_truncated;

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
    encode(e.payload, 'escape') as payload_text
from ledger.entry as e
join ledger.epoch as p using (epoch)
left join ledger.dead_letter as d using (leaf_index);
