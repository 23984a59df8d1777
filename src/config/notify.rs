//! The entries `[[notify]]`: the targets that are told of events, each with its URL, its events and its secret.

use crate::config::ConfigError;
use crate::config::reader::{SettingsReader, credential};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use strum::{EnumString, IntoStaticStr, VariantNames};
use url::Url;

/// Each target has a task of its own.
const TARGETS_MAX: usize = 32;
const NAME_CHARS_MAX: usize = 64;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const GIVE_UP_AFTER_DEFAULT: Duration = Duration::from_hours(72);
const GIVE_UP_AFTER_MAX: Duration = Duration::from_hours(30 * 24);
const SECRET_PREFIX: &str = "whsec_";
/// The bounds that Standard Webhooks gives.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;

/// What a target may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum NotifyEvent {
    /// An agent's day has another budget status.
    Budget,
    /// A message was rejected.
    Reject,
    /// An audit event has the outcome BLOCKED.
    Blocked,
    /// A lane stands still, or moves again.
    Stall,
    /// A check found a difference; the stream lost sequences; a checkpoint cannot be signed.
    Integrity,
}

impl NotifyEvent {
    pub const fn name(self) -> &'static str {
        self.into_str()
    }
}

/// A target.
#[derive(Clone, PartialEq, Eq)]
pub struct NotifyTarget {
    /// What it is called in the database, in metrics and in the log.
    pub name: String,
    /// May hold a secret; only its host is shown.
    pub url: Url,
    pub events: BTreeSet<NotifyEvent>,
    /// Signs each notification; while a secret is exchanged there are two.
    pub secrets: Vec<SigningSecret>,
    /// Of one attempt.
    pub timeout: Duration,
    /// A notification that is older, and fails, is not tried again.
    pub give_up_after: Duration,
}

impl NotifyTarget {
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

impl fmt::Debug for NotifyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyTarget").field("name", &self.name).field("events", &self.events).finish_non_exhaustive()
    }
}

/// The key of an HMAC. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// Parses `whsec_` and base64. The prefix may be missing.
    ///
    /// # Errors
    /// What is expected, without the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let key = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).ok();
        let is_good = |key: &Vec<u8>| (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&key.len());
        key.filter(is_good)
            .map(Self)
            .ok_or("whsec_ and the base64 of 24 to 64 bytes (`openssl rand -base64 32` makes it)")
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    url: String,
    events: Vec<String>,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    timeout: Option<String>,
    give_up_after: Option<String>,
}

impl SettingsReader {
    pub(crate) fn notify(&self) -> Result<Vec<NotifyTarget>, ConfigError> {
        let mut targets: Vec<NotifyTarget> = Vec::new();
        let tables = self.tables("notify")?;
        if tables.len() > TARGETS_MAX {
            return Err(ConfigError(format!(
                "notify has {} entries: at most {TARGETS_MAX} are possible",
                tables.len()
            )));
        }
        for (position, table) in tables.into_iter().enumerate() {
            let at = format!("notify[{}]", position + 1);
            let fault =
                |key: &str, expected: &str| ConfigError(format!("{at}.{key}{}: it must be {expected}", table.place));
            let entry: Entry = table.parse(&at)?;
            let target = entry.target(&fault)?;
            if targets.iter().any(|other| other.name == target.name) {
                return Err(fault("name", &format!("another: there are two targets {}", target.name)));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

impl Entry {
    fn target(self, fault: &impl Fn(&str, &str) -> ConfigError) -> Result<NotifyTarget, ConfigError> {
        let url = Url::parse(&self.url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let url = url.ok_or_else(|| fault("url", "an address such as https://host/path"))?;
        let name = self.name.clone().unwrap_or_else(|| url.host_str().unwrap_or_default().to_owned());
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(is_good) {
            return Err(fault("name", &format!("1 to {NAME_CHARS_MAX} letters, digits, - . and _")));
        }
        let one_of = || fault("events", &format!("a list of at least one of {}", NotifyEvent::VARIANTS.join(", ")));
        let events: Result<BTreeSet<_>, _> = self.events.iter().map(|event| event.parse::<NotifyEvent>()).collect();
        let events = events.ok().filter(|events| !events.is_empty()).ok_or_else(one_of)?;
        let duration = |key: &str, text: Option<&String>, default: Duration, max: Duration| {
            let Some(text) = text else { return Ok(default) };
            let duration = humantime::parse_duration(text).ok();
            duration.filter(|duration| !duration.is_zero() && *duration <= max).ok_or_else(|| {
                let max = humantime::format_duration(max);
                fault(key, &format!("a duration with its unit, such as 10s, above zero and at most {max}"))
            })
        };
        Ok(NotifyTarget {
            secrets: self.secrets(&name, fault)?,
            timeout: duration("timeout", self.timeout.as_ref(), TIMEOUT_DEFAULT, TIMEOUT_MAX)?,
            give_up_after: duration(
                "give_up_after",
                self.give_up_after.as_ref(),
                GIVE_UP_AFTER_DEFAULT,
                GIVE_UP_AFTER_MAX,
            )?,
            name,
            url,
            events,
        })
    }

    /// From the entry itself, from the file that it names, or from systemd's credential.
    fn secrets(
        &self,
        name: &str,
        fault: &impl Fn(&str, &str) -> ConfigError,
    ) -> Result<Vec<SigningSecret>, ConfigError> {
        let named = self.secret_file.clone().or_else(|| credential(&format!("ledgerd.notify-{name}")));
        let text = match (&self.secret, named) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(&path)
                .map_err(|error| fault("secret_file", &format!("readable: {}: {error}", path.display())))?,
            (None, None) => return Err(fault("secret", "set, or secret_file names a file that holds it")),
        };
        let secrets: Result<Vec<_>, _> = text.split_whitespace().map(SigningSecret::parse).collect();
        match secrets {
            Ok(secrets) if (1..=2).contains(&secrets.len()) => Ok(secrets),
            Ok(_) => Err(fault("secret", "one secret, or two with a space between them while it is exchanged")),
            Err(expected) => Err(fault("secret", expected)),
        }
    }
}
