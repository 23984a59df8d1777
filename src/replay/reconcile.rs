//! `ledgerd reconcile`: proves that every sequence of the stream, up to the lanes' positions, is accounted for. Each is
//! a record or a reject, was removed by the stream itself, or is on no lane. The proven range is stored, so that the
//! next run checks only new sequences.

mod floor;
mod look;
mod report;

use crate::command::{Exit, Failure, connect, output, runs};
use crate::config::Config;
use crate::ingest::coverage;
use crate::ingest::position::Positions as _;
use crate::ingest::store::Ledger;
use crate::nats::api::Api;
use crate::postgres::connections::Connections;
use crate::postgres::schema;
use crate::record::sequences::Span;
use crate::replay::command::engine::{Job, Replayed, Unfinished, until_told};
use look::{Reconciliation, look};
use report::ReconcileReport;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub(crate) struct ReconcileArguments {
    /// Look at everything again, and not only at what was not proven yet
    #[arg(long)]
    all: bool,
    /// Replay what is missing, and look again
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn run(config: &Config, arguments: &ReconcileArguments, as_json: bool) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    until_told(&stop, Box::pin(reconcile(config, arguments, &stop, as_json))).await
}

async fn reconcile(
    config: &Config,
    arguments: &ReconcileArguments,
    stop: &CancellationToken,
    as_json: bool,
) -> Result<(), Failure> {
    let custody = connect::database(config, 1)?;
    if let Some(complaint) = schema::state(&custody).await?.complaint() {
        return Err(Failure::new(Exit::Configuration, complaint));
    }
    let api = connect::nats(config).await?;
    // A look leaves nothing behind, so it may end anywhere.
    let positions = connect::positions(config)?;
    let look = async || {
        let told = stop.run_until_cancelled(Box::pin(look(config, &api, &custody, &positions, arguments.all))).await;
        told.unwrap_or_else(|| Err(Failure::new(Exit::Failed, "told to stop: nothing was proven")))
    };
    let mut began = Instant::now();
    let mut found = look().await?;
    let mut repaired = None;
    if arguments.repair && !found.to_repair().is_empty() {
        if let (Some(divergence), Some(newest)) = (found.parted_at, found.own.first()) {
            let opened = positions.open_epoch(&found.stream_state.incarnation, newest.number, divergence).await;
            opened.map_err(|why| Failure::new(Exit::Unavailable, format!("PostgreSQL: {why}")))?;
        }
        repaired = Some(Box::pin(repair(config, &api, &custody, &found, stop)).await?);
        began = Instant::now();
        found = look().await?;
    }
    let proof = found.proof();
    if let Some(proof) = &proof {
        coverage::keep(&custody, proof).await?;
    }
    let report = ReconcileReport { found: &found, proof, repaired: repaired.as_ref() };
    runs::record(&custody, &report.run(arguments.all, began.elapsed())).await;
    if as_json {
        output::json(&report.to_json());
    } else {
        report.lines().iter().for_each(output::line);
    }
    if let Some(Unfinished { next, why }) = repaired.and_then(|repaired| repaired.unfinished) {
        let before = next.map(|next| format!(" before sequence {next}")).unwrap_or_default();
        return Err(Failure::new(Exit::Failed, format!("the repair ended{before}: {why}")));
    }
    if !found.is_different() {
        return Ok(());
    }
    let mut wrong = Vec::new();
    if !found.lacking.missing.is_empty() {
        wrong.push(format!(
            "{} sequences below the lanes' positions are not in the ledger",
            found.lacking.missing.count()
        ));
    }
    if found.parted_at.is_some() || found.went_back_from.is_some() {
        wrong.push("the stream went back".to_owned());
    }
    let help = match (found.to_repair().is_empty(), arguments.all) {
        (true, _) => "",
        (false, false) => "; `ledgerd reconcile --repair` reads them again",
        // They may lie below what was proven.
        (false, true) => "; `ledgerd reconcile --all --repair` reads them again",
    };
    Err(Failure::new(Exit::Difference, format!("{}{help}", wrong.join(", and "))))
}

/// The replay of what is missing.
async fn repair(
    config: &Config,
    api: &Api,
    custody: &Connections,
    found: &Reconciliation,
    stop: &CancellationToken,
) -> Result<Replayed, Failure> {
    let job = Job {
        config,
        api,
        stream_state: &found.stream_state,
        lanes: found.floor.served.clone(),
        spans: found.to_repair(),
        rates_are_complete: false,
    };
    job.refuse_empty_registries(custody).await?;
    let ledger = Ledger::new(connect::database(config, 1)?, config.budget.clone()).for_a_replay();
    let replayed = job.run(&ledger, custody, stop).await?;
    // Everything that was looked at is stored now. Lanes that nobody reads need not read it again.
    if let (None, Some(read)) = (&replayed.unfinished, Span::new(1, found.floor.sequence)) {
        let incarnation = &found.stream_state.incarnation;
        connect::positions(config)?.advance_free(incarnation, &found.floor.served, read, 0).await?;
    }
    Ok(replayed)
}
