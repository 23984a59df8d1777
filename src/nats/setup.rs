//! Compares the streams and consumers on the server with `nats/`. Missing ones are created; different ones are changed
//! only on demand.

use crate::nats::api::{Api, ApiError};
use crate::nats::definitions::{self, Drift, Names};
use crate::record::lane::Lane;
use async_nats::ServerInfo;
use async_nats::jetstream::consumer;

/// What became of a stream or consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupOutcome {
    /// It is as it must be.
    Unchanged,
    /// It did not exist.
    Created,
    /// It was changed to what the file says.
    Applied(Vec<Drift>),
    /// It differs, and was left as it is.
    Differs(Vec<Drift>),
    /// It does not exist, and was not made.
    Missing,
}

/// A stream or consumer, and what became of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// `stream LEDGER`, `consumer ledgerd-EXEC`.
    pub name: String,
    pub outcome: SetupOutcome,
}

/// What to do about what is missing or differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Look,
    /// Make what is missing.
    Create,
    /// Also change what differs.
    Apply,
}

/// Looks at, makes or changes all streams, and the consumers of `lanes`.
pub async fn setup(api: &Api, names: &Names, lanes: &[Lane], mode: Mode) -> Result<Vec<Item>, ApiError> {
    let mut items = Vec::new();
    for (position, config) in names.streams().into_iter().enumerate() {
        let found = match api.stream_info(&config.name).await {
            Ok(info) => Some(info.config),
            Err(ApiError::StreamNotFound) => None,
            Err(error) => return Err(error),
        };
        let outcome = match found {
            None if mode == Mode::Look => SetupOutcome::Missing,
            None => {
                api.create_stream(&config).await?;
                SetupOutcome::Created
            }
            Some(found) => {
                let drift = definitions::stream_drift(&config, &found, position == 0);
                if mode == Mode::Apply && !drift.is_empty() {
                    api.update_stream(&config).await?;
                }
                SetupOutcome::of(drift, mode)
            }
        };
        items.push(Item { name: format!("stream {}", config.name), outcome });
    }
    let ledger_is_missing = items[0].outcome == SetupOutcome::Missing;
    for &lane in lanes {
        let outcome = if ledger_is_missing { SetupOutcome::Missing } else { consumer(api, names, lane, mode).await? };
        items.push(Item { name: format!("consumer {}", names.consumer(lane)), outcome });
    }
    Ok(items)
}

async fn consumer(api: &Api, names: &Names, lane: Lane, mode: Mode) -> Result<SetupOutcome, ApiError> {
    let config = definitions::consumer(names, lane);
    match api.consumer_info(&names.ledger, &names.consumer(lane)).await {
        Err(ApiError::ConsumerNotFound) if mode == Mode::Look => Ok(SetupOutcome::Missing),
        Err(ApiError::ConsumerNotFound) => match api.create_consumer(&names.ledger, &config).await {
            // The daemon makes its consumers itself, and came first.
            Err(ApiError::ConsumerExists) => Ok(SetupOutcome::Unchanged),
            created => created.map(|_| SetupOutcome::Created),
        },
        Err(error) => Err(error),
        Ok(info) => {
            let drift = definitions::consumer_drift(names, lane, &info.config);
            if mode == Mode::Apply && !drift.is_empty() {
                // Where it begins, whose it is, and whether it is paused are not the file's to say.
                let consumer::Config { deliver_policy, metadata, pause_until, .. } = info.config;
                let config = consumer::Config { deliver_policy, metadata, pause_until, ..config };
                api.update_consumer(&names.ledger, &config).await?;
            }
            Ok(SetupOutcome::of(drift, mode))
        }
    }
}

impl SetupOutcome {
    fn of(drift: Vec<Drift>, mode: Mode) -> Self {
        match (drift.is_empty(), mode) {
            (true, _) => SetupOutcome::Unchanged,
            (false, Mode::Apply) => SetupOutcome::Applied(drift),
            (false, _) => SetupOutcome::Differs(drift),
        }
    }

    /// The drift with which messages can be lost.
    pub fn dangerous_drift(&self) -> Option<&Drift> {
        match self {
            SetupOutcome::Differs(drift) => drift.iter().find(|drift| drift.dangerous),
            _ => None,
        }
    }
}

/// The oldest server that knows all that the ledger uses.
pub const SERVER_VERSION_MIN: (u64, u64) = (2, 10);

/// What is wrong with a server's version; `None` when nothing is.
pub fn version_complaint(info: &ServerInfo) -> Option<String> {
    let mut numbers = info.version.split('.').map_while(|part| part.parse::<u64>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < SERVER_VERSION_MIN).then(|| {
        let (major, minor) = SERVER_VERSION_MIN;
        format!("nats-server {} is too old: ledgerd needs {major}.{minor} or newer", info.version)
    })
}
