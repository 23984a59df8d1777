//! The report of a reconciliation: lines for people, and one document for machines.

use crate::command::runs;
use crate::ingest::coverage::{CoveredEpoch, Proof};
use crate::ingest::positions::Gap;
use crate::postgres::runs::{Run, Scope};
use crate::record::lane::Lane;
use crate::record::message::utc_text;
use crate::record::sequences::{Span, Spans};
use crate::replay::command::engine::Replayed;
use crate::replay::command::ranges;
use crate::replay::reconcile::look::{Lacking, Reconciliation};
use serde_json::{Value, json};
use std::time::Duration;

/// What was found, and what was done about it.
#[derive(Debug)]
pub(crate) struct ReconcileReport<'a> {
    pub(crate) found: &'a Reconciliation,
    pub(crate) proof: Option<Proof>,
    pub(crate) repaired: Option<&'a Replayed>,
}

impl ReconcileReport<'_> {
    /// Everything up to this sequence is proven.
    fn proven_through(&self) -> i64 {
        let before = self.found.own.first().and_then(|epoch| epoch.proven).unwrap_or(0);
        self.proof.map_or(before, |proof| proof.span.last().max(before))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let Reconciliation { stream_state, floor, own, gone, lacking, gaps, .. } = self.found;
        let mut lines = vec![format!(
            "{}, {}: proven through sequence {} of {}",
            stream_state.incarnation,
            own.first().map_or_else(|| "no epoch yet".to_owned(), |epoch| format!("epoch {}", epoch.number)),
            self.proven_through(),
            stream_state.last,
        )];
        match &self.proof {
            None => lines.push("nothing new is proven".to_owned()),
            Some(Proof { span, entries, expired, deleted, on_no_lane, .. }) => lines.push(format!(
                "sequences {span}: {entries} in the ledger, {expired} expired, {deleted} deleted, {on_no_lane} on no lane"
            )),
        }
        let Lacking { expired, deleted, on_no_lane, missing } = lacking;
        for (spans, what) in [
            (expired, "not in the ledger, and expired in the stream"),
            (deleted, "not in the ledger, and deleted from the stream"),
            (on_no_lane, "in the stream, on subjects of no served lane"),
            (missing, "MISSING: in the stream, below the position of their lane, and not in the ledger"),
        ] {
            if !spans.is_empty() {
                lines.push(format!("{what}: {} sequences, {spans}", spans.count()));
            }
        }
        if let Some(lane) = floor.held_back_by {
            let waiting = stream_state.last - floor.sequence;
            lines.push(format!("{waiting} sequences above {} are not all stored: lane {lane} waits", floor.sequence));
        }
        lines.extend(gaps.iter().map(Gap::to_string));
        lines.extend(self.regressions());
        lines.extend(own.iter().skip(1).zip(own).map(|(older, newer)| continued(older, newer)));
        lines.extend(gone.iter().map(gone_stream));
        if let Some(repaired) = self.repaired {
            lines.push(format!(
                "repaired: {} stored, {} duplicates, {} rejected, {} were there already",
                repaired.stored,
                repaired.duplicates,
                repaired.rejected(),
                repaired.known
            ));
        }
        lines
    }

    /// What is put on record of it.
    pub(crate) fn run(&self, everything: bool, took: Duration) -> Run {
        let Reconciliation { stream_state, own, span, lacking, parted_at, went_back_from, .. } = self.found;
        let missing = lacking.missing.count().unsigned_abs();
        let went_back = [parted_at, went_back_from].into_iter().flatten().count() as u64;
        let counts = [&lacking.expired, &lacking.deleted, &lacking.on_no_lane].map(Spans::count);
        Run {
            what: "reconcile",
            scope: if everything { Scope::Whole } else { Scope::New },
            took,
            entries: span.map_or(0, |span| span.count().unsigned_abs()),
            findings: missing + went_back,
            summary: json!({
                "stream": &*stream_state.incarnation.stream,
                "epoch": own.first().map(|epoch| epoch.number),
                "proven_through": self.proven_through(),
                "last_sequence": stream_state.last,
                "expired": counts[0], "deleted": counts[1], "on_no_lane": counts[2], "missing": missing,
                "first": runs::first_lines(lacking.missing.iter()),
                "parted_at": parted_at, "went_back_from": went_back_from,
                "repaired": self.repaired.map(|repaired| repaired.stored),
            }),
        }
    }

    fn regressions(&self) -> Vec<String> {
        let Reconciliation { stream_state, parted_at, went_back_from, .. } = self.found;
        let mut lines = Vec::new();
        if let Some(at) = parted_at {
            lines.push(format!(
                "WENT BACK: from sequence {at} on the stream holds other messages than those that were stored of it; it was \
                 restored from an older copy, or lost data"
            ));
        }
        if let Some(from) = went_back_from {
            lines.push(format!(
                "WENT BACK: the stream ends at {}, and {from} was stored of it; it was restored from an older copy, or lost data",
                stream_state.last
            ));
        }
        lines
    }

    pub(crate) fn to_json(&self) -> Value {
        let Reconciliation { stream_state, floor, own, gone, span, lacking, parted_at, went_back_from, gaps } =
            self.found;
        let Lacking { expired, deleted, on_no_lane, missing } = lacking;
        let counted = |spans: &Spans| json!({ "sequences": spans.count(), "ranges": ranges(spans) });
        json!({
            "reconciled": !self.found.is_different(),
            "stream": &*stream_state.incarnation.stream,
            "stream_created_ns": stream_state.incarnation.created_ns,
            "epoch": own.first().map(|epoch| epoch.number),
            "last_sequence": stream_state.last,
            "stored_through": floor.sequence,
            "held_back_by": floor.held_back_by.map(Lane::prefix),
            "looked_at": span.map(|span| json!({ "first": span.first(), "last": span.last() })),
            "proven_through": self.proven_through(),
            "newly_proven": self.proof.map(|proof| json!({
                "first": proof.span.first(), "last": proof.span.last(), "entries": proof.entries,
                "expired": proof.expired, "deleted": proof.deleted, "on_no_lane": proof.on_no_lane,
            })),
            "expired": counted(expired), "deleted": counted(deleted), "on_no_lane": counted(on_no_lane),
            "missing": counted(missing),
            "gaps": gaps.iter().map(Gap::to_json).collect::<Vec<_>>(),
            "parted_at": parted_at,
            "went_back_from": went_back_from,
            "continued_epochs": own.iter().skip(1).map(epoch_value).collect::<Vec<_>>(),
            "gone_epochs": gone.iter().map(epoch_value).collect::<Vec<_>>(),
            "repaired": self.repaired.map(|repaired| json!({
                "stored": repaired.stored, "duplicates": repaired.duplicates, "rejected": repaired.rejected(),
                "already_there": repaired.known,
            })),
        })
    }
}

/// What an epoch has of its stream.
fn extent(epoch: &CoveredEpoch) -> String {
    match epoch.first.zip(epoch.last).and_then(|(first, last)| Span::new(first, last)) {
        Some(span) => format!("sequences {span}"),
        None => "nothing".to_owned(),
    }
}

/// An epoch that ended when the stream went back, and the one that goes on.
fn continued(older: &CoveredEpoch, newer: &CoveredEpoch) -> String {
    format!(
        "epoch {}: the stream went back, and epoch {} goes on with {}; the older one keeps {}, of which some were lost in the stream",
        older.number,
        newer.number,
        extent(newer),
        extent(older)
    )
}

/// An epoch whose stream was deleted.
fn gone_stream(epoch: &CoveredEpoch) -> String {
    let created = utc_text(epoch.stream_created_ns);
    let (proven, last) = (epoch.proven.unwrap_or(0), epoch.last.unwrap_or(0));
    let open = match Span::new(proven + 1, last) {
        None => String::new(),
        Some(open) => format!("; of sequences {open} nothing was proven before, and nothing can be any more"),
    };
    format!(
        "epoch {}: the stream of {created} is gone, and the ledger keeps {} of it; proven through {proven}{open}",
        epoch.number,
        extent(epoch)
    )
}

fn epoch_value(epoch: &CoveredEpoch) -> Value {
    json!({
        "epoch": epoch.number, "stream_created_ns": epoch.stream_created_ns, "regressions": epoch.regressions,
        "first_sequence": epoch.first, "last_sequence": epoch.last, "proven_through": epoch.proven,
    })
}
