//! A lane as a source of batches. A separate task, the reader, pulls ahead while the previous batch is being committed.

use crate::ingest::handover::{Handed, ReadProgress, Ticket, Way};
use crate::ingest::lane_reader::LaneReader;
use crate::ingest::lifecycle::{Delivery, Source};
use crate::ingest::position::Positions;
use crate::metrics::LaneMetrics;
use crate::nats::api::{Api, ApiError};
use crate::nats::definitions::{self, Names};
use crate::record::lane::Lane;
use async_nats::Request;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A lane's consumer, as a source of batches.
#[derive(Debug)]
pub struct LaneSource<P> {
    batches: mpsc::Receiver<Handed>,
    lane: Lane,
    names: Arc<Names>,
    api: Api,
    positions: Arc<P>,
    progress: Arc<ReadProgress>,
    /// The reading that the batch at work is of.
    generation: u64,
    metrics: LaneMetrics,
}

/// How long an acknowledgement may take. A later one speaks for it.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

const ACK: Bytes = Bytes::from_static(b"+ACK");

impl<P: Positions + Send + Sync + 'static> LaneSource<P> {
    pub fn start(reader: LaneReader<P>) -> Self {
        // One batch may wait here, or be on its way, while the one before it is being committed.
        let (sender, batches) = mpsc::channel(1);
        let progress = Arc::<ReadProgress>::default();
        let source = Self {
            batches,
            lane: reader.lane,
            names: reader.names.clone(),
            api: reader.api.clone(),
            positions: reader.positions.clone(),
            progress: progress.clone(),
            generation: 0,
            metrics: reader.metrics.clone(),
        };
        tokio::spawn(reader.run(sender, progress));
        source
    }
}

impl<P: Positions + Send + Sync> Source for LaneSource<P> {
    type Ticket = Ticket;

    async fn take(&mut self) -> Option<Vec<Delivery<Ticket>>> {
        loop {
            let Handed { generation, deliveries } = self.batches.recv().await?;
            if self.progress.is_of(generation) {
                self.generation = generation;
                return Some(deliveries);
            }
        }
    }

    /// A lane's position says what is stored of it; the stream says whether there is more. A consumer that is wrong may have passed
    /// over messages that nobody has missed yet.
    async fn references_settled(&self, sequence: i64) -> Result<bool, String> {
        let Some(lane) = self.lane.refers_to() else { return Ok(true) };
        let text = |error: ApiError| error.to_string();
        match self.api.consumer_info(&self.names.ledger, &self.names.consumer(lane)).await {
            Ok(info) => {
                if let Some(danger) = definitions::consumer_danger(&self.names, lane, &info.config) {
                    return Err(danger);
                }
            }
            // Nobody serves the lane at this moment.
            Err(ApiError::ConsumerNotFound) => {}
            Err(error) => return Err(text(error)),
        }
        let incarnation = self.api.incarnation(&self.names.ledger).await.map_err(text)?;
        let position = self.positions.reliable_position(&incarnation, lane).await?;
        if position >= sequence {
            return Ok(true);
        }
        match self.api.next_message(&incarnation, lane, position + 1).await {
            Ok(oldest) => Ok(oldest.sequence > sequence),
            Err(ApiError::MessageNotFound) => Ok(true),
            Err(error) => Err(text(error)),
        }
    }

    async fn references_stored(&self, sequence: i64) -> Result<bool, String> {
        self.references_settled(sequence).await
    }

    async fn acknowledge(&mut self, Ticket { way, sequence, handed, generation }: Ticket) {
        if !self.progress.is_of(generation) {
            return;
        }
        let in_flight = self.progress.handed.load(Ordering::Relaxed).saturating_sub(handed);
        self.metrics.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let reply = match way {
            Way::Late => {
                self.progress.late.fetch_max(sequence, Ordering::AcqRel);
                return;
            }
            Way::Around => {
                self.progress.durable.store(sequence, Ordering::Release);
                return;
            }
            Way::Delivered(reply) => reply,
        };
        self.progress.durable.store(sequence, Ordering::Release);
        self.progress.acknowledged.store(sequence, Ordering::Release);
        // `double_ack` would take "no such consumer" for a yes.
        let acknowledging = self.api.client().send_request(reply, Request::new().payload(ACK));
        if !matches!(timeout(ACK_TIMEOUT, acknowledging).await, Ok(Ok(_))) {
            self.metrics.acks_unconfirmed.inc();
            tracing::debug!(lane = self.lane.prefix(), sequence, "the acknowledgement was not confirmed");
        }
    }

    fn rewind(&mut self, why: &str) {
        let lane = self.lane;
        if !self.progress.is_of(self.generation) {
            // The reader has noticed it before.
            return;
        }
        tracing::warn!(
            lane = lane.prefix(),
            "{lane}: {why}; what was taken is given up, and read again from the position"
        );
        self.progress.generation.fetch_add(1, Ordering::AcqRel);
        self.progress.rewound.notify_one();
        self.metrics.in_flight.set(0);
    }
}
