//! `ledgerd retention`: archives expired rows, reads the archive back, records one audit event, and removes the rows.

use crate::command::own_events::OwnEvent;
use crate::command::progress::ProgressLine;
use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::ingest::store::Ledger;
use crate::record::digest::hex;
use crate::record::own_streams::EXPORTS;
use crate::retention::archive::Archive;
use crate::retention::erase;
use crate::retention::file::Perishable;
use crate::retention::queries::{RetentionSession, Survey};
use crate::retention::removal::{
    AuditTrail, Export, ExportRecords as _, Exported, FailureCause, Removed, RetentionError,
};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RetentionArguments {
    /// Say what would be archived and removed, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The archive: a folder, or the URL of an object store [default: retention.archive]
    #[arg(long, value_name = "FOLDER|URL")]
    to: Option<String>,
    #[command(subcommand)]
    command: Option<RetentionCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum RetentionCommand {
    /// Delete from a permanent table what an audit event of the Architect names
    Erase(erase::EraseArguments),
}

impl From<RetentionError> for Failure {
    fn from(trouble: RetentionError) -> Self {
        let exit = match trouble.cause {
            FailureCause::Away => Exit::Unavailable,
            FailureCause::Refused => Exit::Configuration,
            FailureCause::Damaged | FailureCause::Failed => Exit::Failed,
        };
        Failure::new(exit, trouble)
    }
}

pub(crate) async fn run(config: &Config, arguments: &RetentionArguments, as_json: bool) -> Result<(), Failure> {
    if let Some(RetentionCommand::Erase(arguments)) = &arguments.command {
        return erase::run(config, arguments, as_json).await;
    }
    // One connection removes, the other records.
    let ledger = Ledger::new(connect::database(config, 2)?, config.budget.clone());
    let mut report = RetentionReport { as_json, ..RetentionReport::default() };
    let done = if arguments.dry_run {
        survey(config, &ledger, &mut report).await
    } else {
        let location = arguments.to.as_deref().or(config.retention.archive.as_deref());
        let location = location.ok_or_else(|| {
            Failure::new(Exit::Configuration, "retention.archive is not set: set it, or name the archive with --to")
        })?;
        archive(config, &ledger, location, &mut report).await
    };
    if done.is_ok() || !report.lines.is_empty() {
        report.print();
    }
    done
}

async fn survey(config: &Config, ledger: &Ledger, report: &mut RetentionReport) -> Result<(), Failure> {
    let mut session = RetentionSession::look(ledger.connections()).await?;
    for entered in session.unsettled().await? {
        report.would_go_on(&entered);
    }
    for table in Perishable::ALL {
        let cutoff = session.cutoff(config.retention.days(table)).await?;
        report.would_remove(table, &cutoff, &session.survey(table, &cutoff).await?);
    }
    Ok(())
}

async fn archive(
    config: &Config,
    ledger: &Ledger,
    location: &str,
    report: &mut RetentionReport,
) -> Result<(), Failure> {
    let archive = Archive::open(location)?;
    let mut session = RetentionSession::open(ledger.connections()).await?;
    erase::record_what_is_unrecorded(&mut session, ledger).await?;
    for entered in session.unsettled().await? {
        finish_an_earlier_run(&mut session, ledger, entered, report).await?;
    }
    let name = session.ledger().await?;
    let mut progress = ProgressLine::new();
    for table in Perishable::ALL {
        let cutoff = session.cutoff(config.retention.days(table)).await?;
        loop {
            let tell = |rows| progress.tell(|| format!("{}: {rows} rows", table.name()));
            let Some(packed) = session.pack(table, &cutoff, tell).await? else { break };
            let rows = packed.contents.rows;
            progress.tell(|| format!("{}: {rows} rows on their way to {location}", table.name()));
            let verified = Exported::keep(packed, &name, &archive).await?.verify(&archive).await?;
            progress.tell(|| format!("{}: {rows} rows are archived, and on their way out", table.name()));
            let removed = verified.record(&mut session, &OwnAuditTrail(ledger)).await?.remove(&mut session).await?;
            progress.clear();
            let is_stuck = removed.rows == 0;
            report.removed(removed);
            if is_stuck {
                // Each of them changed in these moments. The next run takes them.
                break;
            }
        }
    }
    Ok(())
}

/// An export that was entered, and whose rows are still there, or some of them.
async fn finish_an_earlier_run(
    session: &mut RetentionSession<'_>,
    ledger: &Ledger,
    entered: Export,
    report: &mut RetentionReport,
) -> Result<(), Failure> {
    let verified = match Archive::open(&entered.place.location) {
        Ok(archive) => Exported::resume(entered.clone()).verify(&archive).await,
        Err(trouble) => Err(trouble),
    };
    match verified {
        Ok(verified) => {
            report.removed(verified.record(session, &OwnAuditTrail(ledger)).await?.remove(session).await?);
            Ok(())
        }
        // Its rows are where they were, and are exported again.
        Err(trouble) if trouble.cause == FailureCause::Damaged => {
            session.give_up(&entered).await?;
            report.given_up(&entered, &trouble);
            Ok(())
        }
        Err(trouble) => Err(trouble.into()),
    }
}

/// Records exports in custody.
struct OwnAuditTrail<'a>(&'a Ledger);

impl AuditTrail for OwnAuditTrail<'_> {
    async fn record(&self, entered: &Export) -> Result<(), RetentionError> {
        let Export { id, place, contents, event_id, exported_at_us } = entered;
        let event = OwnEvent {
            sequence: *id,
            event_id: event_id.clone(),
            action: "RETENTION_EXPORTED",
            at_us: *exported_at_us,
            details: json!({
                "table": contents.table.name(), "cutoff": contents.cutoff, "rows": contents.rows,
                "first": contents.first, "last": contents.last, "oldest": contents.oldest, "newest": contents.newest,
                "location": place.location, "file": place.file, "bytes": contents.file_bytes,
                "sha256": hex(&contents.file_sha256), "uncompressed_sha256": hex(&contents.lines_sha256),
                "manifest": place.manifest, "manifest_sha256": hex(&place.manifest_sha256),
            }),
        };
        erase::record_once(self.0, EXPORTS, event).await
    }
}

/// What was done, or would be.
#[derive(Debug, Default)]
struct RetentionReport {
    as_json: bool,
    lines: Vec<String>,
    values: Vec<Value>,
}

impl RetentionReport {
    fn add(&mut self, line: String, value: Value) {
        self.lines.push(line);
        self.values.push(value);
    }

    fn would_go_on(&mut self, entered: &Export) {
        let (table, rows) = (entered.contents.table.name(), entered.contents.rows);
        self.add(
            format!(
                "{table}: would go on with export {} of an earlier run, {rows} rows in {}",
                entered.id,
                path(entered)
            ),
            json!({ "table": table, "would_resume": entered.id, "rows": rows, "event_id": entered.event_id }),
        );
    }

    fn would_remove(&mut self, table: Perishable, cutoff: &str, survey: &Survey) {
        let Survey { rows, bytes, oldest, newest } = survey;
        let range = match (oldest, newest) {
            (Some(oldest), Some(newest)) => format!(", {oldest} to {newest}, {bytes} bytes"),
            _ => String::new(),
        };
        self.add(
            format!("{}: would archive and remove {rows} rows from before {cutoff}{range}", table.name()),
            json!({
                "table": table.name(), "cutoff": cutoff, "rows": rows, "bytes": bytes, "oldest": oldest, "newest": newest,
            }),
        );
    }

    fn removed(&mut self, removed: Removed) {
        let Removed { entered, rows } = removed;
        let contents = &entered.contents;
        let stayed = match contents.rows - rows {
            0 => String::new(),
            stayed => format!("; {stayed} changed since they were exported, and stay for the next run"),
        };
        self.add(
            format!(
                "{}: removed {rows} rows, {} to {}{stayed}\n  in {}, {} bytes, SHA-256 {}\n  recorded as {}",
                contents.table.name(),
                contents.oldest,
                contents.newest,
                path(&entered),
                contents.file_bytes,
                hex(&contents.file_sha256),
                entered.event_id,
            ),
            json!({
                "table": contents.table.name(), "export": entered.id, "cutoff": contents.cutoff, "exported": contents.rows,
                "removed": rows, "oldest": contents.oldest, "newest": contents.newest, "first": contents.first,
                "last": contents.last, "location": entered.place.location, "file": entered.place.file,
                "manifest": entered.place.manifest, "bytes": contents.file_bytes, "sha256": hex(&contents.file_sha256),
                "event_id": entered.event_id,
            }),
        );
    }

    fn given_up(&mut self, entered: &Export, why: &RetentionError) {
        let table = entered.contents.table.name();
        self.add(
            format!(
                "{table}: export {} of an earlier run is not whole ({why}): its rows are exported again",
                entered.id
            ),
            json!({ "table": table, "export": entered.id, "given_up": why.to_string() }),
        );
    }

    fn print(&self) {
        if self.as_json {
            return output::json(&Value::Array(self.values.clone()));
        }
        for line in &self.lines {
            output::line(line);
        }
        if self.lines.is_empty() {
            output::line("nothing is past its time");
        }
    }
}

fn path(entered: &Export) -> String {
    format!("{}/{}", entered.place.location.trim_end_matches('/'), entered.place.file)
}
