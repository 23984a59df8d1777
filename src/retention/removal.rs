//! Removes expired rows. An export has one type per state: `Exported → VerifiedExport → Recorded → Removed`.
//!
//! Only what was read back from the archive and found intact can be recorded, and only what is recorded can be removed.
//! So the dangerous mistakes do not compile. The first block does: the names of the others are real.
//!
//! ```
//! use ledgerd::retention::file::Intact;
//! use ledgerd::retention::removal::{Export, ExportRecords, Exported, Recorded, VerifiedExport};
//! ```
//! ```compile_fail
//! # use ledgerd::retention::removal::{ExportRecords, Exported};
//! async fn unverified<B: ExportRecords>(exported: Exported, exports: &mut B) {
//!     exported.remove(exports).await; // an export has no such method
//! }
//! ```
//! ```compile_fail
//! # use ledgerd::retention::removal::{ExportRecords, VerifiedExport};
//! async fn unrecorded<B: ExportRecords>(verified: VerifiedExport, exports: &mut B) {
//!     verified.remove(exports).await; // nor has a verified one
//! }
//! ```
//! ```compile_fail
//! # use ledgerd::retention::removal::{Export, Recorded};
//! # use ledgerd::retention::file::Intact;
//! fn forged(entered: Export, rows: Intact) -> Recorded {
//!     Recorded { entered, rows } // the fields are private
//! }
//! ```
//!
//! After a kill between any two states, the next run continues. It finds a file in the archive by its name. An export
//! that was entered and is not settled is verified, recorded and removed again, and each step recognises finished work.

use crate::record::digest::{Hash, sha256};
use crate::retention::file::{Contents, Intact, Packed};
use std::fmt;
use std::future::Future;

/// Why it does not go on, and so who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// A server is away: the next run may succeed.
    Away,
    /// A setting, a credential or a privilege is wrong.
    Refused,
    /// The archive does not hold what was exported. The rows are where they were.
    Damaged,
    Failed,
}

/// What went wrong, in one sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct RetentionError {
    pub cause: FailureCause,
    what: String,
}

impl RetentionError {
    /// Says what went wrong.
    pub fn new(cause: FailureCause, what: impl fmt::Display) -> Self {
        Self { cause, what: what.to_string() }
    }
}

pub trait ArchiveStore {
    /// Where that is: a URL without secrets.
    fn location(&self) -> &str;

    /// Keeps a file durably under this name, in the place of any other.
    fn keep(&self, name: &str, bytes: Vec<u8>) -> impl Future<Output = Result<(), RetentionError>>;

    /// Reads a file of this many bytes. One that is not there or has another size is [`FailureCause::Damaged`].
    fn fetch(&self, name: &str, bytes: usize) -> impl Future<Output = Result<Vec<u8>, RetentionError>>;
}

/// The tables, and what is entered about their exports.
pub trait ExportRecords {
    /// Enters an export that was verified.
    fn enter(
        &mut self,
        place: &ArchivedFiles,
        contents: &Contents,
    ) -> impl Future<Output = Result<Export, RetentionError>>;

    /// Removes the rows that are still exactly as they were exported, and settles the export, in one transaction. Gives
    /// their number.
    fn remove(&mut self, entered: &Export, rows: &Intact) -> impl Future<Output = Result<i64, RetentionError>>;

    /// Whether the export's audit event is in custody.
    fn is_recorded(&mut self, entered: &Export) -> impl Future<Output = Result<bool, RetentionError>>;

    /// Settles an export that removes nothing, because the archive does not hold it any more, or its event was rejected.
    fn give_up(&mut self, entered: &Export) -> impl Future<Output = Result<(), RetentionError>>;
}

/// Where audit events are recorded.
pub trait AuditTrail {
    /// Records the export, once, however often it is asked.
    fn record(&self, entered: &Export) -> impl Future<Output = Result<(), RetentionError>>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedFiles {
    pub location: String,
    pub file: String,
    pub manifest: String,
    /// The manifest's SHA-256.
    pub manifest_sha256: Hash,
}

/// An export as the exports have it.
#[derive(Clone, Debug)]
pub struct Export {
    pub id: i64,
    pub place: ArchivedFiles,
    pub contents: Contents,
    /// The audit event that records it.
    pub event_id: String,
    /// When it was entered, in microseconds since 1970.
    pub exported_at_us: i64,
}

/// In the archive, as far as the archive says.
#[derive(Debug)]
pub struct Exported {
    place: ArchivedFiles,
    contents: Contents,
    entered: Option<Export>,
}

/// Read back from the archive, and whole.
#[derive(Debug)]
pub struct VerifiedExport {
    place: ArchivedFiles,
    contents: Contents,
    entered: Option<Export>,
    rows: Intact,
}

/// An audit event says so.
#[derive(Debug)]
pub struct Recorded {
    entered: Export,
    rows: Intact,
}

#[derive(Debug)]
pub struct Removed {
    pub entered: Export,
    /// How many rows left their table. Those that had changed since stayed.
    pub rows: i64,
}

impl Exported {
    /// Brings a file into the archive, and its manifest after it.
    pub async fn keep<S: ArchiveStore>(packed: Packed, ledger: &str, archive: &S) -> Result<Self, RetentionError> {
        let Packed { contents, file } = packed;
        let manifest = contents.manifest(ledger);
        let place = ArchivedFiles {
            location: archive.location().to_owned(),
            file: contents.file_name(ledger),
            manifest: contents.manifest_name(ledger),
            manifest_sha256: sha256(&manifest),
        };
        for (name, bytes) in [(&place.file, file), (&place.manifest, manifest)] {
            // A run that was killed may have brought it already. Any other bytes under this name are no such file.
            let found = match archive.fetch(name, bytes.len()).await {
                Ok(found) => found == bytes,
                Err(trouble) if trouble.cause == FailureCause::Damaged => false,
                Err(trouble) => return Err(trouble),
            };
            if !found {
                archive.keep(name, bytes).await?;
            }
        }
        Ok(Self { place, contents, entered: None })
    }

    /// Goes on with an export that an earlier run has entered.
    pub fn resume(entered: Export) -> Self {
        Self { place: entered.place.clone(), contents: entered.contents.clone(), entered: Some(entered) }
    }

    /// Reads it back: the bytes, their hashes, each row.
    pub async fn verify<S: ArchiveStore>(self, archive: &S) -> Result<VerifiedExport, RetentionError> {
        let Self { place, contents, entered } = self;
        let differs = |name: &str, why: &str| {
            RetentionError::new(FailureCause::Damaged, format!("the archive {}: {name}: {why}", place.location))
        };
        let size = usize::try_from(contents.file_bytes).map_err(|_| differs(&place.file, "its size is impossible"))?;
        let rows = contents.check(archive.fetch(&place.file, size).await?).map_err(|why| differs(&place.file, &why))?;
        let ledger = place.file.split('/').next().unwrap_or_default();
        let expected = contents.manifest(ledger);
        let manifest = archive.fetch(&place.manifest, expected.len()).await?;
        if sha256(&manifest) != place.manifest_sha256 {
            return Err(differs(&place.manifest, "its SHA-256 is another"));
        }
        Ok(VerifiedExport { place, contents, entered, rows })
    }
}

impl VerifiedExport {
    /// Enters the export in the exports, and records the one audit event.
    pub async fn record<B: ExportRecords, J: AuditTrail>(
        self,
        exports: &mut B,
        trail: &J,
    ) -> Result<Recorded, RetentionError> {
        let entered = match self.entered {
            Some(entered) => entered,
            None => exports.enter(&self.place, &self.contents).await?,
        };
        trail.record(&entered).await?;
        if !exports.is_recorded(&entered).await? {
            exports.give_up(&entered).await?;
            let what =
                format!("the audit event {} was rejected: the next run exports the rows again", entered.event_id);
            return Err(RetentionError::new(FailureCause::Failed, what));
        }
        Ok(Recorded { entered, rows: self.rows })
    }
}

impl Recorded {
    /// Removes exactly the exported rows.
    pub async fn remove<B: ExportRecords>(self, exports: &mut B) -> Result<Removed, RetentionError> {
        let rows = exports.remove(&self.entered, &self.rows).await?;
        Ok(Removed { entered: self.entered, rows })
    }
}
