//! Reads batches of custody, and unfolds them into entries. Stored data may have been tampered with, so arrays are read
//! as they are: of any length, with nulls anywhere.

use crate::record::leaf::Disposition;
use crate::record::subject::Subject;
use crate::verify::stored::BatchRow;
use crate::verify::stored::{DeadLetterRow, EntryRow, ErasureRow, StoredHash};
use bytes::Bytes;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgValueRef};
use sqlx::{Row as _, ValueRef as _};
use std::collections::HashMap;

/// The columns that [`unfold`] reads, of a page of batches.
pub(crate) const BATCHES: &str = "
    select first_leaf, leaves, epoch, lane::text, first_sequence, last_sequence, first_row_id, last_row_id, duplicates, rejected,
        erased, committed_at, sequences, subjects, server_times_ns, headers, payloads, dispositions, record_ids, row_ids, leaf_hashes
    from ledger.batch
    where first_leaf >= $1
        and first_leaf < least($2, (select min(first_leaf) from ledger.batch where first_leaf >= $1) + $3)
    order by first_leaf
    limit $4";

const FIRST_ARRAY: usize = 12;
const ARRAYS: [&str; 9] = [
    "sequences",
    "subjects",
    "server_times_ns",
    "headers",
    "payloads",
    "dispositions",
    "record_ids",
    "row_ids",
    "leaf_hashes",
];

/// A batch with its entries, without what other tables say of them.
pub(crate) fn unfold(row: &PgRow, entries: &mut Vec<EntryRow>) -> Result<BatchRow, sqlx::Error> {
    let mut arrays = Vec::with_capacity(ARRAYS.len());
    for (at, name) in (FIRST_ARRAY..).zip(ARRAYS) {
        arrays.push((name, Elements::of(&row.try_get_raw(at)?).map_err(sqlx::Error::Decode)?));
    }
    let batch = BatchRow {
        first_leaf: row.try_get(0)?,
        leaves: row.try_get(1)?,
        lane: row.try_get(3)?,
        first_sequence: row.try_get(4)?,
        last_sequence: row.try_get(5)?,
        first_row_id: row.try_get(6)?,
        last_row_id: row.try_get(7)?,
        duplicates: row.try_get(8)?,
        rejected: row.try_get(9)?,
        erased: row.try_get(10)?,
        lengths: arrays.iter().filter_map(|(name, array)| Some((*name, array.as_ref()?.left))).collect(),
    };
    let (epoch, committed_at_us): (i32, _) = (row.try_get(2)?, unix_us(row, 11)?);
    let [sequences, subjects, times, headers, payloads, dispositions, record_ids, row_ids, hashes] = &mut arrays[..]
    else {
        unreachable!("there are nine")
    };
    let unfolded = batch.unfolded();
    entries.reserve(unfolded);
    for (leaf_index, _) in (batch.first_leaf..).zip(0..unfolded) {
        let subject = text(next(subjects)?)?.unwrap_or_default();
        entries.push(EntryRow {
            leaf_index,
            epoch,
            sequence: number(next(sequences)?).unwrap_or_default(),
            table: Subject::parse(&subject).map(|subject| subject.lane.table()),
            subject,
            server_time_ns: number(next(times)?).unwrap_or_default(),
            headers: next(headers)?.map(<[u8]>::to_vec),
            payload: next(payloads)?.map(Bytes::copy_from_slice),
            disposition: disposition(next(dispositions)?),
            record_id: text(next(record_ids)?)?,
            row_id: number(next(row_ids)?),
            leaf_hash: StoredHash::of(next(hashes)?.unwrap_or_default()),
            committed_at_us,
            dead_letter: None,
            erased: None,
        });
    }
    Ok(batch)
}

/// The elements of an array, in PostgreSQL's binary form.
struct Elements<'r> {
    bytes: &'r [u8],
    left: usize,
}

impl<'r> Elements<'r> {
    /// Nothing where the array is null.
    fn of(value: &PgValueRef<'r>) -> Result<Option<Self>, BoxDynError> {
        if value.is_null() {
            return Ok(None);
        }
        let mut elements = Self { bytes: value.as_bytes()?, left: 0 };
        let dimensions = elements.integer()?;
        // Whether there are nulls, and the type.
        elements.take(8)?;
        let mut left = usize::from(dimensions > 0);
        for _ in 0..dimensions {
            left *= usize::try_from(elements.integer()?)?;
            // The lower bound.
            elements.integer()?;
        }
        elements.left = left;
        Ok(Some(elements))
    }

    fn integer(&mut self) -> Result<i32, BoxDynError> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn take(&mut self, length: usize) -> Result<&'r [u8], BoxDynError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or("an array is shorter than it says")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<&'r [u8]>, BoxDynError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        match usize::try_from(self.integer()?) {
            Ok(length) => self.take(length).map(Some),
            // -1: null.
            Err(_) => Ok(None),
        }
    }
}

/// The next element; nothing where it is null, or the array has no more.
fn next<'r>(array: &mut (&str, Option<Elements<'r>>)) -> Result<Option<&'r [u8]>, sqlx::Error> {
    array.1.as_mut().map_or(Ok(None), |elements| elements.next().map_err(sqlx::Error::Decode))
}

fn number(bytes: Option<&[u8]>) -> Option<i64> {
    bytes?.try_into().ok().map(i64::from_be_bytes)
}

fn text(bytes: Option<&[u8]>) -> Result<Option<String>, sqlx::Error> {
    let text = bytes.map(|bytes| std::str::from_utf8(bytes).map(str::to_owned)).transpose();
    text.map_err(|error| sqlx::Error::Decode(error.into()))
}

fn disposition(letter: Option<&[u8]>) -> Result<Disposition, String> {
    match letter {
        Some(b"r") => Ok(Disposition::Recorded),
        Some(b"d") => Ok(Disposition::Duplicate),
        Some(b"x") => Ok(Disposition::Rejected),
        other => Err(String::from_utf8_lossy(other.unwrap_or_default()).into_owned()),
    }
}

/// 2000-01-01, from which PostgreSQL counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A `timestamptz` in microseconds since 1970; nothing for null and infinity.
fn unix_us(row: &PgRow, index: usize) -> Result<Option<i64>, sqlx::Error> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(None);
    }
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    let bytes = bytes.try_into().map_err(|_| sqlx::Error::Decode("a timestamptz has 8 bytes".into()))?;
    Ok(match i64::from_be_bytes(bytes) {
        i64::MIN | i64::MAX => None,
        microseconds => microseconds.checked_add(POSTGRES_EPOCH_US),
    })
}

/// The dead letters of a range of leaves.
pub(crate) const DEAD_LETTERS: &str = "
    select leaf_index, reason, detail, dlq_subject, rejected_at, coalesce(published_at < rejected_at, false)
    from ledger.dead_letter
    where leaf_index between $1 and $2";

pub(crate) fn read_dead_letters(rows: &[PgRow]) -> Result<HashMap<i64, DeadLetterRow>, sqlx::Error> {
    let letter = |row: &PgRow| {
        let letter = DeadLetterRow {
            reason: row.try_get(1)?,
            detail: row.try_get(2)?,
            dlq_subject: row.try_get(3)?,
            rejected_at_us: unix_us(row, 4)?,
            published_too_early: row.try_get(5)?,
        };
        Ok((row.try_get(0)?, letter))
    };
    rows.iter().map(letter).collect()
}

/// What is kept of the bytes of a range of leaves that were given up.
pub(crate) const ERASED: &str = "
    select leaf_index, erasure_id, payload_sha256, headers_sha256 from ledger.erased where leaf_index between $1 and $2";

pub(crate) fn read_erased(rows: &[PgRow]) -> Result<HashMap<i64, ErasureRow>, sqlx::Error> {
    let erased = |row: &PgRow| {
        let erased = ErasureRow {
            erasure_id: row.try_get(1)?,
            payload_sha256: StoredHash::of(row.try_get(2)?),
            headers_sha256: row.try_get::<Option<&[u8]>, _>(3)?.map(StoredHash::of),
        };
        Ok((row.try_get(0)?, erased))
    };
    rows.iter().map(erased).collect()
}
