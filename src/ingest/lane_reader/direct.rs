//! Reads a lane through the stream's own API, which returns headers as bytes. It is used out of order, or to get past
//! messages that the client cannot read.

use crate::ingest::binding::{Interrupt, LateRange};
use crate::ingest::handover::Way;
use crate::ingest::lane_reader::reading::{Reading, hand_over};
use crate::ingest::lane_reader::{LaneReader, ReaderState};
use crate::ingest::position::{Order, Positions};
use crate::nats::api::ApiError;
use crate::record::message::{Incarnation, Message};
use crate::record::sequences::Span;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Where there is no further message, the stream is asked again after this time.
const NOTHING_INTERVAL: Duration = Duration::from_millis(50);
/// Each is a request of its own, so a batch of them does not wait for a full one.
const DIRECT_MESSAGES_MAX: usize = 64;

impl<P: Positions + Sync> Reading<'_, P> {
    /// Reads a part of a range out of order, and hands it over.
    pub(crate) async fn read_late(&self, state: &mut ReaderState, range: LateRange) -> Result<(), Interrupt> {
        let place = self.place(state, &mut Instant::now()).await?;
        let Some(cursor) = &state.cursor else { return Err(Interrupt::Void) };
        let (messages, next) = self.read_directly(&cursor.incarnation, range.span.first(), range.span.last()).await?;
        let last = messages.last().map(|message| message.sequence);
        let deliveries = messages
            .into_iter()
            .map(|message| self.delivery(state.generation, message, Order::Late, Way::Late))
            .collect();
        hand_over(state, place, deliveries);
        match next.and_then(|next| Span::new(next, range.span.last())) {
            Some(rest) => state.late[0].span = rest,
            None => {
                state.late.pop_front();
            }
        }
        if range.is_suspect {
            state.suspicion_ends_with = last.or(state.suspicion_ends_with).or(Some(0));
        }
        Ok(())
    }

    /// Reads on through the stream's own API, which gives headers as bytes, past what the client cannot read.
    pub(crate) async fn read_around(&self, state: &mut ReaderState) -> Result<(), Interrupt> {
        let place = self.place(state, &mut Instant::now()).await?;
        let generation = state.generation;
        let Some(cursor) = &mut state.cursor else { return Err(Interrupt::Void) };
        let (messages, _) = self.read_directly(&cursor.incarnation, cursor.taken + 1, i64::MAX).await?;
        self.reader.positions.is_alive(self.reader.lane);
        self.reader.health.nats.up(self.reader.lane.prefix());
        // The consumer stands before what is read around it.
        state.consumer = None;
        if messages.is_empty() {
            drop(place);
            state.around.found_nothing();
            tokio::select! {
                () = sleep(NOTHING_INTERVAL) => {}
                () = self.reader.stop.cancelled() => {}
            }
            return Ok(());
        }
        state.around.read(messages.len());
        self.reader.metrics.read_around.inc_by(messages.len() as u64);
        let deliveries = messages
            .into_iter()
            .map(|message| {
                let order = Order::Next { claim: cursor.claim, after: cursor.taken };
                cursor.taken = message.sequence;
                cursor.last = Some((message.sequence, message.server_time_ns));
                self.delivery(generation, message, order, Way::Around)
            })
            .collect();
        hand_over(state, place, deliveries);
        Ok(())
    }

    /// Messages of the lane from `first` on, as one batch; and where to go on, unless `last` was reached or there is no more.
    async fn read_directly(
        &self,
        incarnation: &Incarnation,
        first: i64,
        last: i64,
    ) -> Result<(Vec<Message>, Option<i64>), Interrupt> {
        let LaneReader { lane, api, limits, .. } = self.reader;
        let (mut messages, mut bytes, mut next) = (Vec::new(), 0, first);
        while messages.len() < limits.messages_max.min(DIRECT_MESSAGES_MAX) && bytes < limits.bytes_max {
            self.pulse.beat();
            match api.next_message(incarnation, *lane, next).await {
                Ok(message) if message.sequence <= last => {
                    bytes += message.payload.len() + message.headers.as_bytes().map_or(0, <[u8]>::len);
                    next = message.sequence + 1;
                    messages.push(message);
                }
                Ok(_) | Err(ApiError::MessageNotFound) => return Ok((messages, None)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((messages, Some(next)))
    }
}
