//! Verifies the whole ledger: many sessions read ranges of leaves, and their results are processed in the order of the
//! leaves.

use crate::command::Failure;
use crate::command::progress::{ProgressLine, pace};
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::table::Table;
use crate::verify::checkpoint::KnownRoot;
use crate::verify::days::Days;
use crate::verify::entry::{Background, Checked};
use crate::verify::findings::Findings;
use crate::verify::migrations;
use crate::verify::outside::Outside;
use crate::verify::report::VerifyReport;
use crate::verify::resolution;
use crate::verify::snapshot::{ClaimedRows, Extent, Snapshot};
use crate::verify::tree::{Stretch, TreeCheck};
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use std::time::Instant;

/// Leaves of a range, and up to where the next batch begins.
const STRIDE: i64 = 4096;

/// What was found, and what could be made anew.
#[derive(Debug)]
pub(crate) struct VerifyResult {
    pub(crate) report: VerifyReport,
    /// Leaves whose row is not what it must be.
    pub(crate) damaged: Vec<i64>,
    /// Days that do not add up, `AGENT/DATE`.
    pub(crate) damaged_days: Vec<String>,
    /// What every entry was looked at with.
    pub(crate) background: Arc<Background>,
}

impl VerifyResult {
    /// Whether something is damaged that can be made anew.
    pub(crate) fn is_repairable(&self) -> bool {
        !self.damaged.is_empty() || !self.damaged_days.is_empty()
    }
}

pub(crate) async fn verify(connections: &Connections, outside: &Outside, jobs: usize) -> Result<VerifyResult, Failure> {
    let snapshot = Snapshot::open(connections, jobs).await?;
    let snapshot = Arc::new(snapshot.with_keys(outside.signer.clone(), outside.witnesses.clone()));
    let background = Arc::new(snapshot.background().await?);
    let known_roots: Arc<[KnownRoot]> = outside.roots.as_slice().into();
    let Extent { entries: total, end } = snapshot.extent().await?;

    let mut findings = Findings::default();
    outside.findings.iter().for_each(|finding| findings.add(finding.clone()));
    let mut tree = TreeCheck::default();
    tree.begin(&known_roots, &mut findings);
    let (began, mut progress) = (Instant::now(), ProgressLine::new());
    let mut all = Checked::default();
    let mut leaves = 0;
    let ranges = futures_util::stream::try_unfold(0, |start| {
        let snapshot = snapshot.clone();
        async move {
            if start >= end {
                return Ok(None);
            }
            let past = snapshot.batch_from(start + STRIDE, end).await?;
            Ok::<_, DatabaseError>(Some(((start, past), past)))
        }
    });
    let looking = ranges.map_ok(|range| {
        let (snapshot, background, known_roots) = (snapshot.clone(), background.clone(), known_roots.clone());
        let looking = tokio::spawn(async move { look(&snapshot, &background, &known_roots, range).await });
        async move { looking.await.expect("nothing in it panics") }
    });
    // Twice as many ranges as sessions: one is read while another waits for its turn.
    let mut ranges = std::pin::pin!(looking.try_buffered(2 * snapshot.jobs()));
    while let Some(looked) = ranges.next().await {
        let RangeResult { mut checked, mut stretch, findings: more, end } = looked?;
        stretch.leaves = std::mem::take(&mut checked.leaves);
        leaves += stretch.leaves.len() as u64;
        tree.take(&stretch, end, &mut findings);
        findings.append(more);
        all.merge(checked);
        progress.tell(|| format!("{leaves} of {total} leaves, {}", pace(leaves, total, began.elapsed())));
    }
    drop(progress);
    snapshot.checkpoints_missing(&outside.anchored, &mut findings).await?;
    if outside.is_cosigning_asked_for() {
        snapshot.newest_is_cosigned(&outside.quorum, &mut findings).await?;
    }
    close(&snapshot, &background, Open { tree, all, findings, known_roots: known_roots.clone(), leaves, end }).await
}

/// What was found in a range.
struct RangeResult {
    checked: Checked,
    stretch: Stretch,
    findings: Findings,
    end: i64,
}

async fn look(
    snapshot: &Snapshot,
    background: &Background,
    known_roots: &[KnownRoot],
    (start, end): (i64, i64),
) -> Result<RangeResult, DatabaseError> {
    let mut checked = Checked::default();
    snapshot.pages((start, end), background, &mut checked).await?;
    let beside = snapshot.beside(start, end).await?;
    let is_here = |known: &&KnownRoot| i64::try_from(known.size).is_ok_and(|size| size > start && size <= end);
    let mut known_roots: Vec<KnownRoot> = known_roots.iter().filter(is_here).cloned().collect();
    known_roots.extend(beside.stored.known_roots);
    let mut findings = Findings::default();
    beside.stored.findings.into_iter().for_each(|finding| findings.add(finding));
    Ok(RangeResult {
        checked,
        stretch: Stretch { leaves: Vec::new(), subtrees: beside.subtrees, known_roots },
        findings,
        end,
    })
}

/// What is known once all leaves were seen.
struct Open {
    tree: TreeCheck,
    all: Checked,
    findings: Findings,
    known_roots: Arc<[KnownRoot]>,
    leaves: u64,
    end: i64,
}

/// The questions that are asked of whole tables.
async fn close(snapshot: &Snapshot, background: &Arc<Background>, open: Open) -> Result<VerifyResult, Failure> {
    let Open { tree, mut all, mut findings, known_roots, leaves, end } = open;
    let beyond = snapshot.checkpoints_beyond(end).await?;
    beyond.findings.into_iter().for_each(|finding| findings.add(finding));
    let is_beyond = |known: &&KnownRoot| i64::try_from(known.size).is_ok_and(|size| size > end);
    let mut beyond: Vec<KnownRoot> = beyond.known_roots.into_iter().filter(|known| known.size > 0).collect();
    beyond.extend(known_roots.iter().filter(is_beyond).cloned());
    tree.finish(snapshot.head().await?.as_ref(), &beyond, &mut findings);
    snapshot.superfluous(&tree, end, &mut findings).await?;
    snapshot.layers(&mut findings).await?;
    if all.duplicates > 0 {
        snapshot.duplicates_of_nothing(&mut findings).await?;
    }

    check_claims(snapshot, background, &all, &mut findings).await?;
    let mut days = Days::new(&background.authorities);
    snapshot.days(&mut days, &mut findings).await?;
    snapshot.implausible(&mut findings).await?;
    for finding in background.authorities.findings() {
        findings.add(finding.clone());
    }
    let undecided = resolution::compare(&snapshot.resolutions().await?, &mut findings);
    let unrecorded = migrations::compare(&snapshot.migrations().await?, &all.migrations, &mut findings);

    let mut report =
        VerifyReport { leaves, root: tree.root(), known_roots: tree.roots_checked(), ..VerifyReport::default() };
    let damaged = std::mem::take(&mut all.damaged);
    report.take(all, &background.epochs);
    report.findings.append(findings);
    report.rows.insert("token_ledger", days.rows);
    if days.explained > 0 {
        report.explained.insert("token_ledger", days.explained);
    }
    report.remarks.extend(
        unrecorded
            .iter()
            .map(|version| format!("ledger.migration id {version}: no event records it yet; run `ledgerd migrate`")),
    );
    report.remarks.extend(undecided.iter().map(|id| {
        format!("ledger.resolution id {id}: no event records it yet; the next `ledgerd dlq requeue` or `discard` does")
    }));
    let (dangling, total) = snapshot.dangling().await?;
    (report.dangling, report.dangling_total) = (dangling, u64::try_from(total).unwrap_or(0));
    Ok(VerifyResult { report, damaged, damaged_days: days.damaged, background: Arc::clone(background) })
}

/// Every row was made by one entry, and no two entries made one row: where the fingerprints differ, the rows are named.
async fn check_claims(
    snapshot: &Snapshot,
    background: &Background,
    all: &Checked,
    findings: &mut Findings,
) -> Result<(), DatabaseError> {
    let of_table = |&table: &Table| (ClaimedRows::Rows(table), all.rows.get(&table).copied().unwrap_or_default());
    let claims = Table::ALL
        .iter()
        .map(of_table)
        .chain([(ClaimedRows::DeadLetters, all.dead_letters), (ClaimedRows::Erased, all.erased)]);
    let differing = futures_util::stream::iter(claims)
        .map(async |(claimed, claims)| {
            let there = snapshot.fingerprint(claimed, &background.key).await?;
            Ok::<_, DatabaseError>((there != claims).then_some(claimed))
        })
        .buffered(snapshot.jobs());
    for claimed in differing.try_collect::<Vec<_>>().await?.into_iter().flatten() {
        snapshot.unclaimed(claimed, findings).await?;
    }
    Ok(())
}
