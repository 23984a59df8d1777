//! Sends receipts: looks up the outcome of a message after the commit, and publishes it before the acknowledgement.
//!
//! The database is authoritative, and a receipt never blocks the ledger: every step has a time limit. While the stream
//! of receipts is down, receipts are published unconfirmed, for subscribers that listen at that moment.

use crate::ingest::lifecycle::ReceiptNotifier;
use crate::metrics::ReceiptMetrics;
use crate::record::receipt::{Asked, Receipt};
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Where it is written what became of a message.
pub trait ReceiptStore {
    /// The receipts of these messages.
    fn look_up(&self, asked: &[Asked]) -> impl Future<Output = Result<Vec<Receipt>, String>> + Send;
}

/// What carries receipts to their subjects.
pub trait ReceiptPublisher {
    /// Publishes all of them, and waits until the stream has them.
    fn publish_confirmed(&self, receipts: &[Receipt]) -> impl Future<Output = Result<(), String>> + Send;

    /// Publishes all of them, and waits for nothing.
    fn publish_unconfirmed(&self, receipts: &[Receipt]) -> impl Future<Output = Result<(), String>> + Send;
}

impl<S: ReceiptStore + Sync + Send> ReceiptStore for std::sync::Arc<S> {
    fn look_up(&self, asked: &[Asked]) -> impl Future<Output = Result<Vec<Receipt>, String>> + Send {
        (**self).look_up(asked)
    }
}

/// Everything together for one batch.
const NOTIFY_TIME_MAX: Duration = Duration::from_secs(10);
/// The same, shortly after it failed.
const NOTIFY_TIME_AFTER_A_FAILURE_MAX: Duration = Duration::from_secs(2);
/// Where a lookup or a confirmation failed, the next one is waited for after this time.
const CIRCUIT_OPEN_TIME: Duration = Duration::from_secs(15);

/// How a batch of receipts went out.
enum Publication {
    Confirmed,
    /// Whoever listened has heard them.
    Unconfirmed,
}

/// Looks receipts up in this store, and publishes them.
#[derive(Debug)]
pub struct Receipts<S, P> {
    store: S,
    publisher: P,
    metrics: ReceiptMetrics,
    /// Set while the stream is away.
    open_until: Mutex<Option<Instant>>,
}

impl<S: ReceiptStore, P: ReceiptPublisher> Receipts<S, P> {
    /// Waits for confirmations until one fails.
    pub fn new(store: S, publisher: P, metrics: ReceiptMetrics) -> Self {
        Self { store, publisher, metrics, open_until: Mutex::new(None) }
    }

    async fn try_to_notify(&self, asked: &[Asked]) -> Result<Publication, String> {
        let receipts = self.store.look_up(asked).await?;
        if receipts.len() < asked.len() {
            // A reload has moved the connections to another database in the meantime.
            tracing::debug!(missing = asked.len() - receipts.len(), "some messages are not in this database");
        }
        if self.is_open() {
            self.publisher.publish_unconfirmed(&receipts).await.map(|()| Publication::Unconfirmed)
        } else {
            self.publisher.publish_confirmed(&receipts).await.map(|()| Publication::Confirmed)
        }
    }

    fn is_open(&self) -> bool {
        self.open_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn close_circuit(&self) {
        if self.open_until.lock().take().is_some() {
            tracing::info!("receipts are confirmed again");
        }
    }

    fn open_circuit(&self, why: &str) {
        let now = Instant::now();
        let mut until = self.open_until.lock();
        if until.is_none() {
            tracing::warn!("receipts are published unconfirmed for now; no record waits for that: {why}");
        }
        if until.is_none_or(|until| until <= now) {
            *until = Some(now + CIRCUIT_OPEN_TIME);
        }
    }
}

impl<S: ReceiptStore + Sync, P: ReceiptPublisher + Sync> ReceiptNotifier for Receipts<S, P> {
    async fn notify(&self, asked: &[Asked]) {
        let limit = if self.is_open() { NOTIFY_TIME_AFTER_A_FAILURE_MAX } else { NOTIFY_TIME_MAX };
        let published = timeout(limit, Box::pin(self.try_to_notify(asked))).await;
        let published = published.unwrap_or_else(|_| Err(format!("not done within {limit:?}")));
        let counter = match &published {
            Ok(Publication::Confirmed) => &self.metrics.confirmed,
            Ok(Publication::Unconfirmed) | Err(_) => &self.metrics.unconfirmed,
        };
        counter.inc_by(asked.len() as u64);
        match published {
            Ok(Publication::Confirmed) => self.close_circuit(),
            Ok(Publication::Unconfirmed) => {}
            Err(why) => self.open_circuit(&why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::record::message::Incarnation;
    use crate::record::table::Table;

    /// A database that answers commits, and no lookups: somebody has locked one of the tables.
    struct Silent;

    impl ReceiptStore for Silent {
        async fn look_up(&self, _: &[Asked]) -> Result<Vec<Receipt>, String> {
            std::future::pending().await
        }
    }

    impl ReceiptPublisher for Silent {
        async fn publish_confirmed(&self, _: &[Receipt]) -> Result<(), String> {
            Ok(())
        }

        async fn publish_unconfirmed(&self, _: &[Receipt]) -> Result<(), String> {
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
            receipts.notify(std::slice::from_ref(&asked)).await;
        }
        assert!(started.elapsed() < NOTIFY_TIME_MAX * 2, "{:?}", started.elapsed());
    }
}
