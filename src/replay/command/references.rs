//! The check before replayed usage is charged at the known rates, or rejected for lack of one. Both require that no
//! older message of the stream can bring another rate: each is in custody, or on another lane. A rejection also
//! requires that the stream has lost no such message.

use crate::ingest::coverage;
use crate::nats::api::Api;
use crate::nats::stream_state::StreamState;
use crate::postgres::connections::Connections;
use crate::record::lane::Lane;
use crate::record::sequences::{Span, Spans};
use std::sync::atomic::{AtomicI64, Ordering};

/// Where older records of the lanes that others refer to are looked for.
#[derive(Debug)]
pub(crate) struct Referred<'a> {
    api: &'a Api,
    custody: &'a Connections,
    stream: &'a str,
    /// Everything up to this sequence is known to be settled.
    settled: AtomicI64,
    /// Everything up to this sequence that the stream holds of those lanes is stored.
    stored: AtomicI64,
}

pub(crate) enum ReferencesAnswer {
    Settled,
    /// What stands in the way, and what can be done about it.
    Unsettled(String),
}

impl<'a> Referred<'a> {
    pub(crate) fn new(api: &'a Api, custody: &'a Connections, stream: &'a str) -> Self {
        Self { api, custody, stream, settled: AtomicI64::new(0), stored: AtomicI64::new(0) }
    }

    /// Looks at everything before a sequence.
    pub(crate) async fn look(&self, sequence: i64) -> Result<ReferencesAnswer, String> {
        let Some(span) = Span::new(self.settled.load(Ordering::Relaxed) + 1, sequence - 1) else {
            return Ok(ReferencesAnswer::Settled);
        };
        let answer = self.look_at(span, sequence).await?;
        if matches!(answer, ReferencesAnswer::Settled) {
            self.settled.store(span.last(), Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Looks at what the stream holds before a sequence; says what of it is not stored.
    pub(crate) async fn look_in_stream(&self, sequence: i64) -> Result<Option<String>, String> {
        let Some(span) = Span::new(self.stored.load(Ordering::Relaxed) + 1, sequence - 1) else { return Ok(None) };
        let stream_state = self.api.stream_state(self.stream).await.map_err(|error| error.to_string())?;
        let gaps = self.gaps(&stream_state, span).await?;
        let missing = self.missing(&stream_state, &gaps, sequence).await?;
        if missing.is_none() {
            self.stored.store(span.last(), Ordering::Relaxed);
        }
        Ok(missing)
    }

    async fn look_at(&self, span: Span, sequence: i64) -> Result<ReferencesAnswer, String> {
        let stream_state = self.api.stream_state(self.stream).await.map_err(|error| error.to_string())?;
        let gaps = self.gaps(&stream_state, span).await?;
        if let Some(missing) = self.missing(&stream_state, &gaps, sequence).await? {
            return Ok(ReferencesAnswer::Unsettled(missing));
        }
        let mut gone = stream_state.expired(span);
        gone.add_all(&stream_state.deleted(span));
        let lost = gaps.iter().find_map(|gap| gone.within(gap).first());
        if lost.is_none() && stream_state.knows_all_deleted() {
            return Ok(ReferencesAnswer::Settled);
        }
        let lost = lost.map_or_else(|| "messages".to_owned(), |lost| format!("sequences {lost}"));
        Ok(ReferencesAnswer::Unsettled(format!(
            "usage at sequence {sequence} has no rate in this database, and {lost}, which may have brought it, are neither in the \
             stream nor in custody: publish the rate; or run `ledgerd replay --rates-are-complete`, and such usage is rejected"
        )))
    }

    /// The sequences that custody lacks.
    async fn gaps(&self, stream_state: &StreamState, span: Span) -> Result<Spans, String> {
        let epochs = coverage::epochs(self.custody, self.stream).await.map_err(|error| error.to_string())?;
        let created_ns = stream_state.incarnation.created_ns;
        let own: Vec<i32> =
            epochs.iter().filter(|epoch| epoch.stream_created_ns == created_ns).map(|epoch| epoch.number).collect();
        coverage::gaps(self.custody, &own, span, |_| ()).await.map_err(|error| error.to_string())
    }

    /// The first message of those lanes that stands in the stream where custody has a gap.
    async fn missing(&self, stream_state: &StreamState, gaps: &Spans, sequence: i64) -> Result<Option<String>, String> {
        for lane in Lane::BUILT_IN.into_iter().filter_map(Lane::refers_to) {
            let mut next = 0;
            for gap in gaps.iter() {
                if next < gap.first() {
                    let found = self.api.next_of_lane(&stream_state.incarnation, lane, gap.first()).await;
                    next = found.map_err(|error| error.to_string())?.unwrap_or(i64::MAX);
                }
                if next <= gap.last() {
                    return Ok(Some(format!(
                        "usage at sequence {sequence} is charged at rates, and sequence {next} of lane {lane}, which may bring one, \
                         is not stored: run `ledgerd replay --lane {lane}` first"
                    )));
                }
            }
        }
        Ok(None)
    }
}
