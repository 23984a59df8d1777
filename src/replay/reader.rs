//! Reads messages again by their sequences, from the stream itself. It creates, queries and moves no consumer.

use crate::nats::api::{Api, ApiError, if_any};
use crate::record::lane::Lane;
use crate::record::message::{Incarnation, Message};
use crate::record::sequences::{Span, Spans};
use crate::record::subject::Subject;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::VecDeque;

#[derive(Clone, Debug)]
pub enum Wanted {
    Any,
    /// Those of these lanes.
    Lanes(Vec<Lane>),
}

/// Reads ranges of sequences in their order.
#[derive(Debug)]
pub struct MessageReader {
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
const WINDOW: usize = 64;

impl MessageReader {
    pub fn new(api: Api, incarnation: Incarnation, wanted: Wanted, spans: &Spans) -> Self {
        Self { api, incarnation, wanted, rest: spans.iter().collect() }
    }

    /// Reads on; `None` at the end. After an error the same can be read again.
    pub async fn read(&mut self) -> Result<Option<Window>, ApiError> {
        let sequences = self.rest.iter().flat_map(|span| span.first()..=span.last()).take(WINDOW).collect::<Vec<_>>();
        let Some(&last) = sequences.last() else { return Ok(None) };
        let read = stream::iter(sequences.clone())
            .map(|sequence| self.api.message_at(&self.incarnation, sequence))
            .buffered(WINDOW)
            .try_collect::<Vec<_>>()
            .await?;
        let mut messages = Vec::new();
        let mut absent = Spans::default();
        for (sequence, message) in sequences.into_iter().zip(read) {
            match message {
                None => absent.add(Span::of(sequence)),
                Some(message) if self.wants(&message) => messages.push(message),
                Some(_) => {}
            }
        }
        // Where nothing is wanted, nothing may be for long.
        let is_last = self.rest.back().is_some_and(|span| span.last() == last);
        let next = if messages.is_empty() && !is_last { self.next_wanted(last + 1).await? } else { Some(last + 1) };
        let passed = self.pass(next.unwrap_or(i64::MAX));
        let through = passed.last().map_or(last, Span::last);
        if let (Wanted::Any, Some(jumped)) = (&self.wanted, Span::new(last + 1, through)) {
            absent.add_all(&passed.within(jumped));
        }
        Ok(Some(Window { messages, absent, through }))
    }

    /// Takes away what comes before a sequence.
    fn pass(&mut self, next: i64) -> Spans {
        let mut passed = Spans::default();
        while let Some(span) = self.rest.pop_front() {
            if let Some(before) = Span::new(span.first(), span.last().min(next - 1)) {
                passed.add(before);
            }
            if let Some(after) = Span::new(span.first().max(next), span.last()) {
                self.rest.push_front(after);
                break;
            }
        }
        passed
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
