//! Sets up logging: text on a terminal, JSON otherwise. A panic is logged as one line, too.

use crate::config::{LogFormat, LogSettings};
use parking_lot::Mutex;
use std::fmt;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging to standard error.
///
/// # Errors
/// A sentence about the level that cannot be read.
pub fn start(log: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| format!("log.level = \"{}\": {error}", log.level))?;
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let is_journal = is_journal();
    let started = match log.format {
        LogFormat::Text => builder
            .with_ansi(is_terminal)
            .with_target(false)
            .map_event_format(|lines| Prioritized { lines, is_journal })
            .try_init(),
        LogFormat::Auto if is_terminal => builder.with_target(false).try_init(),
        LogFormat::Auto | LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .map_event_format(|lines| Prioritized { lines, is_journal })
            .try_init(),
    };
    started.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Whether standard error is the journal's: systemd names its device and inode (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Lines that tell the journal their priority, `<4>` for a warning (sd-daemon(3)): so `journalctl -p warning` finds them.
struct Prioritized<F> {
    lines: F,
    is_journal: bool,
}

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.is_journal {
            let priority = match *event.metadata().level() {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                Level::DEBUG | Level::TRACE => 7,
            };
            write!(to, "<{priority}>")?;
        }
        self.lines.format_event(context, to, event)
    }
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
