//! The outbox queue of unpublished dead letters: the statements that read and mark them.

use crate::outbox::Numbered;
use crate::outbox::queue::QueuedLetter;
use crate::record::dead_letter::{DeadLetter, epoch_key};
use crate::record::message::{Headers, Incarnation, place};
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::sync::Arc;

impl QueuedLetter for DeadLetter {
    const DOING: &str = "handling dead letters";
    // Each batch is unfolded once, however many letters of a page it holds.
    const WAITING: &str = "
        with
        letter as (
            select * from ledger.dead_letter where published_at is null and leaf_index > $1 order by leaf_index limit $2
        ),
        place as (
            select distinct (select max(b.first_leaf) from ledger.batch as b where b.first_leaf <= letter.leaf_index) as first_leaf
            from letter
        ),
        whole as (
            select d.leaf_index, d.dlq_subject, d.reason, d.detail,
                (extract(epoch from d.rejected_at) * 1000000)::bigint * 1000 as rejected_at_ns,
                p.stream, p.stream_created_ns, p.regressions, e.sequence, e.subject, e.server_time_ns, e.headers, e.payload,
                sum(coalesce(octet_length(e.payload), 0) + coalesce(octet_length(e.headers), 0)) over (
                    order by d.leaf_index rows between unbounded preceding and 1 preceding
                ) as bytes_before
            from place
            cross join lateral (select * from ledger.entry as held where held.first_leaf = place.first_leaf offset 0) as e
            join letter as d using (leaf_index)
            join ledger.epoch as p using (epoch)
        )
        select * from whole where coalesce(bytes_before, 0) < $3 order by leaf_index";
    const BACKLOG: &str = "select count(*) from ledger.dead_letter where published_at is null";
    const READ: &str = "
        select d.leaf_index, d.dlq_subject, d.reason, d.detail,
            (extract(epoch from d.rejected_at) * 1000000)::bigint * 1000 as rejected_at_ns,
            p.stream, p.stream_created_ns, p.regressions, e.sequence, e.subject, e.server_time_ns, e.headers, e.payload
        from ledger.dead_letter as d
        cross join lateral ledger.entry_at(d.leaf_index) as e
        join ledger.epoch as p using (epoch)
        where d.leaf_index = $1";
    const MARK: &str = "
        update ledger.dead_letter as d set published_at = greatest(current_timestamp, rejected_at)
        from unnest($1::bigint[], $2::text[]) as published (number, name)
        where d.leaf_index = published.number and d.dlq_subject = published.name and d.published_at is null";

    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let stream: String = row.try_get("stream")?;
        let created_ns = row.try_get("stream_created_ns")?;
        let incarnation = Incarnation { stream: Arc::from(stream.as_str()), created_ns };
        let (sequence, server_time_ns) = (row.try_get("sequence")?, row.try_get("server_time_ns")?);
        let headers = Headers::from_stored(row.try_get("headers")?);
        Ok(Self {
            leaf_index: row.try_get("leaf_index")?,
            dlq_subject: row.try_get("dlq_subject")?,
            reason: row.try_get("reason")?,
            detail: row.try_get("detail")?,
            stream,
            epoch: epoch_key(&incarnation, row.try_get("regressions")?),
            sequence,
            place: place(created_ns, sequence, server_time_ns, &headers),
            subject: row.try_get("subject")?,
            server_time_ns,
            rejected_at_ns: row.try_get("rejected_at_ns")?,
            headers,
            payload: row.try_get::<Option<Vec<u8>>, _>("payload")?.unwrap_or_default(),
        })
    }

    fn name(&self) -> String {
        self.dlq_subject.clone()
    }
}

impl Numbered for DeadLetter {
    fn number(&self) -> i64 {
        self.leaf_index
    }
}
