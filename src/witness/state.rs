//! What did the witness cosign last? One file for each log, the log's own signed note, which takes the place of the one before it
//! at once, and is on the disk before anybody is told.

use crate::tlog::checkpoint::{Log, Origin, SignedCheckpoint};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What stands for itself in a file's name.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');
/// Below the limit of the file systems, with room for what is appended.
const FILE_NAME_BYTES_MAX: usize = 200;

/// The folder, which no other process uses.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    _lock: File,
}

/// The state cannot be used: without it, a witness might cosign what contradicts what it cosigned before.
#[derive(Debug)]
pub enum BadState {
    /// The folder or a file of it cannot be opened, read or written.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process uses the folder.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A file holds something else than the log's checkpoint.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The origin is too long for a file's name.
    OriginTooLong {
        /// It.
        origin: Origin,
    },
}

impl fmt::Display for BadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadState::Io { path, error } => write!(f, "the witness's state {}: {error}", path.display()),
            BadState::InUse { folder } => {
                write!(f, "another process uses {}: a state has one witness", folder.display())
            }
            BadState::Unreadable { path, why } => write!(
                f,
                "{} is not the last checkpoint of its log ({why}): restore the newest copy of it; if the log has another key \
                now, give both with --log",
                path.display()
            ),
            BadState::OriginTooLong { origin } => {
                write!(
                    f,
                    "the origin {origin} is too long: the name of its file has at most {FILE_NAME_BYTES_MAX} bytes"
                )
            }
        }
    }
}

impl std::error::Error for BadState {}

impl State {
    /// The state in a folder, which exists: one that is missing may be a disk that was not mounted.
    pub fn open(folder: &Path) -> Result<Self, BadState> {
        let path = folder.join("lock");
        let failed = |error| BadState::Io { path: path.clone(), error };
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BadState::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The last checkpoint of a log that was cosigned. It is read anew each time, so memory and disk cannot disagree.
    pub fn latest(&self, log: &Log) -> Result<Option<SignedCheckpoint>, BadState> {
        let path = self.path(log.origin())?;
        let note = match std::fs::read(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BadState::Io { path, error }),
        };
        let checkpoint = SignedCheckpoint::parse(&note, log);
        checkpoint.map(Some).map_err(|error| BadState::Unreadable { path, why: error.to_string() })
    }

    /// Stores a checkpoint in the place of the one before it, signed by the log alone: what strangers wrote below it could be a line
    /// in the name of a key that the log has later. It is on the disk when this returns.
    pub fn store(&self, log: &Log, checkpoint: &SignedCheckpoint) -> Result<(), BadState> {
        let path = self.path(log.origin())?;
        let own = checkpoint.without_strangers(log);
        self.replace(&path, own.to_string().as_bytes()).map_err(|error| BadState::Io { path, error })
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let new = path.with_added_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Keeps the first proof of a fork at a size. The log has said it already, so a disk that is full costs nothing more.
    pub fn keep_evidence(&self, origin: &Origin, size: u64, latest: &str, request: &str) {
        let Ok(path) = self.path(origin) else { return };
        let path = path.with_added_extension(format!("fork-{size}"));
        if path.exists() {
            return;
        }
        let evidence = format!("cosigned before:\n\n{latest}\nasked for now:\n\n{request}");
        match self.replace(&path, evidence.as_bytes()) {
            Ok(()) => tracing::error!("the evidence of the fork is in {}", path.display()),
            Err(error) => tracing::error!("the evidence of the fork cannot be kept in {}: {error}", path.display()),
        }
    }

    fn path(&self, origin: &Origin) -> Result<PathBuf, BadState> {
        let name = utf8_percent_encode(origin.as_str(), ESCAPED).to_string();
        if name.len() > FILE_NAME_BYTES_MAX {
            return Err(BadState::OriginTooLong { origin: origin.clone() });
        }
        // An ending of its own: no origin's file is that of another's lock, copy or evidence.
        Ok(self.folder.join(format!("{name}.checkpoint")))
    }
}
