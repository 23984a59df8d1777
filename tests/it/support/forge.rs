//! A forger's tools: what stands in `ledger.batch` can be changed, removed and added message by message, through the view
//! `ledger.entry`. What a batch says of its entries is made to agree with them, as a forger would.

use super::postgres::Database;

/// Lets every trigger of custody sleep, and takes changes of the view.
const TOOLS: &str = r#"
    alter table ledger.batch disable trigger all;
    alter table ledger.erased disable trigger all;
    alter table ledger.batch drop constraint batch_payloads_kept;
    create schema forged;

    -- Takes over a batch whose arrays were changed.
    create function forged.replace(was bigint, it ledger.batch) returns void language plpgsql as $$
    begin
        delete from ledger.batch where first_leaf = was;
        it.leaves := cardinality(it.sequences);
        it.first_sequence := it.sequences[1];
        it.last_sequence := it.sequences[it.leaves];
        it.first_row_id := (select min(id) from unnest(it.row_ids) as id);
        it.last_row_id := (select max(id) from unnest(it.row_ids) as id);
        if it.first_row_id is null then it.row_ids := null; end if;
        it.duplicates := cardinality(array_positions(it.dispositions, 'd'));
        it.rejected := cardinality(array_positions(it.dispositions, 'x'));
        it.erased := cardinality(array_positions(it.payloads, null));
        it.lane := split_part(it.subjects[1], '.', 2);
        insert into ledger.batch values (it.*);
    end $$;

    -- A part of a batch as a batch.
    create function forged.part(it ledger.batch, first integer, last integer) returns void language plpgsql as $$
    begin
        if first > last then return; end if;
        it.sequences := it.sequences[first:last];
        it.subjects := it.subjects[first:last];
        it.server_times_ns := it.server_times_ns[first:last];
        it.headers := it.headers[first:last];
        it.payloads := it.payloads[first:last];
        it.dispositions := it.dispositions[first:last];
        it.record_ids := it.record_ids[first:last];
        it.row_ids := it.row_ids[first:last];
        it.leaf_hashes := it.leaf_hashes[first:last];
        it.first_leaf := it.first_leaf + first - 1;
        perform forged.replace(it.first_leaf, it);
    end $$;

    -- Makes a leaf stand alone in its batch.
    create function forged.isolate(leaf bigint) returns void language plpgsql as $$
    declare
        it ledger.batch;
        at integer;
    begin
        select * into strict it from ledger.batch
        where first_leaf = (select max(first_leaf) from ledger.batch where first_leaf <= leaf);
        at := leaf - it.first_leaf + 1;
        delete from ledger.batch where first_leaf = it.first_leaf;
        perform forged.part(it, 1, at - 1), forged.part(it, at, at), forged.part(it, at + 1, it.leaves);
    end $$;

    create function forged.letter(disposition text) returns "char" language sql as $$
        select (case disposition when 'recorded' then 'r' when 'duplicate' then 'd' when 'rejected' then 'x' else disposition end)::"char"
    $$;

    create function forged.change() returns trigger language plpgsql as $$
    declare
        it ledger.batch;
        at integer;
    begin
        if new.epoch <> old.epoch or new.committed_at <> old.committed_at or split_part(new.subject, '.', 2) <> split_part(old.subject, '.', 2) then
            perform forged.isolate(old.leaf_index);
        end if;
        select * into strict it from ledger.batch
        where first_leaf = (select max(first_leaf) from ledger.batch where first_leaf <= old.leaf_index);
        at := old.leaf_index - it.first_leaf + 1;
        it.epoch := new.epoch;
        it.committed_at := new.committed_at;
        it.sequences[at] := new.sequence;
        it.subjects[at] := new.subject;
        it.server_times_ns[at] := new.server_time_ns;
        it.payloads[at] := new.payload;
        it.dispositions[at] := forged.letter(new.disposition);
        it.record_ids[at] := new.record_id;
        it.leaf_hashes[at] := new.leaf_hash;
        if new.headers is distinct from old.headers then
            it.headers := coalesce(it.headers, array_fill(null::bytea, array[it.leaves]));
            it.headers[at] := new.headers;
        end if;
        if new.row_id is distinct from old.row_id then
            it.row_ids := coalesce(it.row_ids, array_fill(null::bigint, array[it.leaves]));
            it.row_ids[at] := new.row_id;
        end if;
        perform forged.replace(it.first_leaf, it);
        if (new.erasure_id, new.headers_sha256) is distinct from (old.erasure_id, old.headers_sha256) then
            insert into ledger.erased
            values (old.leaf_index, coalesce(new.erasure_id, 1), old.payload_sha256, new.headers_sha256)
            on conflict (leaf_index) do update
            set erasure_id = excluded.erasure_id, headers_sha256 = excluded.headers_sha256;
        end if;
        return new;
    end $$;

    create function forged.remove() returns trigger language plpgsql as $$
    begin
        perform forged.isolate(old.leaf_index);
        delete from ledger.batch where first_leaf = old.leaf_index;
        delete from ledger.erased where leaf_index = old.leaf_index;
        return old;
    end $$;

    create function forged.add() returns trigger language plpgsql as $$
    begin
        insert into ledger.batch
            (first_leaf, leaves, epoch, lane, layer, first_sequence, last_sequence, first_row_id, last_row_id, duplicates, rejected,
            committed_at, sequences, subjects, server_times_ns, headers, payloads, dispositions, record_ids, row_ids, leaf_hashes)
        values (new.leaf_index, 1, new.epoch, split_part(new.subject, '.', 2), 0, new.sequence, new.sequence, new.row_id, new.row_id,
            (new.disposition = 'duplicate')::integer, (new.disposition = 'rejected')::integer, new.committed_at,
            array[new.sequence], array[new.subject], array[new.server_time_ns],
            case when new.headers is not null then array[new.headers] end, array[new.payload],
            array[forged.letter(new.disposition)], array[new.record_id], case when new.row_id is not null then array[new.row_id] end,
            array[new.leaf_hash]);
        return new;
    end $$;

    -- Two leaves in each other's place.
    create function forged.swap(one bigint, other bigint) returns void language plpgsql as $$
    begin
        perform forged.isolate(one), forged.isolate(other);
        -- A leaf that no ledger has, for as long as it takes.
        update ledger.batch set first_leaf = 9e18 where first_leaf = one;
        update ledger.batch set first_leaf = one where first_leaf = other;
        update ledger.batch set first_leaf = other where first_leaf = 9e18;
    end $$;

    create trigger change instead of update on ledger.entry for each row execute function forged.change();
    create trigger remove instead of delete on ledger.entry for each row execute function forged.remove();
    create trigger add instead of insert on ledger.entry for each row execute function forged.add();
"#;

/// Puts the tools away; the triggers stay asleep.
pub(crate) async fn disarm(database: &Database) {
    database.execute("drop schema forged cascade").await;
}

/// Puts the tools away, and wakes the triggers.
pub(crate) async fn disarm_and_guard(database: &Database) {
    disarm(database).await;
    let guarded = "do $$ declare it record; begin
        for it in select tgrelid::regclass as tab, tgname from pg_trigger
            where not tgisinternal and tgrelid in ('ledger.batch'::regclass, 'ledger.erased'::regclass)
        loop execute format('alter table %s enable always trigger %I', it.tab, it.tgname); end loop;
    end $$";
    database.execute(guarded).await;
}

/// Hands the tools to whoever is a superuser of this database.
pub(crate) async fn arm(database: &Database) {
    database.execute(TOOLS).await;
}
