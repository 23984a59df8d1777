//! The profile: a set of defaults. `strict` is the specification to the letter; `hegemon` admits what the public agents send.

use crate::config::ConfigError;
use crate::config::reader::Reader;

/// The defaults of `hegemon` that are not those of `strict`.
pub(crate) const HEGEMON: &str = include_str!("../ledgerd.hegemon.toml");

/// Which defaults count, and what that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// As it is set.
    pub name: &'static str,
    /// The settings whose default it changes.
    pub changes: Vec<Change>,
}

/// A setting whose default the profile changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its dotted name.
    pub key: String,
    /// The profile's default.
    pub default: String,
    /// What was written down instead, and where.
    pub overridden: Option<String>,
}

/// The top-level key.
pub(crate) const KEY: &str = "profile";
const STRICT: &str = "strict";
pub(crate) const HEGEMON_NAME: &str = "hegemon";

impl Reader {
    pub(crate) fn profile(&self) -> Result<Profile, ConfigError> {
        let name = self.one_of(KEY, &[(STRICT, STRICT), (HEGEMON_NAME, HEGEMON_NAME)])?;
        Ok(Profile { name, changes: self.changes() })
    }
}
