//! Binds a lane's reader to the lane's position in the database, and to a consumer that is recreated from that
//! position.

use crate::clock;
use crate::ingest::divergence::DivergenceSearch;
use crate::ingest::position::{Claim, Claimed, Positions};
use crate::metrics::LaneMetrics;
use crate::nats::api::{Api, ApiError, incarnation_of, sequence_of};
use crate::nats::definitions::{self, Names};
use crate::record::lane::Lane;
use crate::record::message::Incarnation;
use crate::record::sequences::Span;
use async_nats::jetstream::{consumer, stream};
use std::time::Duration;

/// Why a lane is not read on as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Stopped,
    /// Another instance owns the lane.
    Foreign,
    /// The claim is void, or the database went back: the position must be read again.
    Void,
    /// The stream was made anew, or went back to an older copy. What was taken of it is still stored, for it may be nowhere else.
    StreamChanged,
    /// The consumer is to be made anew where the reading stands. Why.
    Remake(String),
    /// The server does not answer. Why.
    Silent(String),
    /// The server is away or says no. Why.
    Nats(String),
    /// The database is away or says no. Why.
    Postgres(String),
}

impl From<ApiError> for Interrupt {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Silent(why) => Self::Silent(why),
            error => Self::Nats(error.to_string()),
        }
    }
}

/// Where a lane's reading stands.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) incarnation: Incarnation,
    pub(crate) claim: Claim,
    /// The name of the ledger. Known from the claim on, so that a consumer can be made while the database is away.
    pub(crate) ledger: String,
    /// Everything of the lane up to this sequence was handed over, or is stored.
    pub(crate) taken: i64,
    /// The last message that was handed over: its sequence, and when the server stored it.
    pub(crate) last: Option<(i64, i64)>,
    /// The same, when the consumer was last seen to be right.
    pub(crate) trusted: i64,
    /// Up to this sequence the stream holds nothing of the lane that was not taken.
    pub(crate) clear: i64,
}

/// A range of sequences to be read through the stream's own API, out of order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateRange {
    pub(crate) span: Span,
    /// The consumer may have passed over some of it, and nobody relies on the position until it is stored.
    pub(crate) is_suspect: bool,
}

/// A consumer that is read.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    /// When the server made it.
    pub(crate) created_ns: i128,
    /// How many deliveries arrived. The server numbers them without a gap.
    pub(crate) deliveries: u64,
    /// It delivers what comes after this sequence.
    pub(crate) begins_after: i64,
    /// What was acknowledged at the last look. Its floor is to be there at the next.
    pub(crate) acknowledged: i64,
}

/// What a lane is bound with.
#[derive(Debug)]
pub(crate) struct Binder<'a, P> {
    pub(crate) lane: Lane,
    pub(crate) api: &'a Api,
    pub(crate) names: &'a Names,
    pub(crate) positions: &'a P,
    pub(crate) metrics: &'a LaneMetrics,
}

/// The key of the consumer's metadata that names the ledger which it is a cursor of.
const LEDGER_MARK: &str = "ledgerd.ledger";
/// The key of the metadata that names the claim under which it was made. Under another claim, somebody else may still read it.
const CLAIM_MARK: &str = "ledgerd.claim";
/// A consumer of another ledger that was quiet for so long is taken over.
const FOREIGN_QUIET: Duration = Duration::from_secs(10);
/// What a former owner had stored, and perhaps not told to those who ask, is read again; of so many sequences at most.
const RETELL_SEQUENCES_MAX: i64 = 100_000;

impl<P: Positions> Binder<'_, P> {
    /// Takes the lane, and compares its position with the stream.
    pub(crate) async fn claim(&self) -> Result<(Cursor, Vec<LateRange>), Interrupt> {
        let info = self.api.stream_info(&self.names.ledger).await?;
        let incarnation = incarnation_of(&self.names.ledger, &info);
        let claimed = self.positions.claim(&incarnation, self.lane).await.map_err(Interrupt::Postgres)?;
        let Claimed::Owned { claim, position, suspect_after } = claimed else { return Err(Interrupt::Foreign) };
        self.open_epoch_if_stream_went_back(&incarnation, &info, claim, position).await?;
        let first = sequence_of(info.state.first_sequence);
        let ledger = self.positions.ledger_id().await.map_err(Interrupt::Postgres)?;
        let untold = self.untold(claim, position, &ledger).await?.map(|span| LateRange { span, is_suspect: false });
        let mut cursor =
            Cursor { incarnation, claim, ledger, taken: position, last: None, trusted: position, clear: position };
        self.record_gap(&mut cursor, first).await?;
        let suspect = suspect_after.and_then(|after| Span::new(after + 1, position));
        let suspect = suspect.map(|span| LateRange { span, is_suspect: true });
        Ok((cursor, suspect.into_iter().chain(untold).collect()))
    }

    /// Records what the stream has lost of the lane, or may have, since nobody has read it.
    pub(crate) async fn record_gap(&self, cursor: &mut Cursor, stream_first: i64) -> Result<(), Interrupt> {
        let Some(gap) = Span::new(cursor.taken.max(cursor.clear) + 1, stream_first - 1) else { return Ok(()) };
        let Cursor { claim, .. } = cursor;
        let why = format!("the stream begins at sequence {stream_first} now");
        cursor.clear = gap.last();
        if !self.positions.record_gap(*claim, gap, &why).await.map_err(Interrupt::Postgres)? {
            return Ok(());
        }
        tracing::error!(
            lane = self.lane.prefix(),
            first = gap.first(),
            last = gap.last(),
            "{}: the stream has lost sequences {gap} before they were read: {why}. What it may have held of them for this lane is \
             not in the ledger; ask its publishers to publish it again",
            self.lane
        );
        self.metrics.gap_sequences.inc_by(gap.count().unsigned_abs());
        Ok(())
    }

    async fn open_epoch_if_stream_went_back(
        &self,
        incarnation: &Incarnation,
        info: &stream::Info,
        claim: Claim,
        position: i64,
    ) -> Result<(), Interrupt> {
        if position == 0 {
            return Ok(());
        }
        let last = sequence_of(info.state.last_sequence);
        let first = sequence_of(info.state.first_sequence);
        let comparison = DivergenceSearch { api: self.api, positions: self.positions, incarnation, first };
        let diverged = comparison.divergence(position.min(last)).await.map_err(Interrupt::Postgres)?;
        let Some(divergence) = diverged.or_else(|| (last < position).then_some(last + 1)) else { return Ok(()) };
        tracing::error!(
            stream = &*incarnation.stream,
            "the stream {incarnation} went back: from sequence {divergence} on it holds other messages than the ledger has of it. \
             It was restored from an older copy, or lost data. A new epoch holds what it delivers from there on; run \
             `ledgerd reconcile`"
        );
        let opened = self.positions.open_epoch(incarnation, claim.epoch, divergence).await;
        opened.map_err(Interrupt::Postgres)?;
        Err(Interrupt::Void)
    }

    /// What was stored, and not acknowledged: whoever stored it may have ended before it told those who ask. A server that was
    /// restarted has forgotten its consumers; then it is the last commit at most, for each tells before the next one.
    async fn untold(&self, claim: Claim, position: i64, ledger: &str) -> Result<Option<Span>, Interrupt> {
        let Some(info) = self.consumer_info().await? else {
            return self.positions.last_commit(claim).await.map_err(Interrupt::Postgres);
        };
        if info.config.metadata.get(LEDGER_MARK).is_none_or(|mark| mark != ledger) {
            return Ok(None);
        }
        let floor = sequence_of(info.ack_floor.stream_sequence);
        Ok(Span::new(floor.max(position - RETELL_SEQUENCES_MAX) + 1, position))
    }

    /// A consumer that delivers what follows on the cursor. The one that is there stays if it stands exactly as `before` says.
    pub(crate) async fn consumer(&self, cursor: &Cursor, before: Option<Consumer>) -> Result<Consumer, Interrupt> {
        let found = self.consumer_info().await?;
        if let (Some(info), Some(before)) = (&found, before)
            && before.created_ns == created_ns(info)
            && before.deliveries == info.delivered.consumer_sequence
            && definitions::consumer_danger(self.names, self.lane, &info.config).is_none()
        {
            return Ok(before);
        }
        if let Some(fresh) = found.as_ref().and_then(|info| self.fresh(cursor, info)) {
            return Ok(fresh);
        }
        let mut config = definitions::consumer(self.names, self.lane);
        config.deliver_policy = consumer::DeliverPolicy::ByStartSequence {
            start_sequence: u64::try_from(cursor.taken + 1).expect("a sequence is positive"),
        };
        if let Some(found) = &found {
            self.refuse_foreign(found, &cursor.ledger)?;
            config.pause_until = found.config.pause_until;
            self.api.delete_consumer(&self.names.ledger, &found.name).await?;
        }
        config.metadata.insert(LEDGER_MARK.to_owned(), cursor.ledger.clone());
        config.metadata.insert(CLAIM_MARK.to_owned(), claim_text(cursor.claim));
        let made = self.api.create_consumer(&self.names.ledger, &config).await?;
        tracing::debug!(lane = self.lane.prefix(), "the consumer {} begins at {}", made.name, cursor.taken + 1);
        Ok(Consumer {
            created_ns: created_ns(&made),
            name: made.name,
            deliveries: 0,
            begins_after: cursor.taken,
            acknowledged: 0,
        })
    }

    /// A consumer that was made under this claim, stands exactly on the cursor, and has delivered nothing. A cluster that elects a leader for it may take longer than a
    /// request waits, so the answer to the one that made it may never have come. To make it anew would begin that wait again.
    fn fresh(&self, cursor: &Cursor, info: &consumer::Info) -> Option<Consumer> {
        let consumer::DeliverPolicy::ByStartSequence { start_sequence } = info.config.deliver_policy else {
            return None;
        };
        let before_start = sequence_of(start_sequence) - 1;
        let is_marked = |mark: &str, text: &str| info.config.metadata.get(mark).is_some_and(|found| found == text);
        let is_ours = is_marked(LEDGER_MARK, &cursor.ledger) && is_marked(CLAIM_MARK, &claim_text(cursor.claim));
        let is_unread = info.delivered.consumer_sequence == 0 && info.num_waiting == 0;
        let is_right = definitions::consumer_danger(self.names, self.lane, &info.config).is_none();
        (is_ours && is_unread && is_right && before_start == cursor.taken).then(|| Consumer {
            name: info.name.clone(),
            created_ns: created_ns(info),
            deliveries: 0,
            begins_after: before_start,
            acknowledged: 0,
        })
    }

    /// Whether the stream still holds what was taken of it. One that was restored comes with a new connection.
    pub(crate) async fn check_stream(&self, cursor: &Cursor) -> Result<(), Interrupt> {
        let info = self.api.stream_info(&self.names.ledger).await?;
        let end = sequence_of(info.state.last_sequence);
        if incarnation_of(&self.names.ledger, &info) != cursor.incarnation || end < cursor.taken {
            return Err(Interrupt::StreamChanged);
        }
        let Some((sequence, server_time_ns)) = cursor.last else { return Ok(()) };
        let found = self.api.message_at(&cursor.incarnation, sequence).await?;
        if found.is_some_and(|found| found.server_time_ns != server_time_ns) {
            return Err(Interrupt::StreamChanged);
        }
        Ok(())
    }

    pub(crate) async fn consumer_info(&self) -> Result<Option<consumer::Info>, Interrupt> {
        match self.api.consumer_info(&self.names.ledger, &self.names.consumer(self.lane)).await {
            Ok(info) => Ok(Some(info)),
            Err(ApiError::ConsumerNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Two ledgers must not share a consumer. One whose ledger does not read it any more is free.
    fn refuse_foreign(&self, found: &consumer::Info, ledger: &str) -> Result<(), Interrupt> {
        let Some(other) = found.config.metadata.get(LEDGER_MARK).filter(|mark| *mark != ledger) else { return Ok(()) };
        let last_active = found.delivered.last_active.map(async_nats::datetime::DateTime::unix_timestamp_nanos);
        let quiet_ns = last_active.map(|at| i128::from(clock::unix_ns()) - at);
        let is_quiet =
            quiet_ns.is_none_or(|quiet| quiet > i128::try_from(FOREIGN_QUIET.as_nanos()).unwrap_or(i128::MAX));
        let name = &found.name;
        if found.num_waiting > 0 || !is_quiet {
            return Err(Interrupt::Nats(format!(
                "the consumer {name} is read by the ledger {other}, and this database is the ledger {ledger}: give one of the two \
                 another nats.consumer_prefix"
            )));
        }
        tracing::warn!(
            lane = self.lane.prefix(),
            "the consumer {name} was made by the ledger {other}, which does not read it any more; the ledger {ledger} of this \
             database makes it anew"
        );
        Ok(())
    }
}

fn claim_text(claim: Claim) -> String {
    format!("{}/{}", claim.epoch, claim.fence)
}

/// When the server made a consumer, in nanoseconds since 1970.
pub(crate) fn created_ns(info: &consumer::Info) -> i128 {
    info.created.unix_timestamp_nanos()
}
