//! The section `[console]`: the listen address of the console, and the login that it reads with.

use crate::config::ConfigError;
use crate::config::reader::SettingsReader;
use std::fmt;
use std::net::SocketAddr;

/// The console.
#[derive(Clone)]
pub struct ConsoleSettings {
    /// Where it is served.
    pub listen: SocketAddr,
    /// A reader's login. Holds a password, perhaps; `None`: that of `[database]`.
    pub database_url: Option<String>,
}

impl fmt::Debug for ConsoleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSettings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl SettingsReader {
    pub(crate) fn console(&self) -> Result<ConsoleSettings, ConfigError> {
        let key = "console.listen";
        Ok(ConsoleSettings {
            listen: self.listen(key)?.ok_or_else(|| self.fault(key, "an address and port, such as 127.0.0.1:9465"))?,
            database_url: self.secret(
                "console.database_url",
                Some("console.database_url_file"),
                "ledgerd.console-database-url",
            )?,
        })
    }
}
