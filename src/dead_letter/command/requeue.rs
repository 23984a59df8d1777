//! `ledgerd dlq requeue`: publishes dead letters again, each exactly once.
//!
//! First the decision is entered, then it is recorded, then the message is published, then its position is noted. After
//! a kill at any step, the next run for the same dead letter continues from there.

use crate::command::{connect, output};
use crate::config::Config;
use crate::dead_letter::command::which::Selection;
use crate::dead_letter::command::{Exit, Failure};
use crate::dead_letter::deciding::{Deciding, Requeued, Requeuing};
use crate::dead_letter::queries::LetterSummary;
use crate::dead_letter::recording;
use crate::dead_letter::requeue::RecordStream;
use crate::dead_letter::resolution::LetterState;
use crate::ingest::store::Ledger;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct RequeueArguments {
    #[command(flatten)]
    selection: Selection,
    /// Who decides
    #[arg(long, value_name = "NAME", value_parser = recording::name)]
    by: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = recording::reason)]
    why: Option<String>,
    /// Publish the bytes of this file in place of the original's; for one dead letter, which stays as it is
    #[arg(long, value_name = "FILE", requires = "why", requires = "references", conflicts_with = "all_matching")]
    payload: Option<PathBuf>,
    /// Once more: what was discarded, what came back for the same reason, or what went with its stream
    #[arg(long)]
    again: bool,
}

/// No stream takes more.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn run(config: &Config, arguments: &RequeueArguments, as_json: bool) -> Result<(), Failure> {
    if arguments.payload.is_some() && !arguments.selection.names_one() {
        return Err(Failure::new(Exit::Usage, "--payload is for one dead letter"));
    }
    let replacement = arguments.payload.as_deref().map(read).transpose()?;
    let ledger = Ledger::new(connect::database(config, 2)?, config.budget.clone());
    let mut walk =
        arguments.selection.walk(ledger.connections(), &[LetterState::Open, LetterState::Unfinished]).await?;
    let stream = RecordStream::new(connect::nats(config).await?, &config.nats.stream);
    if !arguments.selection.dry_run {
        recording::record_what_is_unrecorded(&ledger).await?;
    }
    let deciding = Deciding {
        ledger: &ledger,
        by: &arguments.by,
        why: arguments.why.as_deref(),
        dry_run: arguments.selection.dry_run,
    };
    let requeuing = Requeuing { deciding, stream, again: arguments.again, replacement };
    let mut report = RequeueReport { as_json, ..RequeueReport::default() };
    let done = async {
        while let Some(letter) = walk.next().await? {
            let done = Box::pin(requeuing.requeue(&letter)).await?;
            report.add(&letter, &done);
        }
        Ok::<_, Failure>(())
    };
    let done = done.await;
    report.finish();
    done?;
    match report.refused {
        // The filters also find what may not be requeued yet, and that is no failure.
        refused if refused > 0 && arguments.selection.names_letters() => {
            Err(Failure::new(Exit::Failed, format!("{refused} were not requeued")))
        }
        _ => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{}: {why}", file.display()));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| unusable(&error))?;
    opened.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unusable(&error))?;
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(unusable(&"it is larger than any message"));
    }
    Ok(bytes)
}

/// What was done, or would be.
#[derive(Debug, Default)]
struct RequeueReport {
    as_json: bool,
    values: Vec<Value>,
    all: usize,
    refused: usize,
}

impl RequeueReport {
    fn add(&mut self, letter: &LetterSummary, done: &Requeued) {
        let reference = &letter.reference;
        self.all += 1;
        self.refused += usize::from(matches!(done, Requeued::Refused(_)));
        if self.as_json {
            self.values.push(match done {
                Requeued::Done { at, was_unfinished } => json!({
                    "reference": reference, "result": "requeued", "sequence": at.sequence, "was_unfinished": was_unfinished,
                }),
                Requeued::Would { was_unfinished } => json!({
                    "reference": reference, "result": "would_be_requeued", "was_unfinished": was_unfinished,
                }),
                Requeued::Refused(why) => json!({ "reference": reference, "result": "refused", "why": why }),
            });
            return;
        }
        let finishes = |was_unfinished: &bool| if *was_unfinished { ", as was decided before" } else { "" };
        match done {
            Requeued::Done { at, was_unfinished } => output::line(format_args!(
                "{reference}  requeued: sequence {}{}",
                at.sequence,
                finishes(was_unfinished)
            )),
            Requeued::Would { was_unfinished } => {
                output::line(format_args!("{reference}  would be requeued{}", finishes(was_unfinished)));
            }
            Requeued::Refused(why) => output::line(format_args!("{reference}  refused: {why}")),
        }
    }

    fn finish(&self) {
        if self.as_json {
            output::json(&Value::Array(self.values.clone()));
        } else {
            output::line(format_args!("{} dead letters, {} refused", self.all, self.refused));
        }
    }
}
