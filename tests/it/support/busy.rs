//! Something happens while others publish.

use super::events::good_events;
use super::published::Published;
use super::publisher::Publisher;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Few, so that the end of the work is soon noticed.
const BATCH: usize = 30;
const PAUSE: Duration = Duration::from_millis(20);

/// Publishes good records until the work is done; returns what the work gave, and what was published.
pub(crate) async fn while_publishing<T>(through: &Publisher, work: impl Future<Output = T>) -> (T, Published) {
    let done = Arc::new(AtomicBool::new(false));
    let (sender, told) = (through.clone(), Arc::clone(&done));
    let publishing = tokio::spawn(async move {
        let mut published = Published::default();
        while !told.load(Ordering::Relaxed) {
            published.publish_all(&sender, good_events(BATCH)).await;
            // A load that the daemon keeps up with: it is not the backlog that is looked at.
            sleep(PAUSE).await;
        }
        published
    });
    let given = work.await;
    done.store(true, Ordering::Relaxed);
    (given, publishing.await.expect("publishing does not fail"))
}
