-- Questions whose cost must not grow with the ledger.

-- "Which checkpoints are of trees that end in this range of leaves?" `ledgerd verify` asks once for each few thousand leaves, and
-- the primary key begins with the log's name.
create index checkpoint_tree_size on ledger.checkpoint (tree_size);

-- "How many records came again?" Few do, so the index is small, and most commits never touch it.
create index batch_duplicates on ledger.batch (first_leaf) include (duplicates) where duplicates > 0;

-- The names of a batch's entries that no unique key of a table leads to: of what came again, of what was rejected, of metrics, whose
-- key stands for many rows, and of uses of tools, whose rows have no number.
create function ledger.names_without_key(lane text, dispositions "char"[], record_ids text[]) returns text[]
    language sql
    immutable
begin atomic
    select array_agg(distinct item.record_id)
    from unnest(dispositions, record_ids) as item (disposition, record_id)
    where item.record_id is not null and (item.disposition <> 'r' or lane in ('METRIC', 'USAGE'));
end;

-- "What became of event X?" Where X is recorded, its own row says which; everything else is here.
create index batch_name on ledger.batch using gin (ledger.names_without_key(lane, dispositions, record_ids))
    where duplicates > 0 or rejected > 0 or lane in ('METRIC', 'USAGE');

-- The batches that hold entries of this name, by their first leaves.
create function ledger.batches_of_record(record_id text) returns setof bigint
    language sql
    stable
    rows 2
begin atomic
    select place.first_leaf
    from public.audit_events as event
    cross join lateral ledger.batches_of_row('audit_events', event.id) as place (first_leaf)
    where event.event_id = batches_of_record.record_id
    union
    select place.first_leaf
    from public.decision_trails as trail
    cross join lateral ledger.batches_of_row('decision_trails', trail.id) as place (first_leaf)
    where trail.trail_id = batches_of_record.record_id
    union
    select place.first_leaf
    from ledger.token_usage as usage
    cross join lateral ledger.batches_of_row('token_ledger', usage.id) as place (first_leaf)
    where usage.usage_id = batches_of_record.record_id
    union
    -- What was erased has no row any more.
    select (select max(batch.first_leaf) from ledger.batch as batch where batch.first_leaf <= removal.leaf_index)
    from ledger.removal as removal
    where removal.row_key = batches_of_record.record_id and removal.leaf_index is not null
    union
    select batch.first_leaf
    from ledger.batch as batch
    where (batch.duplicates > 0 or batch.rejected > 0 or batch.lane in ('METRIC', 'USAGE'))
        and ledger.names_without_key(batch.lane, batch.dispositions, batch.record_ids) @> array[batches_of_record.record_id];
end;

-- The entries of this name, in any lane: what was recorded, what came again, and what was rejected under it.
create function ledger.entries_by_record(record_id text) returns setof ledger.entry
    language sql
    stable
    rows 2
begin atomic
    select entry.*
    from ledger.batches_of_record(entries_by_record.record_id) as place (first_leaf)
    cross join lateral (select * from ledger.entry as held where held.first_leaf = place.first_leaf offset 0) as entry
    where entry.record_id = entries_by_record.record_id;
end;

-- The same as lines of the journal: "what became of event X?"
create function ledger.became_of(record_id text) returns setof ledger.journal
    language sql
    stable
    rows 2
begin atomic
    select journal.*
    from ledger.batches_of_record(became_of.record_id) as place (first_leaf)
    cross join lateral (select * from ledger.journal as held where held.first_leaf = place.first_leaf offset 0) as journal
    where journal.record_id = became_of.record_id;
end;
