//! `ledgerd dlq`: lists and shows the dead letters in the database, and requeues or discards them.

mod discard;
mod requeue;
mod show;
mod which;

use crate::command::{Exit, Failure, connect};
use crate::config::Config;
use crate::postgres::schema;

#[derive(Debug, clap::Args)]
pub(crate) struct DlqArguments {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DlqCommand {
    /// List dead letters, the newest first
    List(show::ListArguments),
    /// Show one dead letter with its headers and bytes, and what was decided about it
    Show {
        /// Its reference, as `list` prints it
        reference: String,
    },
    /// Publish dead letters again, each once; run it again to finish what was cut short
    Requeue(requeue::RequeueArguments),
    /// Let dead letters rest
    Discard(discard::DiscardArguments),
}

pub(crate) async fn run(config: &Config, arguments: &DlqArguments, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 1)?;
    if let Some(complaint) = schema::state(&connections).await?.complaint() {
        return Err(Failure::new(Exit::Configuration, complaint));
    }
    match &arguments.command {
        DlqCommand::List(arguments) => show::list(&connections, arguments, as_json).await,
        DlqCommand::Show { reference } => show::show(&connections, reference, as_json).await,
        DlqCommand::Requeue(arguments) => Box::pin(requeue::run(config, arguments, as_json)).await,
        DlqCommand::Discard(arguments) => Box::pin(discard::run(config, arguments, as_json)).await,
    }
}
