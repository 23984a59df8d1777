//! The section `[webhooks]`: the listen address, the API tokens that may write over HTTP, the limits, and the NATS
//! login.

use crate::config::ConfigError;
use crate::config::reader::{SettingsReader, credential};
use crate::http::api_token::ApiTokens;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The webhooks, where somebody is let in.
#[derive(Clone)]
pub struct WebhookSettings {
    /// Where they are served; `None` is where everything else is.
    pub listen: Option<SocketAddr>,
    /// Who is let in.
    pub tokens: ApiTokens,
    /// How long a caller waits for the commit.
    pub patience: Duration,
    /// Requests at a time.
    pub requests_max: usize,
    /// Their own login, which may publish records. Holds a password, perhaps.
    pub nats_url: Option<String>,
    /// A `.creds` file of theirs.
    pub nats_credentials_file: Option<PathBuf>,
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("listen", &self.listen).finish_non_exhaustive()
    }
}

const PATIENCE_MAX: Duration = Duration::from_secs(20);

impl SettingsReader {
    pub(crate) fn webhooks(&self) -> Result<Option<WebhookSettings>, ConfigError> {
        let expected = |why: &str| format!("a list of \"SHA256 ACTOR ACTOR …\" or \"SHA256 *\" ({why})");
        let tokens = ApiTokens::parse(&self.list("webhooks.tokens")?)
            .map_err(|why| self.fault("webhooks.tokens", &expected(&why)))?;
        let webhooks = WebhookSettings {
            listen: self.listen("webhooks.listen")?,
            patience: self.duration("webhooks.patience", PATIENCE_MAX)?,
            requests_max: self.number("webhooks.requests_max", 1, 1024)?,
            nats_url: self.secret("webhooks.nats_url", Some("webhooks.nats_url_file"), "ledgerd.webhooks-nats-url")?,
            nats_credentials_file: self
                .path("webhooks.nats_credentials_file")?
                .or_else(|| credential("ledgerd.webhooks-nats-credentials")),
            tokens,
        };
        Ok(Some(webhooks).filter(|webhooks| !webhooks.tokens.is_empty()))
    }
}
