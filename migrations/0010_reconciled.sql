-- How far the ledger is proven complete: each row says what became of every sequence of a range. `ledgerd reconcile` adds one
-- and goes on behind it the next time.
create table ledger.reconciled (
    -- The newest epoch of the stream's incarnation. One that was opened since begins again at the first sequence.
    epoch          integer     not null,
    first_sequence bigint      not null check (first_sequence > 0),
    last_sequence  bigint      not null,
    -- Records, duplicates and rejects.
    entries        bigint      not null check (entries >= 0),
    -- Removed by the stream at its beginning: by age, by size, by a purge.
    expired        bigint      not null check (expired >= 0),
    -- Removed one by one from between others.
    deleted        bigint      not null check (deleted >= 0),
    -- In the stream, on subjects that no served lane has.
    on_no_lane     bigint      not null check (on_no_lane >= 0),
    proven_at      timestamptz not null default current_timestamp,
    primary key (epoch, last_sequence),
    constraint reconciled_adds_up check (
        last_sequence - first_sequence + 1 = entries + expired + deleted + on_no_lane and last_sequence >= first_sequence
    )
);

create trigger append_only before update or delete on ledger.reconciled
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.reconciled
    for each statement execute function ledger.refuse_change();
alter table ledger.reconciled enable always trigger append_only;
alter table ledger.reconciled enable always trigger never_truncated;
