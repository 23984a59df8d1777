//! The state of a stream: the sequences that it holds, and those that it has removed. It is read from the stream
//! itself, and from no consumer.

use crate::nats::api::{Api, ApiError, if_any, incarnation_of, sequence_of};
use crate::record::lane::Lane;
use crate::record::message::Incarnation;
use crate::record::sequences::{Span, Spans};

/// Which sequences a stream has, and which it has no more.
#[derive(Clone, Debug)]
pub struct StreamState {
    pub incarnation: Incarnation,
    /// What is below has expired, by age, by size or by a purge. An empty stream has its next sequence here.
    pub first: i64,
    /// The last sequence that was given to a message.
    pub last: i64,
    /// What was removed from between others; `None` where that is more than anybody asks for.
    deleted: Option<Spans>,
}

/// More deleted sequences than these are not asked for: each stands in the server's answer by itself.
const DELETED_MAX: u64 = 1_000_000;

impl StreamState {
    /// All sequences that were ever given; `None` where there was none.
    pub fn all(&self) -> Option<Span> {
        Span::new(1, self.last)
    }

    /// Those of a range that have expired.
    pub fn expired(&self, span: Span) -> Spans {
        Span::new(1, self.first - 1).and_then(|below| below.common(span)).into_iter().collect()
    }

    /// Those of a range that were removed from between others, as far as the server has named them.
    pub fn deleted(&self, span: Span) -> Spans {
        self.deleted.as_ref().map(|deleted| deleted.within(span)).unwrap_or_default()
    }

    /// Those of a range that may be there.
    pub fn remaining(&self, span: Span) -> Spans {
        let mut gone = self.expired(span);
        gone.add_all(&self.deleted(span));
        gone.rest_of(span)
    }

    /// Whether each sequence that was removed is known.
    pub fn knows_all_deleted(&self) -> bool {
        self.deleted.is_some()
    }
}

impl Api {
    /// Asks what a stream holds.
    pub async fn stream_state(&self, stream: &str) -> Result<StreamState, ApiError> {
        let mut info = self.stream_info(stream).await?;
        let are_named = match info.state.deleted_count.unwrap_or(0) {
            0 => true,
            1..=DELETED_MAX => {
                info = self.stream_info_with_deleted(stream).await?;
                true
            }
            _ => false,
        };
        let deleted = are_named.then(|| {
            let mut deleted = info.state.deleted.clone().unwrap_or_default();
            deleted.sort_unstable();
            deleted.into_iter().map(|one| Span::of(sequence_of(one))).collect()
        });
        Ok(StreamState {
            incarnation: incarnation_of(stream, &info),
            // A stream that never held anything says 0.
            first: sequence_of(info.state.first_sequence).max(1),
            last: sequence_of(info.state.last_sequence),
            deleted,
        })
    }

    /// The sequence of the first message of a lane at or after one.
    pub async fn next_of_lane(
        &self,
        incarnation: &Incarnation,
        lane: Lane,
        sequence: i64,
    ) -> Result<Option<i64>, ApiError> {
        Ok(if_any(self.next_message(incarnation, lane, sequence).await)?.map(|message| message.sequence))
    }

    /// The first sequence whose message the server stored at this moment or later; the one after the last, if there is none.
    /// Found by halving, since the server's times grow with the sequences.
    pub async fn first_since(&self, stream_state: &StreamState, unix_ns: i64) -> Result<i64, ApiError> {
        let (mut low, mut high) = (stream_state.first, stream_state.last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match if_any(self.next_message_of_any(&stream_state.incarnation, middle).await)? {
                Some(message) if message.sequence < high && message.server_time_ns < unix_ns => {
                    low = message.sequence + 1;
                }
                _ => high = middle,
            }
        }
        Ok(low)
    }
}
