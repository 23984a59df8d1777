//! The section `[http]`: the listen address of the HTTP server, and its limits on connections.

use crate::config::ConfigError;
use crate::config::reader::SettingsReader;
use std::net::SocketAddr;
use std::time::Duration;

/// The HTTP server.
#[derive(Clone, Debug)]
pub struct Http {
    /// Where probes and Prometheus are answered; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// Connections of one listener.
    pub connections_max: usize,
    /// Connections of one address.
    pub connections_per_address_max: usize,
    /// From the first byte of a request to the end of its headers.
    pub headers_timeout: Duration,
}

const CONNECTIONS_MAX: usize = 10_000;
const HEADERS_TIMEOUT_MAX: Duration = Duration::from_mins(1);

impl SettingsReader {
    pub(crate) fn http(&self) -> Result<Http, ConfigError> {
        Ok(Http {
            listen: self.listen("http.listen")?,
            connections_max: self.number("http.connections_max", 8, CONNECTIONS_MAX)?,
            connections_per_address_max: self.number("http.connections_per_address_max", 4, CONNECTIONS_MAX)?,
            headers_timeout: self.duration("http.headers_timeout", HEADERS_TIMEOUT_MAX)?,
        })
    }
}
