//! The section `[console]`: the listen address of the console, who is let in, and the login that it reads with.

use crate::config::ConfigError;
use crate::config::reader::SettingsReader;
use crate::http::console_token::ConsoleTokens;
use std::fmt;
use std::net::SocketAddr;

/// The console.
#[derive(Clone)]
pub struct ConsoleSettings {
    /// Where it is served.
    pub listen: SocketAddr,
    /// Who is let in. Nobody in particular: everybody on this machine reads.
    pub tokens: ConsoleTokens,
    /// A reader's login. Holds a password, perhaps; `None`: that of `[database]`.
    pub database_url: Option<String>,
    /// The login that carries out decisions about dead letters: a member of `ledgerd_daemon`. `None`: the console only reads.
    pub operator_database_url: Option<String>,
}

impl fmt::Debug for ConsoleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSettings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl SettingsReader {
    pub(crate) fn console(&self) -> Result<ConsoleSettings, ConfigError> {
        let key = "console.listen";
        let listen = self.listen(key)?.ok_or_else(|| self.fault(key, "an address and port, such as 127.0.0.1:9466"))?;
        let expected = |why: &str| format!("a list of \"SHA256 ROLE NAME\", where ROLE is read or operate ({why})");
        let tokens = ConsoleTokens::parse(&self.list("console.tokens")?)
            .map_err(|why| self.fault("console.tokens", &expected(&why)))?;
        if tokens.is_empty() && !listen.ip().to_canonical().is_loopback() {
            return Err(self
                .fault(key, "a loopback address, such as 127.0.0.1:9466, unless console.tokens lists who is let in"));
        }
        Ok(ConsoleSettings {
            listen,
            tokens,
            database_url: self.secret(
                "console.database_url",
                Some("console.database_url_file"),
                "ledgerd.console-database-url",
            )?,
            operator_database_url: self.secret(
                "console.operator_database_url",
                Some("console.operator_database_url_file"),
                "ledgerd.console-operator-database-url",
            )?,
        })
    }
}
