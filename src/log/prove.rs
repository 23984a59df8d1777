//! `ledgerd prove`: writes a file that proves an entry. Anyone with the log's verifier key can check it, without
//! database or network.

use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::log::entries::EntrySummary;
use crate::log::proving::{EntryProof, ProveError};
use crate::log::queries::LogStore;
use crate::record::lane::Lane;
use crate::record::subject::safe_token;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tlog::receipt::ProofFile;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file is in the format c2sp.org/tlog-proof@v1. Check it with `ledgerd verify-proof FILE --key VKEY`."
)]
pub(crate) struct ProveArguments {
    /// The record's own name: its `event_id`, `trail_id`, `usage_id`, `metric_key` or `id`
    #[arg(required_unless_present = "index")]
    record_id: Option<String>,
    /// Only entries of this lane
    #[arg(long)]
    lane: Option<Lane>,
    /// The leaf index of the entry, where several have one name, or a reject has none
    #[arg(long, value_name = "N", conflicts_with = "list")]
    index: Option<u64>,
    /// List the entries of that name, and prove none
    #[arg(long)]
    list: bool,
    /// Leave the publisher's bytes and headers out: the proof then shows their SHA-256 alone
    #[arg(long)]
    without_content: bool,
    /// Where to write it; `-` is standard output [default: RECORD_ID.tlog-proof]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The daemon signs each second; this is long enough for a record that was just committed.
const PATIENCE: Duration = Duration::from_secs(5);
const LISTED_MAX: i64 = 1000;

pub(crate) async fn run(config: &Config, arguments: &ProveArguments, as_json: bool) -> Result<(), Failure> {
    let log = LogStore(connect::database(config, 1)?);
    let found = find(&log, arguments).await?;
    if arguments.list {
        print_list(&found, as_json);
        return Ok(());
    }
    let index = match arguments.index {
        Some(index) if found.is_empty() || found.iter().any(|entry| entry.index == index) => index,
        Some(index) => {
            return Err(Failure::new(Exit::Failed, format!("entry {index} has another name:\n{}", lines(&found))));
        }
        None => choose(&found)?,
    };
    let proof = log.prove(index, arguments.without_content, PATIENCE).await?;
    let file = write(&proof.file, arguments, index)?;
    if file.is_some() || as_json {
        report(&proof, &found, file, as_json);
    }
    Ok(())
}

impl From<ProveError> for Failure {
    fn from(error: ProveError) -> Self {
        let exit = match error {
            ProveError::Database(error) => return error.into(),
            ProveError::Changed(_) => Exit::Difference,
            ProveError::NoEntry { .. } | ProveError::Uncovered(_) | ProveError::Unwritable(_) => Exit::Failed,
        };
        let advice = if matches!(error, ProveError::Unwritable(_)) { " (--without-content)" } else { "" };
        Failure::new(exit, format!("{error}{advice}"))
    }
}

async fn find(log: &LogStore, arguments: &ProveArguments) -> Result<Vec<EntrySummary>, Failure> {
    let Some(record_id) = &arguments.record_id else { return Ok(Vec::new()) };
    let lane = arguments.lane.map(Lane::prefix);
    let found = log.entries_of(record_id, lane, LISTED_MAX).await?;
    if found.is_empty() {
        let place = lane.map(|lane| format!(" in lane {lane}")).unwrap_or_default();
        let why = format!(
            "the ledger has no entry of {record_id}{place}: `ledgerd status` shows what still waits in the stream"
        );
        return Err(Failure::new(Exit::Failed, why));
    }
    Ok(found)
}

/// The recorded entry, or the only one. Anything else is for the caller to decide.
fn choose(found: &[EntrySummary]) -> Result<u64, Failure> {
    let recorded: Vec<&EntrySummary> = found.iter().filter(|entry| entry.disposition == "recorded").collect();
    let only = match recorded.as_slice() {
        [one] => Some(*one),
        [] if found.len() == 1 => found.first(),
        _ => None,
    };
    let ambiguous =
        || Failure::new(Exit::Usage, format!("several entries have this name: give --index\n{}", lines(found)));
    only.map(|entry| entry.index).ok_or_else(ambiguous)
}

fn lines(found: &[EntrySummary]) -> String {
    let line = |entry: &EntrySummary| {
        format!("{:>10}  {:<9}  {}  {}", entry.index, entry.disposition, entry.committed_at, entry.subject)
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn listed_value(entry: &EntrySummary) -> Value {
    json!({
        "index": entry.index, "disposition": entry.disposition, "subject": entry.subject, "committed_at": entry.committed_at,
    })
}

fn print_list(found: &[EntrySummary], as_json: bool) {
    if as_json {
        output::json(&Value::Array(found.iter().map(listed_value).collect()));
    } else {
        output::line(lines(found));
    }
}

/// Returns the file's name; `None`: standard output.
fn write(receipt: &ProofFile, arguments: &ProveArguments, index: u64) -> Result<Option<PathBuf>, Failure> {
    let path = arguments.out.clone().unwrap_or_else(|| {
        let name = arguments.record_id.as_deref().map_or_else(|| index.to_string(), safe_token);
        PathBuf::from(format!("{name}.tlog-proof"))
    });
    if path.as_os_str() == "-" {
        output::text(&receipt.to_string());
        return Ok(None);
    }
    let written = std::fs::write(&path, receipt.to_string());
    written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display())))?;
    Ok(Some(path))
}

fn report(proof: &EntryProof, found: &[EntrySummary], file: Option<PathBuf>, as_json: bool) {
    let EntryProof { entry, evidence, checkpoint, .. } = proof;
    let others: Vec<&EntrySummary> = found.iter().filter(|other| other.index != entry.index).collect();
    let cosigned = checkpoint.note.signatures().len().saturating_sub(1);
    let disposition = entry.fields.disposition.name();
    if as_json {
        output::json(&json!({
            "file": file, "index": entry.index, "disposition": disposition, "record_id": entry.fields.record_id,
            "origin": checkpoint.origin, "tree_size": checkpoint.tree_size, "cosignatures": cosigned,
            "with_payload": evidence.payload.is_some(),
            "others": others.into_iter().map(listed_value).collect::<Vec<_>>(),
        }));
        return;
    }
    let Some(file) = file else { return };
    output::line(format_args!(
        "{}\n  proves entry {} ({disposition}) in {} under the checkpoint of size {}, with {cosigned} cosignatures",
        file.display(),
        entry.index,
        checkpoint.origin,
        checkpoint.tree_size
    ));
    if entry.payload.is_none() {
        output::line("  custody does not hold the publisher's bytes any more: the proof shows their SHA-256 alone");
    }
    if !others.is_empty() {
        output::line(format_args!("  {} further entries have this name: --list shows them", others.len()));
    }
}
