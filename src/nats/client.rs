//! The connection to the NATS server, with its credentials and the events that it reports.

use crate::health::Health;
use crate::record::subject::safe_token;
use crate::retry;
pub use async_nats::Client;
use async_nats::connection::State;
use async_nats::{Auth, AuthError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use futures_util::future::join_all;
use nkeys::KeyPair;
use parking_lot::{Mutex, MutexGuard};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How to reach the server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectSettings {
    /// One URL, or several of one cluster, separated by commas. May hold user and password.
    pub url: String,
    /// A `.creds` file: a user's JWT and its seed.
    pub credentials_file: Option<PathBuf>,
    /// A user name, with `password_file`.
    pub user: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The file that holds an nkey seed.
    pub nkey_file: Option<PathBuf>,
    /// Root certificates, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, with `key_file`.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl ConnectSettings {
    fn servers(&self) -> Result<Vec<ServerAddr>, ConnectError> {
        let servers = self.url.split(',').map(|url| url.trim().parse::<ServerAddr>()).collect::<Result<_, _>>();
        servers.map_err(|_| ConnectError {
            refused: true,
            what: "nats.url is not a URL such as nats://127.0.0.1:4222".to_owned(),
        })
    }

    /// Each user has an inbox of its own, which its permissions name.
    fn inbox_prefix(&self, servers: &[ServerAddr]) -> String {
        let login = login(servers).filter(|(_, password)| password.is_some()).map(|(user, _)| user);
        let user = self.user.clone().or(login);
        user.map_or_else(|| NAMELESS_INBOX.to_owned(), |user| format!("_INBOX_{}", safe_token(&user)))
    }

    /// Whether there are files whose content may have changed.
    fn has_files(&self) -> bool {
        let credentials = [&self.credentials_file, &self.password_file, &self.nkey_file];
        credentials.into_iter().chain(self.tls_files()).any(Option::is_some)
    }

    fn tls_files(&self) -> [&Option<PathBuf>; 3] {
        [&self.ca_file, &self.certificate_file, &self.key_file]
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ConnectError {
    /// The server, or this configuration, says no: waiting would not help.
    pub refused: bool,
    what: String,
}

/// A dead connection is noticed within two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Every request has an answer within this time, or counts as failed.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A user's permissions name the inboxes it may listen on: each user has its own, `_INBOX_<user>`. This is for a user
/// without a name, as an nkey or a JWT makes it.
const NAMELESS_INBOX: &str = "_INBOX_ledgerd";

/// A connection that was made once, and makes itself anew from then on.
#[derive(Clone, Debug)]
pub struct Connection {
    pub client: Client,
    /// Counts how often the connection was made.
    pub connected: watch::Receiver<u64>,
}

/// A client that lives and is disconnected does not answer; one that has ended does at once.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

impl Connection {
    /// Whether the client itself has ended: there are headers on which its reader panics, and then only a new client helps.
    pub(crate) async fn is_dead(&self) -> bool {
        matches!(tokio::time::timeout(FLUSH_TIMEOUT, self.client.flush()).await, Ok(Err(_)))
    }
}

/// Connects once, for a command.
pub async fn connect_once(settings: ConnectSettings) -> Result<Connection, ConnectError> {
    connect(&watch::Sender::new(settings).subscribe(), None).await
}

/// Connects once. The client reconnects by itself from then on, for ever: each time with the newest settings, whose credentials
/// and certificates it reads anew.
async fn connect(
    settings: &watch::Receiver<ConnectSettings>,
    health: Option<Arc<Health>>,
) -> Result<Connection, ConnectError> {
    let servers = settings.borrow().servers()?;
    let (count, connected) = watch::channel(0);
    let connecting = options(settings.clone(), &servers, health, count).connect(servers);
    match tokio::time::timeout(CONNECT_TIMEOUT * 2, connecting).await {
        Ok(Ok(client)) => Ok(Connection { client, connected }),
        Ok(Err(error)) => Err(ConnectError {
            refused: matches!(
                error.kind(),
                ConnectErrorKind::AuthorizationViolation
                    | ConnectErrorKind::Authentication
                    | ConnectErrorKind::Tls
                    | ConnectErrorKind::ServerParse
            ),
            what: match error.kind() {
                ConnectErrorKind::AuthorizationViolation => {
                    "the server refuses the credentials (authorization violation): check nats.url and the credentials"
                        .to_owned()
                }
                _ => with_sources(&error),
            },
        }),
        Err(_) => Err(ConnectError { refused: false, what: "no answer from the server".to_owned() }),
    }
}

/// An error and all that it came from, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// User and password of the first URL that has them; the client itself takes no notice of them.
fn login(servers: &[ServerAddr]) -> Option<(String, Option<String>)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    servers.iter().find_map(|server| Some((decode(server.username()?), server.password().map(decode))))
}

/// The connections of one login. Its settings and credentials may change while they are in use.
pub struct Link {
    settings: watch::Sender<ConnectSettings>,
    /// One for each purpose.
    clients: Mutex<BTreeMap<&'static str, Client>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// What the connection is for that everything but the lanes' deliveries goes over.
const SHARED: &str = "shared";

impl Link {
    pub fn new(settings: ConnectSettings) -> Self {
        Self { settings: watch::Sender::new(settings), clients: Mutex::default() }
    }

    /// Makes the connection that everything but the lanes' deliveries goes over.
    pub async fn connect(&self, health: Option<Arc<Health>>) -> Result<Connection, ConnectError> {
        self.connect_for(SHARED, health).await
    }

    /// Makes a connection for one purpose, in place of the one before.
    pub(crate) async fn connect_for(
        &self,
        purpose: &'static str,
        health: Option<Arc<Health>>,
    ) -> Result<Connection, ConnectError> {
        let connection = connect(&self.settings.subscribe(), health).await?;
        self.clients().insert(purpose, connection.client.clone());
        Ok(connection)
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<&'static str, Client>> {
        self.clients.lock()
    }

    /// Whether these are its settings.
    pub fn has(&self, settings: &ConnectSettings) -> bool {
        *self.settings.borrow() == *settings
    }

    /// Turns the clients to changed settings, or to credentials and certificates that were rotated under the old names. Whether
    /// the server takes them is tried before anything is given up: if it says no, the old connection stays.
    pub async fn renew(&self, new: ConnectSettings) -> Result<(), ConnectError> {
        let cannot_change =
            |what: &str| ConnectError { refused: true, what: format!("{what} cannot change while it runs: restart") };
        let old = self.settings.borrow().clone();
        if new == old && !new.has_files() {
            return Ok(());
        }
        let servers = new.servers()?;
        if new.tls_files() != old.tls_files() {
            return Err(cannot_change("which files hold the certificates"));
        }
        if new.inbox_prefix(&servers) != old.inbox_prefix(&old.servers()?) {
            return Err(cannot_change("the user"));
        }
        let clients: Vec<Client> = self.clients().values().cloned().collect();
        let is_connected = clients.iter().any(|client| client.connection_state() == State::Connected);
        match connect_once(new.clone()).await {
            Err(error) if error.refused || is_connected => return Err(error),
            // The server is away: it will be met with the new ones.
            Ok(_) | Err(_) => {}
        }
        self.settings.send_replace(new);
        // While disconnected both wait for the connection, which is made with the new settings anyway.
        let renewing = clients.iter().map(|client| async {
            let _ = client.set_server_pool(servers.as_slice()).await;
            let _ = client.force_reconnect().await;
        });
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, join_all(renewing)).await;
        Ok(())
    }
}

fn options(
    settings: watch::Receiver<ConnectSettings>,
    servers: &[ServerAddr],
    health: Option<Arc<Health>>,
    count: watch::Sender<u64>,
) -> ConnectOptions {
    let now = settings.borrow().clone();
    let mut options = ConnectOptions::with_auth_callback(move |nonce| {
        let auth = authenticate(&settings.borrow(), &nonce);
        async move { auth }
    });
    if let Some(file) = &now.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(certificate), Some(key)) = (&now.certificate_file, &now.key_file) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options
        .name("ledgerd")
        .custom_inbox_prefix(now.inbox_prefix(servers))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .max_reconnects(None)
        .reconnect_delay_callback(retry::reconnect_wait)
        .event_callback(move |event| {
            if matches!(event, Event::Connected) {
                count.send_modify(|times| *times += 1);
            }
            report(&event, health.as_deref());
            async {}
        })
}

/// Who waits while the connection is lost.
const CONNECTION: &str = "the connection";

fn report(event: &Event, health: Option<&Health>) {
    match (event, health) {
        (Event::Connected, Some(health)) => health.nats.up(CONNECTION),
        (Event::Disconnected, Some(health)) => health.nats.down(CONNECTION, "the connection is lost"),
        (Event::ClientError(error), Some(health)) => health.nats.down(CONNECTION, &format!("cannot connect: {error}")),
        (Event::ServerError(error), _) => tracing::warn!("the NATS server says: {error}"),
        (event, _) => tracing::debug!("NATS: {event}"),
    }
}

/// What a connection says about who it is: files go before the URL.
fn authenticate(settings: &ConnectSettings, nonce: &[u8]) -> Result<Auth, AuthError> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| AuthError::new(format!("cannot read {}: {error}", path.display())))
    };
    let sign = |seed: &str| {
        let key = KeyPair::from_seed(seed.trim())
            .map_err(|error| AuthError::new(format!("the nkey seed is broken: {error}")))?;
        let signature = key.sign(nonce).map_err(|error| AuthError::new(error.to_string()))?;
        Ok::<_, AuthError>((key.public_key(), signature))
    };
    let mut auth = Auth::new();
    if let Some(path) = &settings.credentials_file {
        let text = read(path)?;
        let broken = || AuthError::new(format!("{} is not a .creds file", path.display()));
        auth.jwt = Some(section(&text, "NATS USER JWT").ok_or_else(broken)?.to_owned());
        auth.signature = Some(sign(section(&text, "USER NKEY SEED").ok_or_else(broken)?)?.1);
    } else if let Some(path) = &settings.nkey_file {
        let (public, signature) = sign(&read(path)?)?;
        auth.nkey = Some(public);
        auth.signature = Some(signature);
    } else if let Some(path) = &settings.password_file {
        auth.username.clone_from(&settings.user);
        auth.password = Some(read(path)?.trim_end().to_owned());
    } else {
        match login(&settings.servers().map_err(|error| AuthError::new(error.to_string()))?) {
            Some((user, Some(password))) => {
                auth.username = Some(user);
                auth.password = Some(password);
            }
            Some((token, None)) => auth.token = Some(token),
            None => {}
        }
    }
    Ok(auth)
}

/// The line between `-----BEGIN <name>-----` and `------END <name>------`.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("BEGIN {name}"))?;
    rest.lines().skip(1).map(str::trim).find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_holds_a_token_and_a_seed() {
        let file = "-----BEGIN NATS USER JWT-----\neyJ0.e30.x\n------END NATS USER JWT------\n\n\
            -----BEGIN USER NKEY SEED-----\nSUAX\n------END USER NKEY SEED------\n";
        assert_eq!(section(file, "NATS USER JWT"), Some("eyJ0.e30.x"));
        assert_eq!(section(file, "USER NKEY SEED"), Some("SUAX"));
        assert_eq!(section("nothing", "USER NKEY SEED"), None);
    }
}
