//! What does systemd hear, and what does it say? Readiness, status and watchdog out; signals in. The only file that knows
//! `signal_hook` and `sd_notify`.

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;

/// What somebody wants of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Settle what is held, and end. The second time: end at once.
    Stop,
    /// Read registry, agents and credentials again.
    Reload,
}

/// Signals wait here; repeated ones merge.
const WISHES_MAX: usize = 8;

/// Signals, from now on.
pub fn wishes() -> io::Result<mpsc::Receiver<Wish>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = mpsc::channel(WISHES_MAX);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let wish = if signal == SIGHUP { Wish::Reload } else { Wish::Stop };
            if sender.blocking_send(wish).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Says that the daemon has started.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that a reload has begun; [`ready`] says that it has ended.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("no monotonic clock: {error}"),
    }
}

/// Says that the daemon is ending, and that it may take so long: longer than the unit allows, where its settings say so.
pub fn stopping(status: &str, at_most: Duration) {
    let at_most_usec = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(at_most_usec), NotifyState::Status(status)]);
}

/// Says in one line what the daemon is doing.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Says that the daemon is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be said at least; `None` when nobody listens.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd was not told: {error}");
    }
}
