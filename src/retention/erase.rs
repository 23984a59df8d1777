//! `ledgerd retention erase`: deletes the records of a permanent table that an audit event of the Architect names.

use crate::command::own_events::{self, OwnEvent};
use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::ingest::lifecycle::Remedy;
use crate::ingest::store::Ledger;
use crate::record::own_streams::ERASURES;
use crate::retention::erasure::{Authorization, Erasure};
use crate::retention::queries::RetentionSession;
use crate::retention::removal::{FailureCause, RetentionError};
use serde_json::json;

#[derive(Debug, clap::Args)]
#[command(after_help = "The Architect publishes the authorisation first:\n  \
    ledgerd emit --actor ARCHITECT --action DELETION_AUTHORIZED --outcome APPROVED \\\n    \
    --details '{\"table\": \"audit_events\", \"ids\": [\"SEC-WRK-001-1708451234568\"], \"reason\": \"it holds a password\"}'")]
pub(crate) struct EraseArguments {
    /// The `event_id` of the `DELETION_AUTHORIZED`
    #[arg(long, value_name = "EVENT_ID")]
    authorized_by: String,
    /// Say what would be deleted, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(config: &Config, arguments: &EraseArguments, as_json: bool) -> Result<(), Failure> {
    let ledger = Ledger::new(connect::database(config, 2)?, config.budget.clone());
    let connections = ledger.connections();
    let mut session = if arguments.dry_run {
        RetentionSession::look(connections).await?
    } else {
        RetentionSession::open(connections).await?
    };
    let authorization = session.authorization(&arguments.authorized_by).await?;
    let before = session.erased(&authorization.event_id).await?;
    if before.is_none() {
        let missing = session.missing(&authorization).await?;
        if !missing.is_empty() {
            let what = format!("{} has no {}: nothing is deleted", authorization.table.name(), missing.join(", "));
            return Err(Failure::new(Exit::Failed, what));
        }
    }
    if arguments.dry_run {
        say_what_would_be(&authorization, before.as_ref(), as_json);
        return Ok(());
    }
    let is_new = before.is_none();
    let erased = match before {
        Some(erased) => erased,
        None => session.erase(&authorization).await?,
    };
    record_what_is_unrecorded(&mut session, &ledger).await?;
    say(&authorization, &erased, is_new, as_json);
    Ok(())
}

/// Records the authorised deletions that a killed command carried out and did not record.
pub(crate) async fn record_what_is_unrecorded(
    session: &mut RetentionSession<'_>,
    ledger: &Ledger,
) -> Result<(), Failure> {
    for erased in session.unrecorded_erasures().await? {
        let event = OwnEvent {
            sequence: erased.id,
            event_id: erased.event_id,
            action: "RECORDS_DELETED",
            at_us: erased.erased_at_us,
            details: json!({ "table": erased.table, "authorized_by": erased.authorized_by, "rows": erased.rows }),
        };
        record_once(ledger, ERASURES, event).await?;
    }
    Ok(())
}

/// Records one event. Where it is rejected, it is a dead letter like any other.
pub(crate) async fn record_once(ledger: &Ledger, stream: &str, event: OwnEvent) -> Result<(), RetentionError> {
    let event_id = event.event_id.clone();
    match own_events::record(ledger, stream, vec![event]).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let cause = if error.remedy == Remedy::Retry { FailureCause::Away } else { FailureCause::Failed };
            Err(RetentionError::new(
                cause,
                format!("the audit event {event_id} is not recorded yet: {error}; run this again"),
            ))
        }
    }
}

fn say_what_would_be(authorization: &Authorization, before: Option<&Erasure>, as_json: bool) {
    let Authorization { event_id, table, ids, reason } = authorization;
    if as_json {
        output::json(&json!({
            "table": table.name(), "ids": ids, "reason": reason, "authorized_by": event_id,
            "carried_out_as": before.map(|erased| &erased.event_id),
        }));
        return;
    }
    if let Some(erased) = before {
        output::line(format_args!("{event_id} was carried out already: {}", erased.event_id));
        return;
    }
    output::line(format_args!("would delete {} records from {}: {reason}", ids.len(), table.name()));
    for id in ids {
        output::line(format_args!("  {id}"));
    }
}

fn say(authorization: &Authorization, erased: &Erasure, is_new: bool, as_json: bool) {
    let Authorization { event_id, table, ids, reason } = authorization;
    if as_json {
        output::json(&json!({
            "table": table.name(), "ids": ids, "reason": reason, "authorized_by": event_id, "deleted": is_new,
            "event_id": erased.event_id,
        }));
        return;
    }
    let when = if is_new { "deleted" } else { "an earlier run deleted" };
    output::line(format_args!("{when} {} records from {}, recorded as {}", ids.len(), table.name(), erased.event_id));
}
