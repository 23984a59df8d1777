//! Removal of rows past their time. The life of an export, one type per state: `Exported → Verified → Recorded → Removed`.
//!
//! Only what was read back from the archive and found whole can be recorded, and only what is recorded can be removed. So the
//! dangerous mistakes do not compile:
//!
//! ```compile_fail
//! # use ledgerd::retention::{Books, Exported};
//! async fn unverified<B: Books>(exported: Exported, books: &mut B) {
//!     exported.remove(books).await; // an export has no such method
//! }
//! ```
//! ```compile_fail
//! # use ledgerd::retention::{Books, Verified};
//! async fn unrecorded<B: Books>(verified: Verified, books: &mut B) {
//!     verified.remove(books).await; // nor has a verified one
//! }
//! ```
//! ```compile_fail
//! # use ledgerd::retention::{Entered, Recorded};
//! # use ledgerd::domain::archive::Intact;
//! fn forged(entered: Entered, rows: Intact) -> Recorded {
//!     Recorded { entered, rows } // the fields are private
//! }
//! ```
//!
//! Killed between any two states, the next run goes on: a file in the archive is found by its name, an export that was entered
//! in the books and is not settled is verified, recorded and removed again, and each step knows what was done already.

use crate::record::digest::{Hash, sha256};
use crate::retention::file::{Contents, Intact, Packed};
use std::fmt;
use std::future::Future;

/// Why it does not go on, and so who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A server is away: the next run may succeed.
    Away,
    /// A setting, a credential or a privilege is wrong.
    Refused,
    /// The archive does not hold what was exported. The rows are where they were.
    Damaged,
    /// Anything else.
    Failed,
}

/// What went wrong, in one sentence.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Who must act.
    pub cause: Cause,
    what: String,
}

impl Trouble {
    /// Says what went wrong.
    pub fn new(cause: Cause, what: impl fmt::Display) -> Self {
        Self { cause, what: what.to_string() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {}

/// Where files are kept.
pub trait Shelf {
    /// Where that is: a URL without secrets.
    fn location(&self) -> &str;

    /// Keeps a file durably under this name, in the place of any other.
    fn keep(&self, name: &str, bytes: Vec<u8>) -> impl Future<Output = Result<(), Trouble>>;

    /// Reads a file of this many bytes. One that is not there or has another size is [`Cause::Damaged`].
    fn fetch(&self, name: &str, bytes: usize) -> impl Future<Output = Result<Vec<u8>, Trouble>>;
}

/// The tables, and what is entered about their exports.
pub trait Books {
    /// Enters an export that was verified.
    fn enter(&mut self, place: &Place, contents: &Contents) -> impl Future<Output = Result<Entered, Trouble>>;

    /// Removes the rows that are still exactly as they were exported, and settles the export, in one transaction. Gives
    /// their number.
    fn remove(&mut self, entered: &Entered, rows: &Intact) -> impl Future<Output = Result<i64, Trouble>>;

    /// Whether the export's audit event is in custody.
    fn is_recorded(&mut self, entered: &Entered) -> impl Future<Output = Result<bool, Trouble>>;

    /// Settles an export that removes nothing, because the archive does not hold it any more, or its event was rejected.
    fn give_up(&mut self, entered: &Entered) -> impl Future<Output = Result<(), Trouble>>;
}

/// Where audit events are recorded.
pub trait Journal {
    /// Records the export, once, however often it is asked.
    fn record(&self, entered: &Entered) -> impl Future<Output = Result<(), Trouble>>;
}

/// Where an export lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The archive's URL.
    pub location: String,
    /// The rows, below it.
    pub file: String,
    /// The manifest, below it.
    pub manifest: String,
    /// The manifest's SHA-256.
    pub manifest_sha256: Hash,
}

/// An export as the books have it.
#[derive(Clone, Debug)]
pub struct Entered {
    /// Its number.
    pub id: i64,
    /// Where it lies.
    pub place: Place,
    /// What it holds.
    pub contents: Contents,
    /// The audit event that records it.
    pub event_id: String,
    /// When it was entered, in microseconds since 1970.
    pub exported_at_us: i64,
}

/// In the archive, as far as the archive says.
#[derive(Debug)]
pub struct Exported {
    place: Place,
    contents: Contents,
    entered: Option<Entered>,
}

/// Read back from the archive, and whole.
#[derive(Debug)]
pub struct Verified {
    place: Place,
    contents: Contents,
    entered: Option<Entered>,
    rows: Intact,
}

/// An audit event says so.
#[derive(Debug)]
pub struct Recorded {
    entered: Entered,
    rows: Intact,
}

/// The end.
#[derive(Debug)]
pub struct Removed {
    /// The export.
    pub entered: Entered,
    /// How many rows left their table. Those that had changed since stayed.
    pub rows: i64,
}

impl Exported {
    /// Brings a file into the archive, and its manifest after it.
    pub async fn keep<S: Shelf>(packed: Packed, ledger: &str, archive: &S) -> Result<Self, Trouble> {
        let Packed { contents, file } = packed;
        let manifest = contents.manifest(ledger);
        let place = Place {
            location: archive.location().to_owned(),
            file: contents.file_name(ledger),
            manifest: contents.manifest_name(ledger),
            manifest_sha256: sha256(&manifest),
        };
        for (name, bytes) in [(&place.file, file), (&place.manifest, manifest)] {
            // A run that was killed may have brought it already. Any other bytes under this name are no such file.
            let found = match archive.fetch(name, bytes.len()).await {
                Ok(found) => found == bytes,
                Err(trouble) if trouble.cause == Cause::Damaged => false,
                Err(trouble) => return Err(trouble),
            };
            if !found {
                archive.keep(name, bytes).await?;
            }
        }
        Ok(Self { place, contents, entered: None })
    }

    /// Goes on with an export that an earlier run has entered.
    pub fn resume(entered: Entered) -> Self {
        Self { place: entered.place.clone(), contents: entered.contents.clone(), entered: Some(entered) }
    }

    /// Reads it back: the bytes, their hashes, each row.
    pub async fn verify<S: Shelf>(self, archive: &S) -> Result<Verified, Trouble> {
        let Self { place, contents, entered } = self;
        let differs = |name: &str, why: &str| {
            Trouble::new(Cause::Damaged, format!("the archive {}: {name}: {why}", place.location))
        };
        let size = usize::try_from(contents.file_bytes).map_err(|_| differs(&place.file, "its size is impossible"))?;
        let rows = contents.check(archive.fetch(&place.file, size).await?).map_err(|why| differs(&place.file, &why))?;
        let ledger = place.file.split('/').next().unwrap_or_default();
        let expected = contents.manifest(ledger);
        let manifest = archive.fetch(&place.manifest, expected.len()).await?;
        if sha256(&manifest) != place.manifest_sha256 {
            return Err(differs(&place.manifest, "its SHA-256 is another"));
        }
        Ok(Verified { place, contents, entered, rows })
    }
}

impl Verified {
    /// Enters the export in the books, and records the one audit event.
    pub async fn record<B: Books, J: Journal>(self, books: &mut B, journal: &J) -> Result<Recorded, Trouble> {
        let entered = match self.entered {
            Some(entered) => entered,
            None => books.enter(&self.place, &self.contents).await?,
        };
        journal.record(&entered).await?;
        if !books.is_recorded(&entered).await? {
            books.give_up(&entered).await?;
            let what =
                format!("the audit event {} was rejected: the next run exports the rows again", entered.event_id);
            return Err(Trouble::new(Cause::Failed, what));
        }
        Ok(Recorded { entered, rows: self.rows })
    }
}

impl Recorded {
    /// Removes exactly the exported rows.
    pub async fn remove<B: Books>(self, books: &mut B) -> Result<Removed, Trouble> {
        let rows = books.remove(&self.entered, &self.rows).await?;
        Ok(Removed { entered: self.entered, rows })
    }
}
