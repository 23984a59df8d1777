//! Writes the refused webhook calls to the database for `ledgerd status`, at a bounded rate.

use crate::daemon::Daemon;
use crate::webhook::refusal_queries;
use crate::webhook::refusals::WINDOW;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How soon a refusal can be seen in `ledgerd status`.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

impl Daemon {
    /// Until the runtime ends. What cannot be written is kept, within its bound, for the next time.
    pub(crate) async fn write_refusals(self: Arc<Self>) {
        let mut window_ends = Instant::now() + WINDOW;
        loop {
            sleep(WRITE_INTERVAL).await;
            if Instant::now() >= window_ends {
                self.refusals.end_window();
                window_ends = Instant::now() + WINDOW;
            }
            let taken = self.refusals.take();
            if taken.is_empty() {
                continue;
            }
            if let Err(error) = refusal_queries::add(&self.log.0, &taken).await {
                tracing::debug!("refusals are not written down yet: {error}");
                self.refusals.give_back(taken);
            }
        }
    }
}
