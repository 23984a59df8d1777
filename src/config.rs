//! The configuration: settings from files and environment variables, parsed into typed values. Each error names the
//! key, the value and its source.

mod checkpoint;
mod console;
mod http;
mod notify;
mod profile;
mod reader;
mod webhooks;

pub use checkpoint::Checkpoints;
pub use console::ConsoleSettings;
pub use http::Http;
pub use notify::{NotifyEvent, NotifyTarget, SigningSecret};
pub use profile::{Change, Profile};
pub use webhooks::WebhookSettings;

use reader::{SettingsReader, credential, variable};

use crate::budget::status::Budget;
use crate::record::lane::Lane;
use crate::record::model_tiers::{ModelTiers, is_tier};
use crate::record::registry::Registry;
use crate::record::rules::RuleSettings;
use crate::record::writers::Writers;
use crate::retention::file::Retention;
use std::fmt;
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

#[derive(Clone, Debug)]
pub struct Config {
    pub profile: Profile,
    pub database: Database,
    pub nats: Nats,
    /// Where the registry and the agents are read from.
    pub registry: RegistryFiles,
    /// Limits and leniencies of the judging.
    pub judging: RuleSettings,
    /// When a day's spending is a warning.
    pub budget: Budget,
    pub checkpoint: Checkpoints,
    pub retention: Retention,
    pub lanes: Vec<Lane>,
    /// Messages in one pull, at most.
    pub batch_messages_max: usize,
    /// Bytes in one pull, at most.
    pub batch_bytes_max: usize,
    /// Where to serve HTTP, and to how many.
    pub http: Http,
    /// Who may write over HTTP.
    pub webhooks: Option<WebhookSettings>,
    pub console: ConsoleSettings,
    /// Who is told of events.
    pub notify: Vec<NotifyTarget>,
    pub log: LogSettings,
    /// How long a lane may stand still before it is told.
    pub stall_tell_after: Duration,
    /// How long before the watchdog may end the daemon for it.
    pub stall_restart_after: Duration,
    /// How long a shutdown may take.
    pub shutdown_deadline: Duration,
}

#[derive(Clone)]
pub struct Database {
    /// Holds a password, perhaps; only some commands need it.
    url: Option<String>,
    /// Commits that may run at a time.
    pub writers: usize,
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
    ConfigError(format!("{key} is not set: set it in the configuration, or as {}", variable(key)))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("writers", &self.writers).finish_non_exhaustive()
    }
}

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
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub stream: String,
    pub dlq_stream: String,
    pub receipts_stream: String,
    /// The stream of budget alerts.
    pub alerts_stream: String,
    /// What the names of the lanes' consumers begin with.
    pub consumer_prefix: String,
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
    pub actions: Option<PathBuf>,
    pub actions_extra: Vec<PathBuf>,
    /// `agent_schema.yaml`.
    pub agents: Option<PathBuf>,
    pub extra_actors: Vec<String>,
    /// Agents of these statuses may not write.
    pub refused_statuses: Vec<String>,
    /// Which `agent_id` is whose.
    pub usage_agents: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// What to let through, as `tracing` directives.
    pub level: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    /// One JSON object per line.
    Json,
}

/// The configuration cannot be used: one sentence that names the key, the value and the place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads defaults, then `file` (or [`DEFAULT_FILE`] where it exists), then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        SettingsReader::of(file, None)?.config()
    }
}

impl SettingsReader {
    fn config(&self) -> Result<Config, ConfigError> {
        let config = Config {
            profile: self.profile()?,
            database: self.database()?,
            nats: self.nats()?,
            registry: RegistryFiles {
                actions: self.path("registry.actions_file")?,
                actions_extra: self.list("registry.actions_extra_files")?.into_iter().map(PathBuf::from).collect(),
                agents: self.path("registry.agents_file")?,
                extra_actors: self.list("registry.extra_actors")?,
                refused_statuses: self.list("registry.refused_statuses")?,
                usage_agents: self.path("usage.agents_file")?,
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
            http: self.http()?,
            webhooks: self.webhooks()?,
            console: self.console()?,
            notify: self.notify()?,
            log: LogSettings {
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

    fn judging(&self) -> Result<RuleSettings, ConfigError> {
        let unknown_model = Some(self.text("tokens.unknown_model")?).filter(|tier| tier != "reject");
        if unknown_model.as_deref().is_some_and(|tier| !is_tier(tier)) {
            return Err(self.fault("tokens.unknown_model", "reject, or a tier in capitals, such as PREMIUM"));
        }
        let model_tiers = ModelTiers::parse(&self.list("tokens.model_tiers")?, unknown_model);
        Ok(RuleSettings {
            record_bytes_max: self.number("limits.record_bytes_max", 1, 16 * 1024 * 1024)?,
            nesting_max: self.number("limits.nesting_max", 1, 128)?,
            any_event_id: self.one_of("audit.event_id", &[("strict", false), ("any", true)])?,
            stamp_missing_timestamp: self.one_of("audit.missing_timestamp", &[("reject", false), ("stamp", true)])?,
            distinct_repeated_ids: self.one_of("audit.repeated_id", &[("conflict", false), ("distinct", true)])?,
            model_tiers: model_tiers
                .map_err(|why| self.fault("tokens.model_tiers", &format!("a list of pattern=TIER ({why})")))?,
            writers: Writers {
                token_reporters: self.list("tokens.reporters")?,
                trails: self.list("trails.writers")?,
                daily_limits: self.list("metrics.daily_limit_setters")?,
                token_rates: self.list("metrics.token_rate_setters")?,
                finances: self.list("metrics.finance_setters")?,
                usage_reporters: self.list("usage.reporters")?,
                usage_agents: None,
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
            consumer_prefix: self.token("nats.consumer_prefix")?,
            replicas: self.number("nats.replicas", 1, 5)?,
        })
    }

    fn lanes(&self) -> Result<Vec<Lane>, ConfigError> {
        let key = "pipeline.lanes";
        // Settings may name them, so they are read first.
        let added = self.added_lanes()?;
        let mut lanes = if self.is_default(key) { added } else { Vec::new() };
        for name in self.list(key)? {
            let lane = name.parse().map_err(|error| self.fault(key, &format!("a list of lanes ({error})")))?;
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        lanes.sort_unstable();
        if lanes.is_empty() { Err(self.fault(key, "a list of at least one lane")) } else { Ok(lanes) }
    }

    /// The lanes that registry files add, which settings may name. What is wrong with a file is told where the rules are loaded.
    fn added_lanes(&self) -> Result<Vec<Lane>, ConfigError> {
        let files = self.path("registry.actions_file")?.into_iter();
        let files = files.chain(self.list("registry.actions_extra_files")?.into_iter().map(PathBuf::from));
        let of_file = |file: PathBuf| {
            let mut registry = Registry::default();
            registry.extend(&std::fs::read_to_string(file).ok()?).ok()?;
            Some(registry.added_lanes().collect::<Vec<_>>())
        };
        Ok(files.filter_map(of_file).flatten().collect())
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
