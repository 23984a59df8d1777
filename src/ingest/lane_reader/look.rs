//! The periodic check of a lane's reader: it inspects the stream, the consumer and the claim every few seconds.

use crate::health::stalls::{LaneProgress, Sight, Waiting};
use crate::ingest::binding::{Interrupt, LateRange, created_ns};
use crate::ingest::lane_reader::reading::Reading;
use crate::ingest::lane_reader::{LaneReader, ReaderState};
use crate::ingest::position::Positions;
use crate::nats::api::{ApiError, incarnation_of, sequence_of};
use crate::nats::definitions;
use crate::record::sequences::Span;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the servers said at one moment.
struct ConsumerFacts {
    /// The last sequence of the whole stream, asked before everything else.
    end: i64,
    /// Messages of the lane that the consumer has not delivered.
    undelivered: u64,
    is_paused: bool,
    /// The first message of the lane that is not stored, and how long it has been in the stream.
    oldest: Option<(i64, Duration)>,
}

impl<P: Positions + Sync> Reading<'_, P> {
    pub(crate) async fn look(&self, state: &mut ReaderState) -> Result<(), Interrupt> {
        let seen = self.see(state).await?;
        self.reader.positions.is_alive(self.reader.lane);
        self.end_suspicion(state).await?;
        self.pass_over_others(state, &seen).await?;
        self.notify(&seen);
        Ok(())
    }

    async fn see(&self, state: &mut ReaderState) -> Result<ConsumerFacts, Interrupt> {
        let LaneReader { api, names, lane, .. } = self.reader;
        let durable = self.progress.durable.load(Ordering::Acquire);
        let stream = api.stream_info(&names.ledger).await?;
        let Some(cursor) = &mut state.cursor else { return Err(Interrupt::Void) };
        let end = sequence_of(stream.state.last_sequence);
        if incarnation_of(&names.ledger, &stream) != cursor.incarnation || end < durable {
            return Err(Interrupt::StreamChanged);
        }
        self.binder().record_gap(cursor, sequence_of(stream.state.first_sequence)).await?;
        let incarnation = cursor.incarnation.clone();
        let info = self.see_consumer(state).await?;
        let oldest = match api.next_message(&incarnation, *lane, durable + 1).await {
            Ok(message) => Some((message.sequence, age(message.server_time_ns))),
            Err(ApiError::MessageNotFound) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(ConsumerFacts { end, undelivered: info.0, is_paused: info.1, oldest })
    }

    /// What the consumer has not delivered, and whether it is paused. One that is not as it was bound is made anew; what it may have
    /// passed over since the last look is read out of order.
    async fn see_consumer(&self, state: &mut ReaderState) -> Result<(u64, bool), Interrupt> {
        let LaneReader { names, lane, .. } = self.reader;
        let (Some(bound), Some(cursor)) = (&mut state.consumer, &mut state.cursor) else { return Ok((0, false)) };
        let name = &bound.name;
        let Some(info) = self.binder().consumer_info().await? else {
            return Err(Interrupt::Remake(format!("the consumer {name} was deleted")));
        };
        let danger = definitions::consumer_danger(names, *lane, &info.config);
        let is_another = created_ns(&info) != bound.created_ns;
        if danger.is_some() || is_another {
            if let Some(span) = Span::new(cursor.trusted + 1, cursor.taken) {
                let suspected = self.reader.positions.suspect(cursor.claim, Some(cursor.trusted)).await;
                suspected.map_err(Interrupt::Postgres)?;
                state.late.push_back(LateRange { span, is_suspect: true });
            }
            let why = danger.unwrap_or_else(|| format!("the consumer {name} was made by somebody else"));
            return Err(Interrupt::Remake(why));
        }
        let floor = sequence_of(info.ack_floor.stream_sequence);
        let is_ahead = info.ack_floor.consumer_sequence > bound.deliveries;
        // The acknowledgement may have been of the consumer before this one.
        let is_behind =
            info.num_ack_pending > 0 && bound.acknowledged > bound.begins_after && floor < bound.acknowledged;
        if is_ahead || is_behind {
            return Err(Interrupt::Remake(format!(
                "the consumer {name} has its floor at {floor}, and {} was acknowledged before the last look: a former owner of the \
                 lane acknowledged late, or an acknowledgement was lost",
                bound.acknowledged
            )));
        }
        bound.acknowledged = self.progress.acknowledged.load(Ordering::Acquire);
        cursor.trusted = cursor.taken;
        Ok((info.num_pending, info.paused))
    }

    /// Where nothing of the lane waits, its position moves up to the stream's end. And the claim is looked at: a lane that has
    /// nothing to commit would not learn otherwise that it has another owner, or that the database went back.
    async fn pass_over_others(&self, state: &mut ReaderState, seen: &ConsumerFacts) -> Result<(), Interrupt> {
        let LaneReader { lane, positions, .. } = self.reader;
        let Some(cursor) = &mut state.cursor else { return Err(Interrupt::Void) };
        let durable = self.progress.durable.load(Ordering::Acquire);
        if seen.oldest.is_none() {
            cursor.clear = cursor.clear.max(seen.end);
        } else if let Some((oldest, _)) = seen.oldest
            && oldest > cursor.taken
        {
            cursor.clear = cursor.clear.max(oldest - 1);
        }
        if durable != cursor.taken {
            return Ok(());
        }
        let is_empty = seen.oldest.is_none() && seen.undelivered == 0;
        let to = if is_empty { seen.end.max(durable) } else { durable };
        if !positions.pass(cursor.claim, durable, to).await.map_err(Interrupt::Postgres)? {
            tracing::warn!(
                lane = lane.prefix(),
                "{lane}: another instance has taken the lane, or the database went back behind position {durable}"
            );
            return Err(Interrupt::Void);
        }
        cursor.taken = to;
        cursor.trusted = to;
        self.progress.durable.store(to, Ordering::Release);
        Ok(())
    }

    /// What was suspect is stored.
    async fn end_suspicion(&self, state: &mut ReaderState) -> Result<(), Interrupt> {
        let (Some(last), Some(cursor)) = (state.suspicion_ends_with, &state.cursor) else { return Ok(()) };
        let is_read = state.late.iter().all(|range| !range.is_suspect);
        if is_read && self.progress.late.load(Ordering::Acquire) >= last {
            let LaneReader { positions, .. } = self.reader;
            positions.suspect(cursor.claim, None).await.map_err(Interrupt::Postgres)?;
            state.suspicion_ends_with = None;
        }
        Ok(())
    }

    fn notify(&self, seen: &ConsumerFacts) {
        let LaneReader { lane, metrics, health, .. } = self.reader;
        metrics.lag.set(i64::try_from(seen.undelivered).unwrap_or(i64::MAX));
        metrics.oldest_unstored.set(seen.oldest.map_or(Duration::ZERO, |(_, age)| age).as_secs_f64());
        let durable = self.progress.durable.load(Ordering::Acquire);
        let waiting = seen.oldest.map(|(oldest, _)| Waiting {
            what: if seen.is_paused {
                let name = self.reader.names.consumer(*lane);
                format!("the consumer {name} is paused; messages wait from sequence {oldest} on")
            } else {
                format!("{} messages are not delivered; sequence {oldest} is not stored", seen.undelivered)
            },
            on_purpose: seen.is_paused,
        });
        let progress = LaneProgress { position: durable, stored: metrics.settled() };
        health.observe(lane.prefix(), Sight { progress, waiting });
    }
}

fn age(server_time_ns: i64) -> Duration {
    crate::clock::since_1970().saturating_sub(Duration::from_nanos(u64::try_from(server_time_ns).unwrap_or(0)))
}
