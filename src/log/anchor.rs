//! The anchor: a file outside the database, to which each signed checkpoint is appended before it is published.
//!
//! Restoring an old backup, or rewriting the database consistently, does not rewrite this file. So each new signature
//! is checked against it. The file has one JSON object per line, the newest last.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A signed note, as it was released.
    Checkpoint(String),
    /// From here on the log has this name: its earlier tree is declared lost.
    NewEpoch {
        origin: String,
        reason: String,
        /// ISO 8601.
        declared_at: String,
    },
}

#[derive(Clone, Debug)]
pub struct Anchor {
    path: PathBuf,
}

/// What the file says last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// The log's present name, where a new epoch was declared.
    pub origin: Option<String>,
    pub checkpoint: Option<String>,
}

/// A busy log adds a line of about 300 bytes each second. Beyond this, the older lines are put aside as `<name>.1`.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A torn line is looked for within so much.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

impl Anchor {
    /// The file at `path`; it is made with the first line.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it from the beginning.
    pub fn read(&self) -> io::Result<Last> {
        let mut last = Last::default();
        each_line(&self.path, |line| match line {
            Line::Checkpoint(note) => last.checkpoint = Some(note),
            Line::NewEpoch { origin, .. } => last = Last { origin: Some(origin), checkpoint: None },
        })?;
        Ok(last)
    }

    /// All checkpoints of the present epoch, the oldest first: of the file that was put aside, and of this one.
    pub fn checkpoints(&self) -> io::Result<Vec<String>> {
        let (mut present, mut notes) = (None, Vec::new());
        for path in [self.named(".1"), self.path.clone()] {
            each_line(&path, |line| match line {
                Line::Checkpoint(note) => notes.push(note),
                // A file that follows on another begins with the name that the log had.
                Line::NewEpoch { origin, .. } if present.as_ref() == Some(&origin) => {}
                Line::NewEpoch { origin, .. } => {
                    present = Some(origin);
                    notes.clear();
                }
            })?;
        }
        // Its first line repeats the last of the file before it.
        notes.dedup();
        Ok(notes)
    }

    fn named(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Appends a line; it is on the disk when this returns. `last`: what a new file begins with when this one is full.
    pub fn append(&self, line: &Line, last: &Last) -> io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() > BYTES_MAX) {
            self.rotate(last)?;
        }
        self.end_torn_line()?;
        let is_new = !self.path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(&encode(line))?;
        file.sync_all()?;
        if is_new { self.sync_folder() } else { Ok(()) }
    }

    /// A process that was killed may have left half a line, which must not swallow the next.
    fn end_torn_line(&self) -> io::Result<()> {
        let bytes = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        if bytes == 0 || last_bytes(&self.path, bytes, 1)? == b"\n" {
            return Ok(());
        }
        let text = last_bytes(&self.path, bytes, LINE_BYTES_MAX)?;
        let torn = text.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(bytes - torn)?;
        file.sync_all()
    }

    fn rotate(&self, last: &Last) -> io::Result<()> {
        let (new, old) = (self.named(".new"), self.named(".1"));
        let mut file = File::create(&new)?;
        if let Some(origin) = &last.origin {
            let reason = "as declared in the file before this one".to_owned();
            file.write_all(&encode(&Line::NewEpoch { origin: origin.clone(), reason, declared_at: String::new() }))?;
        }
        if let Some(note) = &last.checkpoint {
            file.write_all(&encode(&Line::Checkpoint(note.clone())))?;
        }
        file.sync_all()?;
        // At each instant one of the names leads to a whole file.
        let _ = std::fs::remove_file(&old);
        std::fs::hard_link(&self.path, &old)?;
        std::fs::rename(&new, &self.path)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

/// Reads a file line by line; one that is not there has none. A last line without its end was never released, and is passed over.
fn each_line(path: &Path, mut take: impl FnMut(Line)) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut text = String::new();
    while reader.read_line(&mut text)? > 0 {
        if !text.ends_with('\n') {
            break;
        }
        take(serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
        text.clear();
    }
    Ok(())
}

fn encode(line: &Line) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("texts are JSON");
    bytes.push(b'\n');
    bytes
}

/// The end of a file: so many bytes, or all of them.
fn last_bytes(path: &Path, bytes: u64, wanted: u64) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(bytes.saturating_sub(wanted)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(text: &str) -> Line {
        Line::Checkpoint(text.to_owned())
    }

    #[test]
    fn the_newest_line_is_found_whatever_a_kill_left_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let anchor = Anchor::at(&folder.path().join("anchor"));
        assert_eq!(anchor.read().expect("no file is no error"), Last::default());
        anchor.append(&checkpoint("one\n"), &Last::default()).expect("written");
        anchor.append(&checkpoint("two\n"), &Last::default()).expect("written");
        let mut torn = OpenOptions::new().append(true).open(anchor.path()).expect("there");
        torn.write_all(b"{\"checkpoint\":\"thr").expect("written");
        assert_eq!(anchor.read().expect("readable").checkpoint.as_deref(), Some("two\n"));
        anchor.append(&checkpoint("four\n"), &Last::default()).expect("written");
        assert_eq!(anchor.read().expect("readable").checkpoint.as_deref(), Some("four\n"));
    }

    #[test]
    fn a_new_epoch_forgets_the_checkpoints_before_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let anchor = Anchor::at(&folder.path().join("anchor"));
        anchor.append(&checkpoint("one\n"), &Last::default()).expect("written");
        let epoch =
            Line::NewEpoch { origin: "log/2".to_owned(), reason: "restored".to_owned(), declared_at: String::new() };
        anchor.append(&epoch, &Last::default()).expect("written");
        assert_eq!(anchor.read().expect("readable"), Last { origin: Some("log/2".to_owned()), checkpoint: None });
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_next_begins_with_the_newest_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let anchor = Anchor::at(&folder.path().join("anchor"));
        anchor
            .append(&checkpoint(&"x".repeat(usize::try_from(BYTES_MAX).expect("fits"))), &Last::default())
            .expect("written");
        let last = Last { origin: Some("log/2".to_owned()), checkpoint: Some("newest\n".to_owned()) };
        anchor.append(&checkpoint("next\n"), &last).expect("written");
        let found = anchor.read().expect("readable");
        assert_eq!(found, Last { checkpoint: Some("next\n".to_owned()), ..last });
        assert!(folder.path().join("anchor.1").exists());
    }

    #[test]
    fn the_history_is_that_of_the_present_epoch_in_both_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let anchor = Anchor::at(&folder.path().join("anchor"));
        let epoch = |origin: &str| Line::NewEpoch {
            origin: origin.to_owned(),
            reason: "restored".to_owned(),
            declared_at: String::new(),
        };
        let lines = |lines: &[Line]| lines.iter().flat_map(encode).collect::<Vec<u8>>();
        let of_old = [checkpoint("lost"), epoch("log/2"), checkpoint("one"), checkpoint("two")];
        std::fs::write(folder.path().join("anchor.1"), lines(&of_old)).expect("written");
        std::fs::write(anchor.path(), lines(&[epoch("log/2"), checkpoint("two"), checkpoint("three")]))
            .expect("written");
        assert_eq!(anchor.checkpoints().expect("readable"), ["one", "two", "three"]);
        anchor.append(&epoch("log/3"), &Last::default()).expect("written");
        assert_eq!(anchor.checkpoints().expect("readable"), Vec::<String>::new());
    }
}
