//! The format of an archived file: one JSON object per row and line, compressed with gzip. A manifest beside it
//! describes its content.
//!
//! File names are derived from the content: the same rows give the same name, and other rows never do. So a run after a
//! kill finds its own work, and no run can overwrite another run's file.

use crate::record::digest::{Hash, hex, sha256};
use crate::record::table::Table;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Write as _};

/// The largest file: what one export holds, in rows and in bytes of their lines. It bounds the memory, the transaction that
/// removes, and what one damaged file can cost.
pub const ROWS_MAX: i64 = 50_000;
const LINES_BYTES_MAX: i64 = 32 * 1024 * 1024;
/// Of a hash, in a name: enough that no two files meet.
const NAME_DIGITS: usize = 16;

/// How long rows stay, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days of `token_ledger`.
    pub token_ledger_days: i32,
    /// Days of `economic_metrics`.
    pub economic_metrics_days: i32,
    /// A folder, or the URL of an object store.
    pub archive: Option<String>,
}

impl Retention {
    /// How many days of a table stay.
    pub fn days(&self, table: Perishable) -> i32 {
        match table {
            Perishable::TokenLedger => self.token_ledger_days,
            Perishable::EconomicMetrics => self.economic_metrics_days,
        }
    }
}

/// The tables whose rows have their time. The others are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Perishable {
    /// 90 days.
    TokenLedger,
    /// 365 days.
    EconomicMetrics,
}

impl Perishable {
    pub const ALL: [Self; 2] = [Self::TokenLedger, Self::EconomicMetrics];

    /// Its name in the schema `public`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenLedger => Table::TokenLedger.name(),
            Self::EconomicMetrics => Table::EconomicMetrics.name(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub table: Perishable,
    /// The UTC day, `YYYY-MM-DD`, that all of them are older than.
    pub cutoff: String,
    pub rows: i64,
    pub first: String,
    pub last: String,
    /// The earliest day or moment.
    pub oldest: String,
    pub newest: String,
    pub lines_bytes: i64,
    /// Their SHA-256.
    pub lines_sha256: Hash,
    /// Bytes of the file.
    pub file_bytes: i64,
    /// Their SHA-256.
    pub file_sha256: Hash,
}

impl Contents {
    fn stem(&self, ledger: &str) -> String {
        let table = self.table.name();
        let digits = &hex(&self.file_sha256)[..NAME_DIGITS];
        format!("{ledger}/{table}/{table}-before-{}-{digits}", self.cutoff)
    }

    /// Where the rows lie, below the archive. `ledger` tells this ledger from others.
    pub fn file_name(&self, ledger: &str) -> String {
        format!("{}.jsonl.gz", self.stem(ledger))
    }

    pub fn manifest_name(&self, ledger: &str) -> String {
        format!("{}.manifest.json", self.stem(ledger))
    }

    /// The manifest. The same contents give the same bytes.
    pub fn manifest(&self, ledger: &str) -> Vec<u8> {
        let file = self.file_name(ledger);
        let manifest = json!({
            "format": "ledgerd archive 1: gzip around one JSON object per row and line",
            "ledger": ledger,
            "table": self.table.name(),
            "cutoff": self.cutoff,
            "rows": self.rows,
            "first": self.first,
            "last": self.last,
            "oldest": self.oldest,
            "newest": self.newest,
            "file": file.rsplit('/').next(),
            "bytes": self.file_bytes,
            "sha256": hex(&self.file_sha256),
            "uncompressed_bytes": self.lines_bytes,
            "uncompressed_sha256": hex(&self.lines_sha256),
        });
        format!("{manifest:#}\n").into_bytes()
    }

    /// Opens a file that came out of the archive, and looks whether it holds exactly this.
    ///
    /// # Errors
    /// A sentence that says in what it differs.
    pub fn check(&self, file: Vec<u8>) -> Result<Intact, String> {
        if i64::try_from(file.len()) != Ok(self.file_bytes) {
            return Err(format!("it has {} bytes instead of {}", file.len(), self.file_bytes));
        }
        if sha256(&file) != self.file_sha256 {
            return Err("its SHA-256 is another".to_owned());
        }
        let intact = Intact { file };
        let (mut rows, mut bytes, mut hasher) = (0, 0, Sha256::new());
        for line in intact.lines() {
            let line = line.map_err(|error| format!("it cannot be decompressed: {error}"))?;
            rows += 1;
            bytes += i64::try_from(line.len()).unwrap_or(i64::MAX) + 1;
            hasher.update(&line);
            hasher.update("\n");
        }
        let lines_sha256: Hash = hasher.finalize().into();
        if (rows, bytes, lines_sha256) != (self.rows, self.lines_bytes, self.lines_sha256) {
            return Err(format!("it holds {rows} rows in {bytes} bytes, which are not those that were exported"));
        }
        Ok(intact)
    }
}

/// A file that was read back from the archive, and holds what it should.
#[derive(Debug)]
pub struct Intact {
    file: Vec<u8>,
}

impl Intact {
    /// The rows, one line each.
    pub fn lines(&self) -> impl Iterator<Item = io::Result<String>> {
        BufReader::new(GzDecoder::new(&self.file[..])).lines()
    }
}

/// Rows on their way into a file. Memory holds the compressed ones alone.
#[derive(Debug)]
pub struct Packer {
    table: Perishable,
    cutoff: String,
    encoder: GzEncoder<Vec<u8>>,
    hasher: Sha256,
    rows: i64,
    bytes: i64,
    first: String,
    last: String,
    oldest: String,
    newest: String,
}

/// A file, and what it holds.
#[derive(Debug)]
pub struct Packed {
    pub contents: Contents,
    pub file: Vec<u8>,
}

impl Packer {
    pub fn new(table: Perishable, cutoff: &str) -> Self {
        Self {
            table,
            cutoff: cutoff.to_owned(),
            // Neither a time nor a name of its own: the same rows give the same bytes.
            encoder: GzBuilder::new().mtime(0).write(Vec::new(), Compression::default()),
            hasher: Sha256::new(),
            rows: 0,
            bytes: 0,
            first: String::new(),
            last: String::new(),
            oldest: String::new(),
            newest: String::new(),
        }
    }

    /// Whether the rest belongs into another file.
    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= LINES_BYTES_MAX
    }

    /// Takes the next row: its key, its day or moment as sortable text, and its line.
    pub fn push(&mut self, key: String, time: String, line: &str) {
        for bytes in [line, "\n"] {
            self.encoder.write_all(bytes.as_bytes()).expect("memory takes it");
            self.hasher.update(bytes);
        }
        self.rows += 1;
        self.bytes += i64::try_from(line.len()).unwrap_or(i64::MAX) + 1;
        if self.rows == 1 {
            self.first.clone_from(&key);
            self.oldest.clone_from(&time);
        }
        self.last = key;
        if time < self.oldest {
            self.oldest.clone_from(&time);
        }
        if time > self.newest {
            self.newest = time;
        }
    }

    /// The file; `None` where there was no row.
    pub fn finish(self) -> Option<Packed> {
        if self.rows == 0 {
            return None;
        }
        let file = self.encoder.finish().expect("memory takes it");
        let contents = Contents {
            table: self.table,
            cutoff: self.cutoff,
            rows: self.rows,
            first: self.first,
            last: self.last,
            oldest: self.oldest,
            newest: self.newest,
            lines_bytes: self.bytes,
            lines_sha256: self.hasher.finalize().into(),
            file_bytes: i64::try_from(file.len()).expect("a file in memory"),
            file_sha256: sha256(&file),
        };
        Some(Packed { contents, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(lines: &[&str]) -> Packed {
        let mut packer = Packer::new(Perishable::TokenLedger, "2026-01-01");
        for (line, number) in lines.iter().zip(0..) {
            packer.push(format!("A/{number}"), format!("2025-12-0{}", 9 - number), line);
        }
        packer.finish().expect("there are rows")
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let Packed { contents, file } = packed(&["{\"a\":1}", "{\"b\":\"ü\"}"]);
        assert_eq!((contents.rows, contents.first.as_str(), contents.last.as_str()), (2, "A/0", "A/1"));
        assert_eq!((contents.oldest.as_str(), contents.newest.as_str()), ("2025-12-08", "2025-12-09"));
        let intact = contents.check(file).expect("whole");
        let lines: Result<Vec<_>, _> = intact.lines().collect();
        assert_eq!(lines.expect("gzip"), ["{\"a\":1}", "{\"b\":\"ü\"}"]);
        assert!(Packer::new(Perishable::TokenLedger, "2026-01-01").finish().is_none());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let Packed { contents, file } = packed(&["{\"a\":1}", "{\"b\":2}"]);
        for position in 0..file.len() {
            let mut damaged = file.clone();
            damaged[position] ^= 1;
            assert!(contents.check(damaged).is_err(), "byte {position}");
        }
        assert!(contents.check(file[..file.len() - 1].to_vec()).is_err());
        let other = packed(&["{\"a\":1}"]);
        assert!(Contents { lines_sha256: other.contents.lines_sha256, ..contents.clone() }.check(file).is_err());
    }

    #[test]
    fn the_same_rows_have_the_same_name_and_others_another() {
        let (one, again, other) = (packed(&["{}"]), packed(&["{}"]), packed(&["{ }"]));
        assert_eq!(one.contents, again.contents);
        assert_eq!(one.file, again.file);
        assert_ne!(one.contents.file_name("l"), other.contents.file_name("l"));
        assert!(one.contents.file_name("l").starts_with("l/token_ledger/token_ledger-before-2026-01-01-"));
        let manifest: serde_json::Value = serde_json::from_slice(&one.contents.manifest("l")).expect("JSON");
        assert_eq!(manifest["rows"], 1);
    }
}
