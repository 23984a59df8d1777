//! `ledgerd verify`: checks the whole ledger, or the specification's hash over a time range.

mod repair;
mod time_range;
mod whole;

use crate::command::{Exit, Failure, connect, output, runs};
use crate::config::Config;
use crate::postgres::connections::Connections;
use crate::postgres::runs::{Run, Scope};
use crate::verify::outside::{Outside, OutsideArguments};
use crate::verify::report::VerifyReport;
use crate::verify::snapshot as audit;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArguments {
    /// Only the specification's hash, of events from this moment on (ISO 8601; UTC where it names no offset)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only the specification's hash, of events before this moment
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    #[command(flatten)]
    outside: OutsideArguments,
    /// How many sessions read at a time [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Make damaged rows anew from custody, as the owner of the tables, and record each as an audit event
    #[arg(long, conflicts_with_all = ["from", "to"])]
    repair_projection: bool,
    /// Do not ask before a repair
    #[arg(long, requires = "repair_projection")]
    yes: bool,
}

/// A repair shows at most what followed from it, and that shows nothing more.
const ROUNDS_MAX: usize = 3;

/// More sessions than this help no server.
const JOBS_MAX: usize = 16;

pub(crate) fn run(config: &Config, arguments: &VerifyArguments, as_json: bool) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(JOBS_MAX);
    let jobs = arguments.jobs.map_or(cores, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(jobs).enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Failed, error))?.block_on(verify(config, arguments, jobs, as_json))
}

async fn verify(config: &Config, arguments: &VerifyArguments, jobs: usize, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 2)?;
    check_tables(&connections).await?;
    if arguments.from.is_some() || arguments.to.is_some() {
        return time_range::verify(&connections, arguments.from.as_deref(), arguments.to.as_deref(), as_json).await;
    }
    let outside = Outside::of(config, &arguments.outside)?;
    let mut began = Instant::now();
    let mut verified = whole::verify(&connections, &outside, jobs).await?;
    let mut repaired = Vec::new();
    // What was made anew may show that something else, which followed from the damage, is wrong: a day from its usage.
    for _ in 0..ROUNDS_MAX {
        if !arguments.repair_projection || !verified.is_repairable() {
            break;
        }
        repaired.extend(
            repair::repair(config, &connections, &verified, arguments.yes || !repaired.is_empty(), as_json).await?,
        );
        began = Instant::now();
        verified = whole::verify(&connections, &outside, jobs).await?;
    }
    let report = &verified.report;
    runs::record(&connections, &recorded(report, began.elapsed(), outside.roots.len(), repaired.len())).await;
    if as_json {
        let mut report = report.to_json();
        report["repaired"] = repaired.into();
        output::json(&report);
    } else {
        report.lines().iter().for_each(output::line);
    }
    match report.findings.total() {
        0 => Ok(()),
        differences => Err(Failure::new(Exit::Difference, format!("{differences} differences"))),
    }
}

/// What is put on record of a verification of the whole ledger.
fn recorded(report: &VerifyReport, took: Duration, roots_from_outside: usize, repaired: usize) -> Run {
    let findings = &report.findings;
    Run {
        what: "verify",
        scope: Scope::Whole,
        took,
        entries: report.leaves,
        findings: findings.total(),
        summary: json!({
            "root": report.root,
            "known_roots_compared": report.known_roots,
            "roots_from_outside": roots_from_outside,
            "by_table": findings.by_table().iter().take(runs::LISTED_MAX).collect::<BTreeMap<_, _>>(),
            "first": runs::first_lines(findings.listed()),
            "repaired": repaired,
        }),
    }
}

async fn check_tables(connections: &Connections) -> Result<(), Failure> {
    let missing = audit::missing_tables(connections).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let says = format!("the database lacks {}: run `ledgerd migrate`, or restore what was dropped", missing.join(", "));
    Err(Failure::new(Exit::Configuration, says))
}
