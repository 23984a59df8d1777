//! How are messages read again? By their sequences, from the stream itself: no consumer is made, asked or moved.

use super::api::{Api, ApiError, if_any};
use crate::domain::message::{Incarnation, Message};
use crate::domain::sequences::{Span, Spans};
use crate::domain::subject::{Lane, Subject};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::VecDeque;

/// Whose messages are read.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Everybody's.
    Any,
    /// Those of these lanes.
    Lanes(Vec<Lane>),
}

/// Reads ranges of sequences in their order.
#[derive(Debug)]
pub struct Reader {
    api: Api,
    incarnation: Incarnation,
    wanted: Wanted,
    rest: VecDeque<Span>,
}

/// Messages that stood together.
#[derive(Debug)]
pub struct Window {
    /// Those that were wanted.
    pub messages: Vec<Message>,
    /// Where there was nothing. What was jumped over for the sake of a lane is not among it.
    pub absent: Spans,
    /// Everything up to this sequence was looked at.
    pub through: i64,
}

/// So many sequences are asked for at a time.
const WINDOW: i64 = 64;

impl Reader {
    /// Reads these ranges.
    pub fn new(api: Api, incarnation: Incarnation, wanted: Wanted, spans: &Spans) -> Self {
        Self { api, incarnation, wanted, rest: spans.iter().collect() }
    }

    /// Reads on; `None` at the end. After an error the same can be read again.
    pub async fn read(&mut self) -> Result<Option<Window>, ApiError> {
        let Some(span) = self.rest.front().copied() else { return Ok(None) };
        let through = span.last().min(span.first() + WINDOW - 1);
        let read = stream::iter(span.first()..=through)
            .map(|sequence| self.api.message_at(&self.incarnation, sequence))
            .buffered(usize::try_from(WINDOW).expect("small"))
            .try_collect::<Vec<_>>()
            .await?;
        let mut messages = Vec::new();
        let mut absent = Spans::default();
        for (sequence, message) in (span.first()..).zip(read) {
            match message {
                None => absent.add(Span::of(sequence)),
                Some(message) if self.wants(&message) => messages.push(message),
                Some(_) => {}
            }
        }
        // Where nothing is wanted, nothing may be for long.
        let next = if messages.is_empty() && through < span.last() {
            self.next_wanted(through + 1).await?.unwrap_or(i64::MAX).min(span.last() + 1)
        } else {
            through + 1
        };
        if let (Wanted::Any, Some(jumped)) = (&self.wanted, Span::new(through + 1, next - 1)) {
            absent.add(jumped);
        }
        self.rest.pop_front();
        if let Some(rest) = Span::new(next, span.last()) {
            self.rest.push_front(rest);
        }
        Ok(Some(Window { messages, absent, through: next - 1 }))
    }

    fn wants(&self, message: &Message) -> bool {
        match &self.wanted {
            Wanted::Any => true,
            Wanted::Lanes(lanes) => {
                Subject::parse(&message.subject).is_some_and(|subject| lanes.contains(&subject.lane))
            }
        }
    }

    /// The first wanted message at or after a sequence.
    async fn next_wanted(&self, sequence: i64) -> Result<Option<i64>, ApiError> {
        match &self.wanted {
            Wanted::Any => {
                let next = if_any(self.api.next_message_of_any(&self.incarnation, sequence).await)?;
                Ok(next.map(|message| message.sequence))
            }
            Wanted::Lanes(lanes) => {
                let nexts = stream::iter(lanes.clone())
                    .map(|lane| self.api.next_of_lane(&self.incarnation, lane, sequence))
                    .buffered(lanes.len().max(1))
                    .try_collect::<Vec<_>>()
                    .await?;
                Ok(nexts.into_iter().flatten().min())
            }
        }
    }
}
