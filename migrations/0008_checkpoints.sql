-- What the log vouched for: each checkpoint that was signed, and who cosigned it. Also kept outside the database, in the
-- anchor file: whoever can rewrite this table cannot rewrite that one.
create table ledger.checkpoint (
    -- The log's name, the first line of its checkpoints. A declared new beginning has another.
    origin    text        not null,
    tree_size bigint      not null check (tree_size >= 0),
    root      bytea       not null check (octet_length(root) = 32),
    -- The signed note (c2sp.org/tlog-checkpoint), as it was released.
    note      text        not null,
    signed_at timestamptz not null default current_timestamp,
    primary key (origin, tree_size)
);

-- The newest line of each witness for a checkpoint (c2sp.org/tlog-cosignature).
create table ledger.cosignature (
    origin      text        not null,
    tree_size   bigint      not null,
    witness     text        not null,
    line        text        not null,
    cosigned_at timestamptz not null default current_timestamp,
    primary key (origin, tree_size, witness, line)
);

create trigger append_only before update or delete on ledger.checkpoint
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.checkpoint
    for each statement execute function ledger.refuse_change();
alter table ledger.checkpoint enable always trigger append_only;
alter table ledger.checkpoint enable always trigger never_truncated;

create trigger append_only before update or delete on ledger.cosignature
    for each row execute function ledger.refuse_change();
create trigger never_truncated before truncate on ledger.cosignature
    for each statement execute function ledger.refuse_change();
alter table ledger.cosignature enable always trigger append_only;
alter table ledger.cosignature enable always trigger never_truncated;
