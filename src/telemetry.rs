//! Sets up logging: text on a terminal, JSON otherwise. A panic is logged as one line, too.

use crate::config::{LogFormat, LogSettings};
use parking_lot::Mutex;
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error.
///
/// # Errors
/// A sentence about the level that cannot be read.
pub fn start(log: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| format!("log.level = \"{}\": {error}", log.level))?;
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(is_terminal).with_target(false).try_init(),
        LogFormat::Auto if is_terminal => builder.with_target(false).try_init(),
        LogFormat::Auto | LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Publishers can make the NATS client panic as often as they like.
const PANIC_INTERVAL: Duration = Duration::from_mins(1);

/// Tells a panic in one line and without a backtrace, which takes long to make; and further ones of the same place once a minute.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    static TOLD: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let now = Instant::now();
    {
        let mut told = TOLD.lock();
        told.retain(|(_, at)| now.duration_since(*at) < PANIC_INTERVAL);
        if told.iter().any(|(other, _)| *other == place) {
            return;
        }
        told.push((place.clone(), now));
    }
    let what = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(place, "a task panicked at {place}: {what}");
}
