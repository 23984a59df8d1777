//! The section `[checkpoint]`: the key that signs the log, the witnesses, the anchor file, and the signing interval.

use crate::config::ConfigError;
use crate::config::reader::SettingsReader;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tlog::note::SignerKey;

#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// A file that holds the log's key; without one nothing is signed.
    key_file: Option<PathBuf>,
    anchor_file: Option<PathBuf>,
    /// Who is asked to cosign: `URL VKEY` each.
    pub witnesses: Vec<String>,
    /// A tree that grew is signed after this time.
    pub interval: Duration,
    /// One that did not is announced again after this time.
    pub heartbeat: Duration,
}

const INTERVAL_MAX: Duration = Duration::from_hours(1);
const HEARTBEAT_MAX: Duration = Duration::from_hours(24);

impl SettingsReader {
    pub(crate) fn checkpoint(&self) -> Result<Checkpoints, ConfigError> {
        Ok(Checkpoints {
            key_file: self.path("checkpoint.key_file")?.or_else(|| crate::config::credential("ledgerd.signing-key")),
            anchor_file: self.path("checkpoint.anchor_file")?,
            witnesses: self.list("checkpoint.witnesses")?,
            interval: self.duration("checkpoint.interval", INTERVAL_MAX)?,
            heartbeat: self.duration("checkpoint.heartbeat", HEARTBEAT_MAX)?,
        })
    }
}

impl Checkpoints {
    /// The key, read from its file. `None`: this log is not signed.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn key(&self) -> Result<Option<SignerKey>, String> {
        let Some(path) = &self.key_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("checkpoint.key_file: cannot read {}: {error}", path.display()))?;
        let key = SignerKey::parse(text.trim_end());
        key.map(Some).map_err(|error| format!("checkpoint.key_file: {}: {error}", path.display()))
    }

    /// The anchor file: as configured, or in the state folder that systemd gives.
    ///
    /// # Errors
    /// A sentence that says what to set.
    pub fn anchor_file(&self) -> Result<PathBuf, String> {
        let in_state_folder = || Some(Path::new(&std::env::var_os("STATE_DIRECTORY")?).join("anchor"));
        self.anchor_file.clone().or_else(in_state_folder).ok_or_else(|| {
            "checkpoint.anchor_file is not set: a log that is signed keeps its checkpoints in a file of its own"
                .to_owned()
        })
    }
}
