//! Looks up each setting and parses it to its type. Later sources override earlier ones: defaults, profile, file,
//! environment variables. No other file uses the `config` crate.

use crate::config::profile::{self, Change, Profile};
use crate::config::{ConfigError, DEFAULT_FILE, DEFAULTS};
use config::{Environment, File, FileFormat, Value, ValueKind};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ENVIRONMENT_PREFIX: &str = "LEDGERD";
const SEPARATOR: &str = "__";

/// All values that were found, by dotted key, each with the place it stands in.
pub(crate) struct SettingsReader {
    values: BTreeMap<String, Value>,
    /// The defaults that the profile changes.
    of_profile: BTreeMap<String, Value>,
    file: PathBuf,
}

impl SettingsReader {
    /// Reads the defaults, then those of the profile, then `file` (or [`DEFAULT_FILE`] where it exists), then these variables,
    /// or those of the process.
    pub(crate) fn of(file: Option<&Path>, variables: Option<HashMap<String, String>>) -> Result<Self, ConfigError> {
        let source = match file {
            Some(path) => File::from(path).format(FileFormat::Toml),
            None => File::from(Path::new(DEFAULT_FILE)).format(FileFormat::Toml).required(false),
        };
        let environment = Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator(SEPARATOR).separator(SEPARATOR);
        let broken = |error: config::ConfigError| ConfigError(error.to_string());
        let defaults = || File::from_str(DEFAULTS, FileFormat::Toml);
        let variables = variables.unwrap_or_else(variables_of_process);
        let known = config::Config::builder().add_source(defaults()).build().map_err(broken)?;
        refuse_single_underscores(&variables, &flattened(&known))?;
        let environment = environment.source(Some(variables));
        let written = config::Config::builder().add_source(source).add_source(environment).build().map_err(broken)?;
        let hegemon = config::Config::builder().add_source(File::from_str(profile::HEGEMON, FileFormat::Toml));
        let hegemon = flattened(&hegemon.build().map_err(broken)?);
        let written = flattened(&written);
        let is_hegemon = written.get(profile::KEY).is_some_and(|name| name.to_string() == profile::HEGEMON_NAME);
        let of_profile = if is_hegemon { hegemon } else { BTreeMap::new() };

        let known = flattened(&known);
        let mut values = known.clone();
        values.extend(of_profile.clone());
        values.extend(written);
        let reader = Self { values, of_profile, file: file.unwrap_or(Path::new(DEFAULT_FILE)).to_owned() };
        reader.refuse_unknown_keys(&known)?;
        Ok(reader)
    }

    pub(crate) fn profile(&self) -> Result<Profile, ConfigError> {
        let names = [(profile::STRICT, profile::STRICT), (profile::HEGEMON_NAME, profile::HEGEMON_NAME)];
        Ok(Profile { name: self.one_of(profile::KEY, &names)?, changes: self.changes() })
    }

    /// The settings whose default the profile changes.
    fn changes(&self) -> Vec<Change> {
        let change = |(key, default): (&String, &Value)| {
            let value = self.value(key);
            let is_written = !self.is_default(key);
            let overridden = is_written.then(|| format!("{}{}", shown(&value), self.place(&value)));
            Change { key: key.clone(), default: shown(default), overridden }
        };
        self.of_profile.iter().map(change).collect()
    }

    fn refuse_unknown_keys(&self, known: &BTreeMap<String, Value>) -> Result<(), ConfigError> {
        let Some((key, value)) = self.values.iter().find(|(key, _)| !known.contains_key(*key)) else { return Ok(()) };
        let section = key.split_once('.').map_or(key.as_str(), |(section, _)| section);
        if known.get(section).is_some_and(|value| matches!(value.kind, ValueKind::Array(_))) {
            return Err(ConfigError(format!(
                "{key}{}: there may be several, so write [[{section}]]",
                self.place(value)
            )));
        }
        let is_sibling = |name: &&String| name.starts_with(&format!("{section}."));
        let siblings: Vec<&str> = known.keys().filter(is_sibling).map(String::as_str).collect();
        let hint = if siblings.is_empty() {
            "there is no such section".to_owned()
        } else {
            format!("there are {}", siblings.join(", "))
        };
        let shown = if may_be_secret(key, &value.to_string()) { "…".to_owned() } else { value.to_string() };
        Err(ConfigError(format!("unknown key {key} = {shown}{}: {hint}", self.place(value))))
    }

    fn value(&self, key: &str) -> Value {
        self.values.get(key).expect("each key has a default, and unknown keys were refused").clone()
    }

    fn place(&self, value: &Value) -> String {
        match value.origin() {
            Some(origin) if origin.contains("environment") => " in the environment".to_owned(),
            // The library shortens the path to one from the working folder.
            Some(_) => format!(" in {}", self.file.display()),
            None => String::new(),
        }
    }

    /// Whether nobody has written the setting down.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        self.value(key).origin().is_none()
    }

    pub(crate) fn fault(&self, key: &str, expected: &str) -> ConfigError {
        let value = self.value(key);
        // Of a list of hashes, one may be a token by mistake.
        let shown = if key.ends_with("url") || key.ends_with(".tokens") { "…".to_owned() } else { value.to_string() };
        ConfigError(format!("{key} = \"{shown}\"{}: it must be {expected}", self.place(&value)))
    }

    pub(crate) fn text(&self, key: &str) -> Result<String, ConfigError> {
        self.value(key).into_string().map_err(|_| self.fault(key, "text"))
    }

    pub(crate) fn token(&self, key: &str) -> Result<String, ConfigError> {
        let text = self.text(key)?;
        let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if good { Ok(text) } else { Err(self.fault(key, "a name of letters, digits, - and _")) }
    }

    pub(crate) fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(Some(self.text(key)?).filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    pub(crate) fn number(&self, key: &str, min: usize, max: usize) -> Result<usize, ConfigError> {
        let number = self.value(key).into_int().ok().and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| self.fault(key, &format!("a whole number from {min} to {max}")))
    }

    pub(crate) fn duration(&self, key: &str, max: Duration) -> Result<Duration, ConfigError> {
        let duration = humantime::parse_duration(&self.text(key)?).ok();
        duration.filter(|duration| !duration.is_zero() && *duration <= max).ok_or_else(|| {
            let max = humantime::format_duration(max);
            self.fault(key, &format!("a duration with its unit, such as 500ms or 10s, above zero and at most {max}"))
        })
    }

    pub(crate) fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        chosen.ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.fault(key, &format!("one of {}", names.join(", ")))
        })
    }

    /// An array, or in the environment a text with commas.
    pub(crate) fn list(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        match self.value(key).kind {
            ValueKind::Array(items) => items
                .into_iter()
                .map(|item| item.into_string().map_err(|_| self.fault(key, "a list of texts")))
                .collect(),
            ValueKind::String(text) => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            _ => Err(self.fault(key, "a list of texts")),
        }
    }

    /// An array of tables, or in the environment its text: `[{ key = "value" }]`.
    pub(crate) fn tables(&self, key: &str) -> Result<Vec<SettingsTable>, ConfigError> {
        let value = self.value(key);
        let place = self.place(&value);
        // Neither error repeats the text, for it may hold a secret.
        let expected = || ConfigError(format!("{key}{place}: it must be tables, as [[{key}]] in a file has them"));
        let array = match value.kind {
            ValueKind::String(text) => {
                let file = File::from_str(&format!("{key} = {text}"), FileFormat::Toml);
                let parsed = config::Config::builder().add_source(file).build().map_err(|_| expected())?;
                parsed.get_array(key).map_err(|_| expected())?
            }
            ValueKind::Array(array) => array,
            _ => return Err(expected()),
        };
        if !array.iter().all(|value| matches!(value.kind, ValueKind::Table(_))) {
            return Err(expected());
        }
        Ok(array.into_iter().map(|value| SettingsTable { value, place: place.clone() }).collect())
    }

    pub(crate) fn listen(&self, key: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.fault(key, "an address and port, such as 127.0.0.1:9464"))
    }

    /// A secret: from the key itself, from the file that another key names, or from systemd's credential.
    pub(crate) fn secret(
        &self,
        key: &str,
        file_key: Option<&str>,
        credential_name: &str,
    ) -> Result<Option<String>, ConfigError> {
        let direct = self.text(key)?;
        if !direct.is_empty() {
            return Ok(Some(direct));
        }
        let named = match file_key {
            Some(file_key) => self.path(file_key)?,
            None => None,
        };
        let Some(path) = named.or_else(|| credential(credential_name)) else { return Ok(None) };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError(format!("{key}: cannot read {}: {error}", path.display())))?;
        Ok(Some(text.trim().to_owned()))
    }
}

/// One table of an array of tables.
pub(crate) struct SettingsTable {
    value: Value,
    /// For an error: where it stands.
    pub(crate) place: String,
}

impl SettingsTable {
    /// Parses the whole table. `at` names it in an error, which repeats no value: it may be a secret.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self, at: &str) -> Result<T, ConfigError> {
        self.value.clone().try_deserialize().map_err(|error| self.fault(at, error))
    }

    fn fault(&self, at: &str, error: config::ConfigError) -> ConfigError {
        let place = &self.place;
        let below = |key: Option<String>| key.map_or_else(|| at.to_owned(), |key| format!("{at}.{key}"));
        match error {
            config::ConfigError::At { error, key, .. } => self.fault(&below(key), *error),
            config::ConfigError::Type { expected, key, .. } => {
                ConfigError(format!("{}{place}: it must be {expected}", below(key)))
            }
            config::ConfigError::NotFound(key) => ConfigError(format!("{}{place}: it is not set", below(Some(key)))),
            // Others repeat the value.
            config::ConfigError::Message(what) if what.starts_with("unknown field") => {
                ConfigError(format!("{at}{place}: {what}"))
            }
            _ => ConfigError(format!("{at}{place}: it cannot be read")),
        }
    }
}

fn variables_of_process() -> HashMap<String, String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// `LEDGERD_DATABASE_URL` would be ignored without a word, and everything would be looked for elsewhere.
fn refuse_single_underscores(
    variables: &HashMap<String, String>,
    known: &BTreeMap<String, Value>,
) -> Result<(), ConfigError> {
    for (name, key) in known.keys().map(|key| (variable(key).replace(SEPARATOR, "_"), key)) {
        if variables.contains_key(&name) {
            let meant = variable(key);
            return Err(ConfigError(format!(
                "{name} in the environment is no setting: write {meant}, with two underscores"
            )));
        }
    }
    Ok(())
}

/// A value as it would be written.
fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        ValueKind::String(text) => format!("\"{text}\""),
        _ => value.to_string(),
    }
}

/// What a setting is called in the environment.
pub(crate) fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{SEPARATOR}{}", key.replace('.', SEPARATOR).to_uppercase())
}

/// A credential that systemd passed, if it is there.
pub(crate) fn credential(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name);
    path.exists().then_some(path)
}

/// Whether a misspelt key is that of a secret, for all that is known.
fn may_be_secret(key: &str, value: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    value.contains("://")
        || ["pas", "pw", "secret", "token", "key", "seed", "cred"].iter().any(|part| name.contains(part))
}

/// All keys with their values, as dotted paths.
fn flattened(config: &config::Config) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match &value.kind {
            ValueKind::Table(table) => {
                for (key, value) in table {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&path, value, into);
                }
            }
            _ => {
                into.insert(prefix.to_owned(), value.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", &config.cache, &mut found);
    found
}
