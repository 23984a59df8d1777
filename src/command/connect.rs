//! Connects a command to the servers. It tries once, and the exit code distinguishes a refusal from an unreachable
//! server.

use crate::command::{Exit, Failure};
use crate::config::{Config, Nats};
use crate::health::Health;
use crate::health::stalls::StallLimits;
use crate::ingest::positions::LanePositions;
use crate::nats::api::{Api, ApiError};
use crate::nats::client::{self, ConnectSettings};
use crate::nats::definitions::Names;
use crate::nats::setup::version_complaint;
use crate::postgres::connections::{ConnectionLimits, Connections};
use crate::postgres::remedy::DatabaseError;

/// How to reach the message server.
pub(crate) fn nats_settings(nats: &Nats) -> Result<ConnectSettings, Failure> {
    let url = nats.url().map_err(|error| Failure::new(Exit::Configuration, error))?;
    Ok(ConnectSettings {
        url: url.to_owned(),
        credentials_file: nats.credentials_file.clone(),
        user: nats.user.clone(),
        password_file: nats.password_file.clone(),
        nkey_file: nats.nkey_file.clone(),
        ca_file: nats.ca_file.clone(),
        certificate_file: nats.certificate_file.clone(),
        key_file: nats.key_file.clone(),
    })
}

impl From<&Nats> for Names {
    fn from(nats: &Nats) -> Self {
        Names {
            ledger: nats.stream.clone(),
            dlq: nats.dlq_stream.clone(),
            receipts: nats.receipts_stream.clone(),
            alerts: nats.alerts_stream.clone(),
            consumer_prefix: nats.consumer_prefix.clone(),
            replicas: nats.replicas,
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let exit = match (error.is_refusal(), error.is_absence()) {
            (true, _) => Exit::Configuration,
            (_, true) => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("PostgreSQL: {error}"))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = if matches!(error, ApiError::Silent(_)) { Exit::Unavailable } else { Exit::Failed };
        Failure::new(exit, format!("NATS: {error}"))
    }
}

/// The state of a process that has these bounds of patience.
pub(crate) fn health(config: &Config) -> Health {
    let patience = StallLimits { tell_after: config.stall_tell_after, restart_after: config.stall_restart_after };
    Health::new(config.silence_max(), patience)
}

/// Connections to the database, none of them open yet.
pub(crate) fn database(config: &Config, connections_max: usize) -> Result<Connections, Failure> {
    let limits =
        ConnectionLimits { connect: config.database.connect_timeout, statement: config.database.statement_timeout };
    let url = config.database.url().map_err(|error| Failure::new(Exit::Configuration, error))?;
    Connections::new(url, limits, connections_max)
        .map_err(|why| Failure::new(Exit::Configuration, format!("database.url cannot be used: {why}")))
}

/// The same with the login of the console, where it has one of its own.
pub(crate) fn reader(config: &Config, connections_max: usize) -> Result<Connections, Failure> {
    let Some(url) = &config.console.database_url else { return database(config, connections_max) };
    let limits =
        ConnectionLimits { connect: config.database.connect_timeout, statement: config.database.statement_timeout };
    Connections::new(url, limits, connections_max)
        .map_err(|why| Failure::new(Exit::Configuration, format!("console.database_url cannot be used: {why}")))
}

/// The same with the login that carries out decisions of the console; `None`: it has none.
pub(crate) fn operator(config: &Config, connections_max: usize) -> Result<Option<Connections>, Failure> {
    let Some(url) = &config.console.operator_database_url else { return Ok(None) };
    let limits =
        ConnectionLimits { connect: config.database.connect_timeout, statement: config.database.statement_timeout };
    let connections = Connections::new(url, limits, connections_max);
    connections.map(Some).map_err(|why| {
        Failure::new(Exit::Configuration, format!("console.operator_database_url cannot be used: {why}"))
    })
}

/// The positions of the lanes, for a command that owns none.
pub(crate) fn positions(config: &Config) -> Result<LanePositions, Failure> {
    Ok(LanePositions::new(database(config, 1)?, String::new()))
}

pub(crate) async fn nats(config: &Config) -> Result<Api, Failure> {
    let connected = client::connect_once(nats_settings(&config.nats)?).await;
    let connection = connected.map_err(|error| {
        Failure::new(if error.refused { Exit::Configuration } else { Exit::Unavailable }, format!("NATS: {error}"))
    })?;
    match version_complaint(&connection.client.server_info()) {
        Some(complaint) => Err(Failure::new(Exit::Configuration, complaint)),
        None => Ok(Api::new(&connection)),
    }
}
