//! The stored state of a witness: the last checkpoint that it cosigned of each log. Each log has one file, which holds
//! the log's own signed note. A new note replaces it atomically, and is on the disk before the witness answers.

use parking_lot::{Mutex, MutexGuard};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tlog::checkpoint::{Log, Origin, SignedCheckpoint};
use tlog::tree::TreeHead;

/// What stands for itself in a file's name.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');
/// Below the limit of the file systems, with room for what is appended.
const FILE_NAME_BYTES_MAX: usize = 200;

/// The folder, which no other process uses.
#[derive(Debug)]
pub(crate) struct WitnessMemory {
    folder: PathBuf,
    /// What was read or stored last, by which a folder that goes away is noticed.
    seen: Mutex<BTreeMap<Origin, LastCosigned>>,
    _lock: File,
}

/// What a file held a moment ago.
#[derive(Debug)]
struct LastCosigned {
    checkpoint: SignedCheckpoint,
    /// It was stored by us, and is on the disk. What was only read may be there and lost with the next power cut.
    is_durable: bool,
}

impl LastCosigned {
    /// Whether storing this would tell the disk nothing that it does not know: neither a tree, nor another key of the log.
    fn covers(&self, own: &SignedCheckpoint) -> bool {
        let mut lines = own.note().signatures().iter();
        let has = self.checkpoint.note().signatures();
        self.is_durable && self.checkpoint.head() == own.head() && lines.all(|line| has.contains(line))
    }
}

/// The state cannot be used: without it, a witness might cosign what contradicts what it cosigned before.
#[derive(Debug)]
pub(crate) enum BadState {
    /// The folder or a file of it cannot be opened, read or written.
    Io { path: PathBuf, error: io::Error },
    /// Another process uses the folder.
    InUse { folder: PathBuf },
    /// A file holds something else than the log's checkpoint.
    Unreadable { path: PathBuf, why: String },
    /// What was there a moment ago is not there any more.
    Lost {
        path: PathBuf,
        was: TreeHead,
        /// What is in it now, if it is there.
        is: Option<TreeHead>,
    },
    /// The origin is too long for a file's name.
    OriginTooLong { origin: Origin },
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
            BadState::Lost { path, was, is } => {
                write!(f, "{} had the checkpoint of size {}, and ", path.display(), was.size)?;
                match is {
                    None => f.write_str("is gone")?,
                    Some(is) if is.size == was.size => f.write_str("has another of that size now")?,
                    Some(is) => write!(f, "has that of size {} now", is.size)?,
                }
                f.write_str(
                    ": mount its folder again, or restore the newest copy of it, and do not restart the witness before, for it \
                    would believe what it finds then",
                )
            }
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

impl WitnessMemory {
    /// The state in a folder, which exists: one that is missing may be a disk that was not mounted.
    pub(crate) fn open(folder: &Path) -> Result<Self, BadState> {
        let path = folder.join("lock");
        let failed = |error| BadState::Io { path: path.clone(), error };
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), seen: Mutex::default(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BadState::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The last checkpoint of a log that was cosigned. It is read anew each time, and must not be older than what was there before:
    /// a folder that is not mounted any more looks like one in which nothing was ever stored.
    pub(crate) fn latest(&self, log: &Log) -> Result<Option<SignedCheckpoint>, BadState> {
        let path = self.path(log.origin())?;
        let latest = match std::fs::read(&path) {
            Ok(note) => match SignedCheckpoint::parse(&note, log) {
                Ok(checkpoint) => Some(checkpoint),
                Err(error) => return Err(BadState::Unreadable { path, why: error.to_string() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(BadState::Io { path, error }),
        };
        let is = latest.as_ref().map(SignedCheckpoint::head);
        let mut seen = self.seen();
        if let Some(before) = seen.get_mut(log.origin()) {
            let was = before.checkpoint.head();
            if is.is_none_or(|is| is.size < was.size || is.size == was.size && is.root != was.root) {
                before.is_durable = false;
                return Err(BadState::Lost { path, was, is });
            }
        }
        if let Some(checkpoint) = &latest
            && seen.get(log.origin()).is_none_or(|before| before.checkpoint != *checkpoint)
        {
            seen.insert(log.origin().clone(), LastCosigned { checkpoint: checkpoint.clone(), is_durable: false });
        }
        Ok(latest)
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<Origin, LastCosigned>> {
        self.seen.lock()
    }

    /// Stores a checkpoint in the place of the one before it, signed by the log alone: what strangers wrote below it could be a line
    /// in the name of a key that the log has later. It is on the disk when this returns; what is there already is not written again,
    /// for anybody can ask for it as often as he likes.
    pub(crate) fn store(&self, log: &Log, checkpoint: &SignedCheckpoint) -> Result<(), BadState> {
        let path = self.path(log.origin())?;
        let own = checkpoint.without_strangers(log);
        if self.seen().get(log.origin()).is_some_and(|seen| seen.covers(&own)) {
            return Ok(());
        }
        self.replace(&path, own.to_string().as_bytes()).map_err(|error| BadState::Io { path, error })?;
        self.seen().insert(log.origin().clone(), LastCosigned { checkpoint: own, is_durable: true });
        Ok(())
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
    pub(crate) fn keep_evidence(&self, origin: &Origin, size: u64, latest: &str, asked: &str) {
        let Ok(path) = self.path(origin) else { return };
        let path = path.with_added_extension(format!("fork-{size}"));
        if path.exists() {
            return;
        }
        let evidence = format!("cosigned before:\n\n{latest}\nasked for now:\n\n{asked}");
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
