//! The profile: a set of defaults. `strict` follows the specification to the letter; `hegemon` also accepts what the
//! public agents send.

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
    pub key: String,
    pub default: String,
    /// What was written down instead, and where.
    pub overridden: Option<String>,
}

pub(crate) const KEY: &str = "profile";
pub(crate) const STRICT: &str = "strict";
pub(crate) const HEGEMON_NAME: &str = "hegemon";
