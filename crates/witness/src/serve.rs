//! `ledgerd-witness serve`: listens, cosigns checkpoints, and stops on request.

use crate::judge::{Witness, parse_log};
use crate::{Exit, Failure, routes};
use sd_notify::NotifyState;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tlog::checkpoint::Origin;
use tlog::cosignature::WitnessSignerKey;
use tlog::note::VerifierKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArguments {
    /// Where to serve POST /add-checkpoint
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    listen: SocketAddr,
    /// The witness's own key, as `ledgerd-witness keygen` writes it
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The folder that remembers the last checkpoint of each log; it exists, and no other witness uses it
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// A log to cosign for: its verifier key, and its origin where that is not the key's name; may be given several times
    #[arg(long = "log", value_name = "VKEY[=ORIGIN]", required = true, value_parser = parse_log)]
    logs: Vec<(Origin, VerifierKey)>,
}

/// How long an answer that was begun may take after a stop.
const SERVING_TIME_MAX: Duration = Duration::from_secs(5);
/// What is left to do then takes no time, but the machine may be busy.
const ENDING_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: ServeArguments) -> Result<(), Failure> {
    start_logging()?;
    let key = read_key(&arguments.key_file)?;
    let witness = Witness::open(key, arguments.logs, &arguments.state);
    let witness = witness.map_err(|error| Failure::new(Exit::Configuration, error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
    runtime.block_on(serve(arguments.listen, witness))
}

async fn serve(listen: SocketAddr, witness: Witness) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let listener = bounded_listener::bind(listen);
    let listener = listener.map_err(|error| Failure::new(Exit::Failed, format!("--listen {listen}: {error}")))?;
    let status = format!("{} on {listen}", witness.verifier_key());
    tracing::info!("witness {status}");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(routes::serve(listener, witness, since_1970, stop.clone()));
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let at_most = SERVING_TIME_MAX + ENDING_TIME_MAX;
    let at_most_usec = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(at_most_usec)]);
    stop.cancel();
    // Idle connections end by themselves, and later than anybody waits for.
    let _ = tokio::time::timeout(SERVING_TIME_MAX, serving).await;
    Ok(())
}

fn read_key(path: &Path) -> Result<WitnessSignerKey, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Configuration, format!("--key-file {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    WitnessSignerKey::parse(text.trim())
        .map_err(|error| wrong(&format_args!("{error}; `ledgerd-witness keygen` makes one")))
}

/// Text for people on a terminal, JSON for machines otherwise.
fn start_logging() -> Result<(), Failure> {
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(EnvFilter::new("info"));
    let started = if is_terminal {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    started.map_err(|error| Failure::new(Exit::Failed, error))
}

/// Tells systemd, where it listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd was not told: {error}");
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
