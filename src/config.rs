//! What was configured? Text from files and environment, parsed to meaning; each error names the key, the value and where it
//! stands. The only file that knows the `config` crate.

mod checkpoint;
mod webhooks;

pub use checkpoint::Checkpoints;
pub use webhooks::Webhooks;

use crate::domain::archive::Retention;
use crate::domain::budget::Budget;
use crate::domain::model_tiers::ModelTiers;
use crate::domain::rules::Settings;
use crate::domain::subject::Lane;
use crate::domain::writers::Writers;
use config::{Environment, File, FileFormat, Value, ValueKind};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every key with its default, and what it means.
pub const DEFAULTS: &str = include_str!("ledgerd.default.toml");

/// The file that is read if it is there.
pub const DEFAULT_FILE: &str = "/etc/ledgerd/ledgerd.toml";

/// With longer ones a hang would be noticed too late.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(30);
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_mins(1);
const SHUTDOWN_DEADLINE_MAX: Duration = Duration::from_mins(10);
const STALL_MAX: Duration = Duration::from_hours(24);

const ENVIRONMENT_PREFIX: &str = "LEDGERD";
const SEPARATOR: &str = "__";

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database.
    pub database: Database,
    /// The message server.
    pub nats: Nats,
    /// Where the registry and the agents are read from.
    pub registry: RegistryFiles,
    /// Limits and leniencies of the judging.
    pub judging: Settings,
    /// When a day's spending is a warning.
    pub budget: Budget,
    /// The signing of checkpoints.
    pub checkpoint: Checkpoints,
    /// How long rows stay.
    pub retention: Retention,
    /// The lanes to serve.
    pub lanes: Vec<Lane>,
    /// Messages in one pull, at most.
    pub batch_messages_max: usize,
    /// Bytes in one pull, at most.
    pub batch_bytes_max: usize,
    /// Where to serve HTTP.
    pub http_listen: Option<SocketAddr>,
    /// Who may write over HTTP.
    pub webhooks: Option<Webhooks>,
    /// How to log.
    pub log: Log,
    /// How long a lane may stand still before it is told.
    pub stall_tell_after: Duration,
    /// How long before the watchdog may end the daemon for it.
    pub stall_restart_after: Duration,
    /// How long a shutdown may take.
    pub shutdown_deadline: Duration,
}

/// The database.
#[derive(Clone)]
pub struct Database {
    /// Holds a password, perhaps; only some commands need it.
    url: Option<String>,
    /// Commits that may run at a time.
    pub writers: usize,
    /// Bound of connecting.
    pub connect_timeout: Duration,
    /// Bound of a statement.
    pub statement_timeout: Duration,
}

impl Config {
    /// The longest that a loop can be without a sign of life: waiting for a connection, committing with others, both once more alone,
    /// and trying a good record after a refusal, each to the end of its bound.
    pub fn silence_max(&self) -> Duration {
        // Each of the five is bounded by the time of a whole transaction, which is two statements'.
        self.database.statement_timeout * 10 + SILENCE_SLACK
    }
}

/// With statements that end soon, telling receipts and acknowledging take longest: ten seconds and five.
const SILENCE_SLACK: Duration = Duration::from_secs(20);

impl Database {
    /// Where the database is, for commands that need it.
    pub fn url(&self) -> Result<&str, ConfigError> {
        self.url.as_deref().ok_or_else(|| not_set("database.url"))
    }
}

impl Nats {
    /// Where the server is, for commands that need it.
    pub fn url(&self) -> Result<&str, ConfigError> {
        self.url.as_deref().ok_or_else(|| not_set("nats.url"))
    }
}

fn not_set(key: &str) -> ConfigError {
    let variable = format!("{ENVIRONMENT_PREFIX}{SEPARATOR}{}", key.replace('.', SEPARATOR).to_uppercase());
    ConfigError(format!("{key} is not set: set it in the configuration, or as {variable}"))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("writers", &self.writers).finish_non_exhaustive()
    }
}

/// The message server.
#[derive(Clone)]
pub struct Nats {
    /// Holds a password, perhaps; only some commands need it.
    url: Option<String>,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// The user of `password_file`.
    pub user: Option<String>,
    /// A file that holds a password.
    pub password_file: Option<PathBuf>,
    /// A file that holds an nkey seed.
    pub nkey_file: Option<PathBuf>,
    /// A root certificate.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The stream of records.
    pub stream: String,
    /// The stream of rejects.
    pub dlq_stream: String,
    /// The stream of receipts.
    pub receipts_stream: String,
    /// The stream of budget alerts.
    pub alerts_stream: String,
    /// Copies of each stream.
    pub replicas: usize,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The rules' files; `None` is what ships with the program.
#[derive(Clone, Debug)]
pub struct RegistryFiles {
    /// The Action Registry.
    pub actions: Option<PathBuf>,
    /// Added to it.
    pub actions_extra: Vec<PathBuf>,
    /// `agent_schema.yaml`.
    pub agents: Option<PathBuf>,
    /// Actors beside it.
    pub extra_actors: Vec<String>,
}

/// How to log.
#[derive(Clone, Debug)]
pub struct Log {
    /// The form.
    pub format: LogFormat,
    /// What to let through, as `tracing` directives.
    pub level: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The configuration cannot be used: one sentence that names the key, the value and the place.
#[derive(Debug)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads defaults, then `file` (or [`DEFAULT_FILE`] where it exists), then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator(SEPARATOR).separator(SEPARATOR);
        Self::from_sources(file, environment)
    }

    fn from_sources(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let source = match file {
            Some(path) => File::from(path).format(FileFormat::Toml),
            None => File::from(Path::new(DEFAULT_FILE)).format(FileFormat::Toml).required(false),
        };
        let broken = |error: config::ConfigError| ConfigError(error.to_string());
        let defaults = || File::from_str(DEFAULTS, FileFormat::Toml);
        let known = config::Config::builder().add_source(defaults()).build().map_err(broken)?;
        let layered = config::Config::builder().add_source(defaults()).add_source(source).add_source(environment);
        let file = file.unwrap_or(Path::new(DEFAULT_FILE)).to_owned();
        let reader = Reader { values: flattened(&layered.build().map_err(broken)?), file };
        reader.refuse_unknown_keys(&flattened(&known))?;
        reader.config()
    }
}

/// All values that were found, by dotted key, each with the place it stands in.
struct Reader {
    values: BTreeMap<String, Value>,
    file: PathBuf,
}

impl Reader {
    fn config(&self) -> Result<Config, ConfigError> {
        let config = Config {
            database: self.database()?,
            nats: self.nats()?,
            registry: RegistryFiles {
                actions: self.path("registry.actions_file")?,
                actions_extra: self.list("registry.actions_extra_files")?.into_iter().map(PathBuf::from).collect(),
                agents: self.path("registry.agents_file")?,
                extra_actors: self.list("registry.extra_actors")?,
            },
            judging: self.judging()?,
            budget: self.budget()?,
            checkpoint: self.checkpoint()?,
            retention: Retention {
                // The specification promises so many days; the database holds on to that too.
                token_ledger_days: self.days("retention.token_ledger_days", 90)?,
                economic_metrics_days: self.days("retention.economic_metrics_days", 365)?,
                archive: Some(self.text("retention.archive")?).filter(|archive| !archive.is_empty()),
            },
            lanes: self.lanes()?,
            batch_messages_max: self.number("pipeline.batch_messages_max", 1, 10_000)?,
            batch_bytes_max: self.number("pipeline.batch_bytes_max", 64 * 1024, 64 * 1024 * 1024)?,
            http_listen: self.listen("http.listen")?,
            webhooks: self.webhooks()?,
            log: Log {
                format: self.one_of(
                    "log.format",
                    &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)],
                )?,
                level: self.text("log.level")?,
            },
            stall_tell_after: self.duration("stall.tell_after", STALL_MAX)?,
            stall_restart_after: self.duration("stall.restart_after", STALL_MAX)?,
            shutdown_deadline: self.duration("shutdown.deadline", SHUTDOWN_DEADLINE_MAX)?,
        };
        Ok(config)
    }

    fn judging(&self) -> Result<Settings, ConfigError> {
        let model_tiers = ModelTiers::parse(&self.list("tokens.model_tiers")?);
        Ok(Settings {
            record_bytes_max: self.number("limits.record_bytes_max", 1, 16 * 1024 * 1024)?,
            nesting_max: self.number("limits.nesting_max", 1, 128)?,
            any_event_id_suffix: self.one_of("audit.event_id", &[("strict", false), ("any_suffix", true)])?,
            stamp_missing_timestamp: self.one_of("audit.missing_timestamp", &[("reject", false), ("stamp", true)])?,
            model_tiers: model_tiers
                .map_err(|why| self.fault("tokens.model_tiers", &format!("a list of pattern=TIER ({why})")))?,
            writers: Writers {
                token_reporters: self.list("tokens.reporters")?,
                trails: self.list("trails.writers")?,
                daily_limits: self.list("metrics.daily_limit_setters")?,
                token_rates: self.list("metrics.token_rate_setters")?,
                finances: self.list("metrics.finance_setters")?,
            },
        })
    }

    fn budget(&self) -> Result<Budget, ConfigError> {
        let yellow_percent = self.percent("budget.yellow_percent", 1)?;
        let red_percent = self.percent("budget.red_percent", yellow_percent)?;
        let exceeded_percent = self.percent("budget.exceeded_percent", red_percent)?;
        let shared_groups = self.list("budget.shared_groups")?;
        if shared_groups.iter().any(|group| group.to_uppercase() != *group) {
            return Err(self.fault("budget.shared_groups", "a list of groups, in capitals"));
        }
        Ok(Budget { yellow_percent, red_percent, exceeded_percent, shared_groups })
    }

    fn percent(&self, key: &str, min: i32) -> Result<i32, ConfigError> {
        let min = usize::try_from(min).expect("a percentage is not below zero");
        Ok(i32::try_from(self.number(key, min, 1000)?).expect("at most 1000"))
    }

    fn days(&self, key: &str, min: usize) -> Result<i32, ConfigError> {
        Ok(i32::try_from(self.number(key, min, 36_500)?).expect("a century"))
    }

    fn database(&self) -> Result<Database, ConfigError> {
        Ok(Database {
            url: self.secret("database.url", Some("database.url_file"), "ledgerd.database-url")?,
            writers: self.number("database.writers", 1, 16)?,
            connect_timeout: self.duration("database.connect_timeout", CONNECT_TIMEOUT_MAX)?,
            statement_timeout: self.duration("database.statement_timeout", STATEMENT_TIMEOUT_MAX)?,
        })
    }

    fn nats(&self) -> Result<Nats, ConfigError> {
        Ok(Nats {
            url: self.secret("nats.url", Some("nats.url_file"), "ledgerd.nats-url")?,
            credentials_file: self.path("nats.credentials_file")?.or_else(|| credential("ledgerd.nats-credentials")),
            user: Some(self.text("nats.user")?).filter(|user| !user.is_empty()),
            password_file: self.path("nats.password_file")?.or_else(|| credential("ledgerd.nats-password")),
            nkey_file: self.path("nats.nkey_file")?.or_else(|| credential("ledgerd.nats-nkey")),
            ca_file: self.path("nats.ca_file")?,
            certificate_file: self.path("nats.certificate_file")?,
            key_file: self.path("nats.key_file")?,
            stream: self.token("nats.stream")?,
            dlq_stream: self.token("nats.dlq_stream")?,
            receipts_stream: self.token("nats.receipts_stream")?,
            alerts_stream: self.token("nats.alerts_stream")?,
            replicas: self.number("nats.replicas", 1, 5)?,
        })
    }

    fn refuse_unknown_keys(&self, known: &BTreeMap<String, Value>) -> Result<(), ConfigError> {
        let Some((key, value)) = self.values.iter().find(|(key, _)| !known.contains_key(*key)) else { return Ok(()) };
        let section = key.split_once('.').map_or(key.as_str(), |(section, _)| section);
        let is_sibling = |name: &&String| name.starts_with(&format!("{section}."));
        let siblings: Vec<&str> = known.keys().filter(is_sibling).map(String::as_str).collect();
        let hint = if siblings.is_empty() {
            "there is no such section".to_owned()
        } else {
            format!("there are {}", siblings.join(", "))
        };
        Err(ConfigError(format!("unknown key {key} = {value}{}: {hint}", self.place(value))))
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

    fn fault(&self, key: &str, expected: &str) -> ConfigError {
        let value = self.value(key);
        // Of a list of hashes, one may be a token by mistake.
        let shown = if key.ends_with("url") || key == "webhooks.tokens" { "…".to_owned() } else { value.to_string() };
        ConfigError(format!("{key} = \"{shown}\"{}: it must be {expected}", self.place(&value)))
    }

    fn text(&self, key: &str) -> Result<String, ConfigError> {
        self.value(key).into_string().map_err(|_| self.fault(key, "text"))
    }

    fn token(&self, key: &str) -> Result<String, ConfigError> {
        let text = self.text(key)?;
        let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if good { Ok(text) } else { Err(self.fault(key, "a name of letters, digits, - and _")) }
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(Some(self.text(key)?).filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    fn number(&self, key: &str, min: usize, max: usize) -> Result<usize, ConfigError> {
        let number = self.value(key).into_int().ok().and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| self.fault(key, &format!("a whole number from {min} to {max}")))
    }

    fn duration(&self, key: &str, max: Duration) -> Result<Duration, ConfigError> {
        let duration = humantime::parse_duration(&self.text(key)?).ok();
        duration.filter(|duration| !duration.is_zero() && *duration <= max).ok_or_else(|| {
            let max = humantime::format_duration(max);
            self.fault(key, &format!("a duration with its unit, such as 500ms or 10s, above zero and at most {max}"))
        })
    }

    fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        chosen.ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.fault(key, &format!("one of {}", names.join(", ")))
        })
    }

    /// An array, or in the environment a text with commas.
    fn list(&self, key: &str) -> Result<Vec<String>, ConfigError> {
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

    fn lanes(&self) -> Result<Vec<Lane>, ConfigError> {
        let key = "pipeline.lanes";
        let mut lanes: Vec<Lane> = Vec::new();
        for name in self.list(key)? {
            let lane = name.parse().map_err(|error| self.fault(key, &format!("a list of lanes ({error})")))?;
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        if lanes.is_empty() { Err(self.fault(key, "a list of at least one lane")) } else { Ok(lanes) }
    }

    fn listen(&self, key: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.fault(key, "an address and port, such as 127.0.0.1:9464"))
    }

    /// A secret: from the key itself, from the file that another key names, or from systemd's credential.
    fn secret(&self, key: &str, file_key: Option<&str>, credential_name: &str) -> Result<Option<String>, ConfigError> {
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

/// A credential that systemd passed, if it is there.
fn credential(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name);
    path.exists().then_some(path)
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

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
