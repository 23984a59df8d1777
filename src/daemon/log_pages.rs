//! Keeps the newest checkpoint for the HTTP pages of the log. It is read from the database, where whichever instance
//! signs stores it.

use crate::log::pages::Pages;
use crate::log::queries::LogStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The pages of the log in this database, and a task that keeps their checkpoint the newest.
pub(crate) fn pages(log: &Arc<LogStore>) -> Pages {
    let (newest, receiver) = watch::channel(None);
    tokio::spawn(follow(Arc::clone(log), newest));
    Pages::new(Arc::clone(log), receiver)
}

/// While the database is away, the last one stays: what it covers can be served again later.
async fn follow(log: Arc<LogStore>, newest: watch::Sender<Option<Arc<str>>>) {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !newest.is_closed() {
        ticks.tick().await;
        match log.newest_checkpoint(None).await {
            Ok(Some(checkpoint)) => {
                let note: Arc<str> = Arc::from(checkpoint.note.to_string());
                newest.send_if_modified(|served| served.replace(Arc::clone(&note)).is_none_or(|served| served != note));
            }
            Ok(None) => {}
            Err(error) => tracing::debug!("the newest checkpoint cannot be read: {error}"),
        }
    }
}
