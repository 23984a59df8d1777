//! `ledgerd verify`: checks the whole ledger, or the specification's hash over a time range.

mod repair;
mod time_range;
mod whole;

use crate::command::{Exit, Failure, connect, output, runs};
use crate::config::Config;
use crate::log::anchor::Anchor;
use crate::postgres::connections::Connections;
use crate::postgres::runs::{Run, Scope};
use crate::verify::checkpoint::{KnownRoot, Signer};
use crate::verify::report::VerifyReport;
use crate::verify::snapshot as audit;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tlog::note::VerifierKey;

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArguments {
    /// Only the specification's hash, of events from this moment on (ISO 8601; UTC where it names no offset)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only the specification's hash, of events before this moment
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// A signed checkpoint of the tree, kept outside the database; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    checkpoint: Vec<PathBuf>,
    /// An anchor file, in which an instance keeps what it signed; may be given several times [default: the configured one]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    anchor: Vec<PathBuf>,
    /// The log's verifier key: every checkpoint must have its signature [default: of the configured key]
    #[arg(long, value_name = "VKEY", conflicts_with_all = ["from", "to"])]
    key: Option<String>,
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
    let signer = signer(config, arguments)?;
    let known_roots = known_roots(config, arguments, &signer)?;
    let mut began = Instant::now();
    let mut verified = whole::verify(&connections, &known_roots, &signer, jobs).await?;
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
        verified = whole::verify(&connections, &known_roots, &signer, jobs).await?;
    }
    let report = &verified.report;
    runs::record(&connections, &recorded(report, began.elapsed(), known_roots.len(), repaired.len())).await;
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

/// Whose signature counts: of the key that is named, or of the log's own where this is its machine.
fn signer(config: &Config, arguments: &VerifyArguments) -> Result<Signer, Failure> {
    if let Some(key) = &arguments.key {
        let key = VerifierKey::parse(key).map_err(|error| Failure::new(Exit::Usage, format!("--key: {error}")))?;
        return Ok(Signer::of(key));
    }
    let key = config.checkpoint.key().map_err(|why| Failure::new(Exit::Configuration, why))?;
    Ok(key.map_or(Signer::UNKNOWN, |key| Signer::of(key.verifier().clone())))
}

/// What was signed, as it is known outside the database.
fn known_roots(config: &Config, arguments: &VerifyArguments, signer: &Signer) -> Result<Vec<KnownRoot>, Failure> {
    let mut roots = Vec::new();
    for file in &arguments.checkpoint {
        let note = std::fs::read_to_string(file).map_err(|error| unusable(file, error))?;
        roots.push(known_root(&note, file, signer)?);
    }
    let mut configured = config.checkpoint.anchor_file().ok().filter(|_| arguments.anchor.is_empty());
    if let Some(file) = configured.take_if(|file| !file.exists())
        && roots.is_empty()
    {
        let file = file.display();
        output::complain(&format!(
            "there is no anchor {file}: nothing that lies outside the database is compared with it"
        ));
    }
    for file in arguments.anchor.iter().chain(&configured) {
        let last = Anchor::at(file).read().map_err(|error| unusable(file, error))?;
        if let Some(note) = last.checkpoint {
            roots.push(known_root(&note, file, signer)?);
        }
    }
    Ok(roots)
}

fn known_root(note: &str, file: &Path, signer: &Signer) -> Result<KnownRoot, Failure> {
    let said = signer.open(note).map_err(|why| unusable(file, why))?;
    Ok(KnownRoot { size: said.size, root: said.root, source: format!("checkpoint in {}", file.display()) })
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Configuration, format!("{}: {why}", file.display()))
}
