//! Receipts: what became of a message, looked up after the commit, and published before the acknowledgement.
//!
//! The truth is in the database, and a receipt never holds up the ledger: everything here ends in time, and while the stream of
//! receipts is away they are published unconfirmed, for whoever listens at that moment.

use crate::ingest::lifecycle::Clerk;
use crate::metrics::ReceiptMetrics;
use crate::record::receipt::{Asked, Receipt};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Where it is written what became of a message.
pub trait Book {
    /// The receipts of these messages.
    fn look_up(&self, asked: &[Asked]) -> impl Future<Output = Result<Vec<Receipt>, String>> + Send;
}

/// What carries receipts to their subjects.
pub trait Post {
    /// Publishes all of them, and waits until the stream has them.
    fn deliver(&self, receipts: &[Receipt]) -> impl Future<Output = Result<(), String>> + Send;

    /// Publishes all of them, and waits for nothing.
    fn toss(&self, receipts: &[Receipt]) -> impl Future<Output = Result<(), String>> + Send;
}

impl<B: Book + Sync + Send> Book for std::sync::Arc<B> {
    fn look_up(&self, asked: &[Asked]) -> impl Future<Output = Result<Vec<Receipt>, String>> + Send {
        (**self).look_up(asked)
    }
}

/// Everything together for one batch.
const TELLING_TIME_MAX: Duration = Duration::from_secs(10);
/// The same, shortly after it failed.
const TELLING_TIME_AFTER_A_FAILURE_MAX: Duration = Duration::from_secs(2);
/// Where a lookup or a confirmation failed, the next one is waited for after this time.
const DISTRUST_TIME: Duration = Duration::from_secs(15);

/// How a batch of receipts went out.
enum Told {
    /// The stream has them.
    Confirmed,
    /// Whoever listened has heard them.
    Tossed,
}

/// Tells publishers from this book by this post.
#[derive(Debug)]
pub struct Receipts<B, P> {
    book: B,
    post: P,
    metrics: ReceiptMetrics,
    /// Set while the stream is away.
    distrusted_until: Mutex<Option<Instant>>,
}

impl<B: Book, P: Post> Receipts<B, P> {
    /// Trusts the stream until it fails.
    pub fn new(book: B, post: P, metrics: ReceiptMetrics) -> Self {
        Self { book, post, metrics, distrusted_until: Mutex::new(None) }
    }

    async fn try_to_tell(&self, asked: &[Asked]) -> Result<Told, String> {
        let receipts = self.book.look_up(asked).await?;
        if receipts.len() < asked.len() {
            // A reload has moved the connections to another database in the meantime.
            tracing::debug!(missing = asked.len() - receipts.len(), "some messages are not in this database");
        }
        if self.is_distrusted() {
            self.post.toss(&receipts).await.map(|()| Told::Tossed)
        } else {
            self.post.deliver(&receipts).await.map(|()| Told::Confirmed)
        }
    }

    fn is_distrusted(&self) -> bool {
        self.lock().is_some_and(|until| Instant::now() < until)
    }

    fn trust(&self) {
        if self.lock().take().is_some() {
            tracing::info!("receipts are confirmed again");
        }
    }

    fn distrust(&self, why: &str) {
        let now = Instant::now();
        let mut until = self.lock();
        if until.is_none() {
            tracing::warn!("receipts are published unconfirmed for now; no record waits for that: {why}");
        }
        if until.is_none_or(|until| until <= now) {
            *until = Some(now + DISTRUST_TIME);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.distrusted_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Book + Sync, P: Post + Sync> Clerk for Receipts<B, P> {
    async fn tell(&self, asked: &[Asked]) {
        let limit = if self.is_distrusted() { TELLING_TIME_AFTER_A_FAILURE_MAX } else { TELLING_TIME_MAX };
        let told = timeout(limit, Box::pin(self.try_to_tell(asked))).await;
        let told = told.unwrap_or_else(|_| Err(format!("not done within {limit:?}")));
        let counter = match &told {
            Ok(Told::Confirmed) => &self.metrics.confirmed,
            Ok(Told::Tossed) | Err(_) => &self.metrics.unconfirmed,
        };
        counter.inc_by(asked.len() as u64);
        match told {
            Ok(Told::Confirmed) => self.trust(),
            Ok(Told::Tossed) => {}
            Err(why) => self.distrust(&why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::record::message::Incarnation;
    use crate::record::subject::Table;

    /// A database that answers commits, and no lookups: somebody has locked one of the tables.
    struct Silent;

    impl Book for Silent {
        async fn look_up(&self, _: &[Asked]) -> Result<Vec<Receipt>, String> {
            std::future::pending().await
        }
    }

    impl Post for Silent {
        async fn deliver(&self, _: &[Receipt]) -> Result<(), String> {
            Ok(())
        }

        async fn toss(&self, _: &[Receipt]) -> Result<(), String> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_does_not_end_holds_up_one_batch_for_long_and_not_each() {
        let asked = Asked {
            incarnation: Incarnation { stream: "LEDGER".into(), created_ns: 1 },
            sequence: 1,
            server_time_ns: 1,
            table: Table::AuditEvents,
            receipt_subject: "receipt.A.x".to_owned(),
        };
        let receipts = Receipts::new(Silent, Silent, Metrics::new().receipts());
        let started = Instant::now();
        for _ in 0..3 {
            receipts.tell(std::slice::from_ref(&asked)).await;
        }
        assert!(started.elapsed() < TELLING_TIME_MAX * 2, "{:?}", started.elapsed());
    }
}
