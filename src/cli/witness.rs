//! `ledgerd witness`: a small server on another machine, which cosigns a log's checkpoints as long as each grew out of the one
//! before.

use crate::command::{Exit, Failure};
use crate::config::{Log as Logging, LogFormat};
use crate::http;
use crate::systemd::{self, Signal};
use crate::tlog::checkpoint::Origin;
use crate::tlog::cosignature::SignerKey;
use crate::tlog::note::VerifierKey;
use crate::witness::{Witness, parse_log};
use crate::{clock, telemetry};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs neither NATS nor PostgreSQL, and no configuration file. docs/verifying.md says how to run one."
)]
pub(crate) struct Arguments {
    /// Where to serve POST /add-checkpoint
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    listen: SocketAddr,
    /// The witness's own key, as `ledgerd keygen --witness` writes it
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The folder that remembers the last checkpoint of each log; it exists, and no other witness uses it
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// A log to cosign for: its verifier key, and its origin where that is not the key's name; may be given several times
    #[arg(long = "log", value_name = "VKEY[=ORIGIN]", required = true, value_parser = parse_log)]
    logs: Vec<(Origin, VerifierKey)>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let logging = Logging { format: LogFormat::Auto, level: "info".to_owned() };
    telemetry::start(&logging).map_err(|why| Failure::new(Exit::Failed, why))?;
    let key = key(&arguments.key_file)?;
    let witness = Witness::open(key, arguments.logs, &arguments.state);
    let witness = witness.map_err(|error| Failure::new(Exit::Configuration, error))?;
    let mut signals = systemd::signals().map_err(|error| Failure::new(Exit::Failed, error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
    runtime.block_on(async {
        let listener = http::bind(arguments.listen);
        let listener =
            listener.map_err(|error| Failure::new(Exit::Failed, format!("--listen {}: {error}", arguments.listen)))?;
        let status = format!("{} on {}", witness.verifier_key(), arguments.listen);
        tracing::info!("witness {status}");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(http::witness::serve(listener, witness, clock::since_1970, stop.clone()));
        systemd::ready(&status);
        while let Some(signal) = signals.recv().await {
            if signal == Signal::Stop {
                break;
            }
        }
        systemd::stopping("answering what was asked", SERVING_TIME_MAX + ENDING_TIME_MAX);
        stop.cancel();
        // Idle connections end by themselves, and later than anybody waits for.
        let _ = tokio::time::timeout(SERVING_TIME_MAX, serving).await;
        Ok(())
    })
}

const SERVING_TIME_MAX: Duration = Duration::from_secs(5);
/// What is left to do then takes no time, but the machine may be busy.
const ENDING_TIME_MAX: Duration = Duration::from_secs(5);

fn key(path: &Path) -> Result<SignerKey, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Configuration, format!("--key-file {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    SignerKey::parse(text.trim()).map_err(|error| wrong(&format_args!("{error}; `ledgerd keygen --witness` makes one")))
}
