//! `ledgerd migrate`: the schema. Each migration is also an audit event, in the same custody as any record.

use super::{Exit, Failure, connect, output, rules};
use crate::config::Config;
use crate::domain::message::{Headers, Incarnation, Message};
use crate::lifecycle::{Batch, Delivery, Tally};
use crate::postgres::schema::{self, Applied};
use crate::postgres::{Ledger, access};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Grant the daemon's privileges, and no more, to this role
    #[arg(long, value_name = "ROLE")]
    grant: Option<String>,
    /// Make the four roles (owner, daemon, reader, chairman), and put the ledger into their hands
    #[arg(long)]
    roles: bool,
}

pub(super) async fn run(config: &Config, arguments: &Arguments, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 2)?;
    let before = schema::state(&connections).await?;
    if let schema::State::Ahead(_) | schema::State::Altered(_) = &before {
        return Err(Failure::new(Exit::Configuration, before.complaint().unwrap_or_default()));
    }
    let applied = schema::migrate(&connections).await?;
    let access = access::apply(&connections, arguments.roles, arguments.grant.as_deref()).await?;
    let tally = record(Ledger::new(connections, config.budget.clone()), &applied).await?;
    let missing = if let schema::State::Behind(missing) = before { missing } else { Vec::new() };
    if as_json {
        let all: Vec<_> = applied
            .iter()
            .map(|migration| json!({ "version": migration.version, "description": migration.description, "new": missing.contains(&migration.version) }))
            .collect();
        output::json(&json!({
            "migrations": all,
            "recorded": tally.recorded,
            "granted": access.daemons,
            "roles": access.has_roles,
            "guards": access.unguarded.is_none(),
        }));
        return Ok(());
    }
    for migration in &applied {
        let state = if missing.contains(&migration.version) { "applied" } else { "was there" };
        output::line(format_args!("{:>4} {}: {state}", migration.version, migration.description));
    }
    output::line(format_args!("{} SCHEMA_MIGRATION events recorded", tally.recorded));
    if access.has_roles {
        output::line("the ledger belongs to ledgerd_owner; ledgerd_reader and ledgerd_chairman may read it");
    }
    for role in &access.daemons {
        output::line(format_args!("granted the daemon's privileges to {role}"));
    }
    match &access.unguarded {
        None => output::line("the tables are guarded against changes of their definition"),
        Some(why) => output::line(format_args!(
            "the tables are not guarded against their owner ({why}): a superuser puts the guards up with `ledgerd migrate`"
        )),
    }
    Ok(())
}

/// Records each migration once: an event of ours has the migration's version as its sequence, so one that a killed command
/// left out is recorded by the next, and none twice.
async fn record(ledger: Ledger, applied: &[Applied]) -> Result<Tally, Failure> {
    let mut taken = HashSet::new();
    let deliveries = applied
        .iter()
        .map(|migration| {
            // Two migrations of one millisecond must not have one event id.
            let mut unix_ms = migration.installed_on_us / 1000;
            while !taken.insert(unix_ms) {
                unix_ms += 1;
            }
            Delivery::new(message(migration, unix_ms), ())
        })
        .collect();
    let batch = Batch::judge(deliveries, &rules::shipped());
    match batch.commit(&ledger).await {
        Ok(durable) => {
            let tally = durable.settled();
            if tally.rejected.is_empty() {
                return Ok(tally);
            }
            Err(Failure::new(
                Exit::Failed,
                format!("the schema is migrated, and its events were rejected: {:?}", tally.rejected),
            ))
        }
        Err(undone) => Err(Failure::new(
            Exit::Failed,
            format!(
                "the schema is migrated, and its events are not recorded yet ({}): run `ledgerd migrate` again",
                undone.error
            ),
        )),
    }
}

/// The stream of what the program itself records. It never existed on a server, so it was made at the beginning of time.
const OWN_STREAM: &str = "ledgerd";
const OWN_SUBJECT: &str = "ledger.SYS.ARCHITECT";

fn message(migration: &Applied, unix_ms: i64) -> Message {
    let Applied { version, description, checksum, installed_on_us } = migration;
    let event = json!({
        "event_id": format!("SYS-ARCHITECT-{unix_ms}"),
        "actor": "ARCHITECT",
        "action": "SCHEMA_MIGRATION",
        "outcome": "SUCCESS",
        "timestamp": crate::domain::message::utc_text(installed_on_us * 1000),
        "details": { "version": version, "description": description, "sha384": checksum },
    });
    Message {
        incarnation: Incarnation { stream: Arc::from(OWN_STREAM), created_ns: 0 },
        sequence: *version,
        subject: OWN_SUBJECT.to_owned(),
        server_time_ns: installed_on_us * 1000,
        headers: Headers::NONE,
        payload: event.to_string().into(),
    }
}
