//! `ledgerd migrate`: applies the schema migrations. Each migration is also recorded as an audit event, in the same
//! custody as any record.

use crate::command::own_events::{self, OwnEvent};
use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::ingest::lifecycle::Tally;
use crate::ingest::store::Ledger;
use crate::postgres::access;
use crate::postgres::schema::{self, Applied};
use crate::record::own_streams;
use serde_json::json;
use std::collections::HashSet;

#[derive(Debug, clap::Args)]
pub(crate) struct MigrateArguments {
    /// Grant the daemon's privileges, and no more, to this role
    #[arg(long, value_name = "ROLE")]
    grant: Option<String>,
    /// Make the four roles (owner, daemon, reader, chairman), and put the ledger into their hands
    #[arg(long)]
    roles: bool,
}

pub(crate) async fn run(config: &Config, arguments: &MigrateArguments, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 2)?;
    let before = schema::state(&connections).await?;
    if let schema::SchemaState::Ahead(_) | schema::SchemaState::Altered(_) = &before {
        return Err(Failure::new(Exit::Configuration, before.complaint().unwrap_or_default()));
    }
    let applied = schema::migrate(&connections).await?;
    let access = access::apply(&connections, arguments.roles, arguments.grant.as_deref()).await?;
    let tally = record(Ledger::new(connections, config.budget.clone()), &applied).await?;
    let missing = if let schema::SchemaState::Behind(missing) = before { missing } else { Vec::new() };
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

/// Records each migration once, with its version as its number.
async fn record(ledger: Ledger, applied: &[Applied]) -> Result<Tally, Failure> {
    let mut taken = HashSet::new();
    let events = applied
        .iter()
        .map(|migration| {
            let Applied { version, description, checksum, installed_on_us } = migration;
            // Two migrations of one millisecond must not have one event id.
            let mut unix_ms = installed_on_us / 1000;
            while !taken.insert(unix_ms) {
                unix_ms += 1;
            }
            OwnEvent {
                sequence: *version,
                event_id: format!("SYS-ARCHITECT-{unix_ms}"),
                action: "SCHEMA_MIGRATION",
                at_us: *installed_on_us,
                details: json!({ "version": version, "description": description, "sha384": checksum }),
            }
        })
        .collect();
    match own_events::record(&ledger, own_streams::MIGRATIONS, events).await {
        Ok(tally) if tally.rejected.is_empty() => Ok(tally),
        Ok(tally) => Err(Failure::new(
            Exit::Failed,
            format!("the schema is migrated, and its events were rejected: {:?}", tally.rejected),
        )),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!(
                "the schema is migrated, and its events are not recorded yet ({error}): run `ledgerd migrate` again"
            ),
        )),
    }
}
