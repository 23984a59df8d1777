//! Determines the outcome of every sequence. It reads the stream and the positions first, then custody, then the stream
//! again: changes in between can only store more than is reported. Each message that the stream still holds is read,
//! and custody must have the identical message.

use crate::command::progress::{ProgressLine, bar};
use crate::command::{Exit, Failure};
use crate::replay::reconcile::floor::Floor;

use crate::config::Config;
use crate::ingest::coverage::{self, CoveredEpoch, Proof};
use crate::ingest::divergence::DivergenceSearch;
use crate::ingest::positions::{GAPS_SHOWN_MAX, Gap, LanePositions};
use crate::nats::api::Api;
use crate::nats::stream_state::StreamState;
use crate::postgres::connections::Connections;
use crate::record::message::Incarnation;
use crate::record::sequences::{Span, Spans};
use crate::replay::reader::{MessageReader, Wanted};

#[derive(Debug)]
pub(crate) struct Reconciliation {
    /// The stream as it is now.
    pub(crate) stream_state: StreamState,
    pub(crate) floor: Floor,
    /// The epochs of this incarnation, the newest first.
    pub(crate) own: Vec<CoveredEpoch>,
    /// Those whose stream is gone.
    pub(crate) gone: Vec<CoveredEpoch>,
    /// What was looked at: from behind the last proof up to the floor.
    pub(crate) span: Option<Span>,
    /// What custody lacks, by its reason.
    pub(crate) lacking: Lacking,
    /// From here on the stream holds other messages than custody.
    pub(crate) parted_at: Option<i64>,
    /// What the stream lost before it was read, the newest first.
    pub(crate) gaps: Vec<Gap>,
    /// The last sequence that custody has of the newest epoch, where the stream does not reach it any more.
    pub(crate) went_back_from: Option<i64>,
}

/// Sequences without an entry in custody.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    /// The stream has lost them at its beginning.
    pub(crate) expired: Spans,
    /// They were removed from between others.
    pub(crate) deleted: Spans,
    /// They are there, on subjects that nobody reads.
    pub(crate) on_no_lane: Spans,
    /// They are there, below the positions of their lanes, and not in the ledger.
    pub(crate) missing: Spans,
}

impl Reconciliation {
    /// What must be read again.
    pub(crate) fn to_repair(&self) -> Spans {
        let parted = self.parted_at.and_then(|at| Span::new(at, self.floor.sequence));
        self.lacking.missing.iter().chain(parted).collect()
    }

    /// Whether the ledger is not what it must be.
    pub(crate) fn is_different(&self) -> bool {
        !self.lacking.missing.is_empty() || self.parted_at.is_some() || self.went_back_from.is_some()
    }

    /// What is proven now: everything before the first sequence that is not accounted for.
    pub(crate) fn proof(&self) -> Option<Proof> {
        let first_missing = self.lacking.missing.first().map(Span::first);
        let wrong = [first_missing, self.parted_at].into_iter().flatten().min().unwrap_or(i64::MAX);
        let span = self.span.and_then(|span| Span::new(span.first(), span.last().min(wrong - 1)))?;
        let Lacking { expired, deleted, on_no_lane, .. } = &self.lacking;
        let [expired, deleted, on_no_lane] = [expired, deleted, on_no_lane].map(|spans| spans.within(span).count());
        let entries = span.count() - expired - deleted - on_no_lane;
        Some(Proof { epoch: self.own.first()?.number, span, entries, expired, deleted, on_no_lane })
    }
}

/// Looks at what was not proven yet, or at everything.
pub(crate) async fn look(
    config: &Config,
    api: &Api,
    custody: &Connections,
    positions: &LanePositions,
    everything: bool,
) -> Result<Reconciliation, Failure> {
    let stream = &config.nats.stream;
    let before = api.stream_state(stream).await?;
    let floor = Floor::read(config, api, positions, &before).await?;
    let is_own = |epoch: &CoveredEpoch| epoch.stream_created_ns == before.incarnation.created_ns;
    let (mut own, gone): (Vec<_>, Vec<_>) = coverage::epochs(custody, stream).await?.into_iter().partition(is_own);
    own.sort_by_key(|epoch| std::cmp::Reverse(epoch.regressions));
    let numbers: Vec<i32> = own.iter().map(|epoch| epoch.number).collect();
    let proven = own.first().and_then(|epoch| epoch.proven).filter(|_| !everything).unwrap_or(0);
    let span = Span::new(proven + 1, floor.sequence);
    let mut progress = ProgressLine::new();
    let gaps = match span {
        None => Spans::default(),
        Some(span) => {
            let share = |at: i64| bar((at - span.first()).unsigned_abs(), span.count().unsigned_abs());
            coverage::gaps(custody, &numbers, span, |at| {
                progress.tell(|| format!("{} custody, sequence {at}", share(at)));
            })
            .await?
        }
    };
    let stream_state = api.stream_state(stream).await?;
    same_stream(&before.incarnation, &stream_state.incarnation)?;
    let custody = CustodyReader { api, connections: custody, stream_state: &stream_state, epochs: &numbers };
    let lacking = match span {
        None => Lacking::default(),
        Some(span) => Box::pin(tell_apart(&custody, &floor, span, &gaps, &mut progress)).await?,
    };
    let comparison =
        DivergenceSearch { api, positions, incarnation: &stream_state.incarnation, first: stream_state.first };
    let divergence = async |through: i64| {
        let divergence = comparison.divergence(through).await;
        divergence.map_err(|why| Failure::new(Exit::Unavailable, why))
    };
    let mut parted_at = divergence(floor.sequence).await?;
    // The stream may have gone back to what was proven, and grown beyond it since.
    if parted_at.is_none() && proven > 0 {
        parted_at = divergence(proven).await?;
    }
    // Where an epoch goes on after the stream went back, what is older must still be the same.
    if let (None, Some(CoveredEpoch { regressions: 1.., first: Some(first), .. })) = (parted_at, own.first()) {
        parted_at = divergence(first - 1).await?;
    }
    let went_back_from = own.first().and_then(|epoch| epoch.last).filter(|last| *last > stream_state.last);
    let gaps = positions.gaps(stream, GAPS_SHOWN_MAX).await?;
    Ok(Reconciliation { stream_state, floor, own, gone, span, lacking, parted_at, gaps, went_back_from })
}

fn same_stream(before: &Incarnation, now: &Incarnation) -> Result<(), Failure> {
    if before == now {
        return Ok(());
    }
    let what = format!("the stream was made anew in these moments: it was {before}, and is {now}; run it again");
    Err(Failure::new(Exit::Failed, what))
}

/// The stream, and what custody has of it.
#[derive(Debug)]
struct CustodyReader<'a> {
    api: &'a Api,
    connections: &'a Connections,
    stream_state: &'a StreamState,
    /// The epochs of the stream's incarnation.
    epochs: &'a [i32],
}

/// Asks custody for each message that the stream has. A sequence alone says little: a stream that went back uses it again for
/// another message, and a consumer that did not go back passes over that one.
async fn tell_apart(
    custody: &CustodyReader<'_>,
    floor: &Floor,
    span: Span,
    gaps: &Spans,
    progress: &mut ProgressLine,
) -> Result<Lacking, Failure> {
    let CustodyReader { api, connections, stream_state, epochs } = *custody;
    let mut lacking = Lacking::default();
    for gap in gaps.iter() {
        lacking.expired.add_all(&stream_state.expired(gap));
        lacking.deleted.add_all(&stream_state.deleted(gap));
    }
    let mut reader =
        MessageReader::new(api.clone(), stream_state.incarnation.clone(), Wanted::Any, &stream_state.remaining(span));
    let mut absent = Spans::default();
    let mut next = reader.read().await?;
    while let Some(window) = next {
        // The stream is read ahead.
        let (read, are_covered) =
            tokio::join!(reader.read(), coverage::are_covered(connections, epochs, &window.messages));
        next = read?;
        window.absent.iter().for_each(|gone| absent.add_all(&gaps.within(gone)));
        let done = bar((window.through - span.first()).unsigned_abs(), span.count().unsigned_abs());
        progress.tell(|| format!("{done} stream, sequence {}", window.through));
        for (message, _) in window.messages.iter().zip(are_covered?).filter(|(_, is_held)| !is_held) {
            let kind = if floor.serves(message) { &mut lacking.missing } else { &mut lacking.on_no_lane };
            kind.add(Span::of(message.sequence));
        }
    }
    if !absent.is_empty() {
        // The stream moves on while it is read.
        let now = api.stream_state(&stream_state.incarnation.stream).await?;
        same_stream(&stream_state.incarnation, &now.incarnation)?;
        for absent in absent.iter() {
            let expired = now.expired(absent);
            lacking.deleted.add_all(&expired.rest_of(absent));
            lacking.expired.add_all(&expired);
        }
    }
    Ok(lacking)
}
