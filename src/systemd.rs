//! The interface to systemd: sends readiness, status and watchdog notifications, and receives signals. No other file of
//! this crate uses `signal_hook` and `sd_notify`.

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;

/// What somebody wants of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Settle what is in flight, and end. The second time: end at once.
    Stop,
    /// Read registry, agents and credentials again.
    Reload,
}

/// Signals wait here; repeated ones merge.
const SIGNALS_MAX: usize = 8;

/// Signals, from now on.
pub fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
            if sender.blocking_send(signal).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Says that the daemon has started.
pub fn ready(status: &str) {
    let status = status.to_owned();
    notify(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]));
}

/// Says that a reload has begun; [`ready`] says that it has ended.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(move || sd_notify::notify(&[NotifyState::Reloading, now])),
        Err(error) => tracing::debug!("no monotonic clock: {error}"),
    }
}

/// Says that the daemon is ending, and that it may take so long: longer than the unit allows, where its settings say so.
pub fn stopping(status: &str, at_most: Duration) {
    let at_most_usec = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    let status = status.to_owned();
    notify(move || {
        let extended = NotifyState::ExtendTimeoutUsec(at_most_usec);
        sd_notify::notify(&[NotifyState::Stopping, extended, NotifyState::Status(&status)])
    });
}

/// Says in one line what the daemon is doing.
pub fn status(status: &str) {
    let status = status.to_owned();
    notify(move || sd_notify::notify(&[NotifyState::Status(&status)]));
}

/// Says that the daemon is alive.
pub fn alive() {
    notify(|| sd_notify::notify(&[NotifyState::Watchdog]));
}

/// How often [`alive`] must be said at least; `None` when nobody listens.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

type Notification = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// What waits to be told. The socket takes ten messages before it blocks, so a systemd that does not read would stop whoever tells it.
const NOTIFICATIONS_MAX: usize = 4;

/// Tells systemd from a thread of its own. What does not fit into the queue is not told: a later notification says more.
fn notify(notification: impl FnOnce() -> io::Result<()> + Send + 'static) {
    static QUEUE: OnceLock<Option<SyncSender<Notification>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Notification>(NOTIFICATIONS_MAX);
        let telling = move || {
            for notification in receiver {
                if let Err(error) = notification() {
                    tracing::debug!("systemd was not told: {error}");
                }
            }
        };
        std::thread::Builder::new().name("systemd".to_owned()).spawn(telling).ok().map(|_| sender)
    });
    if queue.as_ref().is_none_or(|queue| queue.try_send(Box::new(notification)).is_err()) {
        tracing::debug!("systemd was not told: it does not read what it is told");
    }
}
