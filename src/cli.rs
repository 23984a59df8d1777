//! The command line: parses the arguments, dispatches to the commands, and returns the exit code.

mod check;
mod manual;
mod migrate;
mod nats_accounts;
mod setup;
mod status;

use crate::command::{Exit, Failure, output};
use crate::console::{command as console, verifier};
use crate::dead_letter::command as dlq;
use crate::log::{checkpoint_command as checkpoint, keygen, prove, verify_proof};
use crate::mcp::command as mcp;
use crate::notify::command as notify;
use crate::notify::notices;
use crate::query::{log_command as log, show_command as show, spend_command as spend};
use crate::receipt::emit;
use crate::replay::command as replay;
use crate::replay::reconcile;
use crate::retention::command as retention;
use crate::schema::command as schema;
use crate::verify::command as verify;
use crate::{config::Config, daemon};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The audit ledger daemon: every JetStream message becomes exactly one durable PostgreSQL row, a record or a dead
/// letter, and is acknowledged only after that row has committed.
#[derive(Debug, Parser)]
#[command(name = "ledgerd", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration file [default: /etc/ledgerd/ledgerd.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Settings are read from the file, then from the environment: LEDGERD__SECTION__KEY.
LEDGERD__DATABASE__URL and LEDGERD__NATS__URL suffice.

Exit codes: 0 done; 1 failed; 3 a check found a difference; 64 usage; 69 a service is unavailable; 78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: take, judge, commit, acknowledge
    Run,
    /// Make the streams and consumers that are missing
    Setup(setup::SetupArguments),
    /// Print the NATS accounts of the registered agents, each with what it may do, for the server's configuration
    NatsAccounts,
    /// Bring the database to this program's schema; run it as the owner of the database
    Migrate(migrate::MigrateArguments),
    /// Look at both servers and say, line by line, what is right and what is not
    Check,
    /// Publish one audit event
    Emit(emit::EmitArguments),
    /// Show what the ledger holds, and how far each lane has come
    Status,
    /// List what was recorded and rejected, the newest first
    Log(log::LogArguments),
    /// Show what an id means: a record with its published bytes, a task, a proposal
    Show(show::ShowArguments),
    /// Show what each agent spent, and its limit
    Spend(spend::SpendArguments),
    /// Write the file that proves a record to others, without database or network
    Prove(prove::ProveArguments),
    /// Check such a file; asks neither database nor network
    VerifyProof(verify_proof::VerifyProofArguments),
    /// Recompute everything from custody, and name each difference
    Verify(verify::VerifyArguments),
    /// Read the stream again, after an outage or into a new database: what is stored already is known
    Replay(replay::ReplayArguments),
    /// Prove that every acknowledged sequence of the stream is in the ledger, or that the stream itself has removed it
    Reconcile(reconcile::ReconcileArguments),
    /// Look at dead letters, publish them again, or let them rest
    Dlq(dlq::DlqArguments),
    /// Make the key that signs the log's checkpoints, and print its public half
    Keygen(keygen::KeygenArguments),
    /// Print the newest signed checkpoint, or declare that the log begins anew
    Checkpoint(checkpoint::CheckpointArguments),
    /// Archive and then remove what is past its retention: days of `token_ledger`, rows of `economic_metrics`
    Retention(retention::RetentionArguments),
    /// Look at the targets of notifications, send a test to one, or retry what was given up
    Notify(notify::NotifyArguments),
    /// Serve the console: pages for people, and the API for programs
    Console(console::ConsoleArguments),
    /// Answer questions about the record by the Model Context Protocol, over standard input and output
    Mcp,
    /// Print the schemas of the records, and the descriptions of the subjects and of the API
    Schema(schema::SchemaArguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands into a folder
    Man {
        /// The folder
        folder: Option<PathBuf>,
    },
}

/// Parses the arguments and runs the command. Returns the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(arguments) {
        Ok(()) if output::has_failed() => ExitCode::from(Exit::Failed as u8),
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.what.is_empty() {
                output::complain(&failure.what);
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { config: file, json, command } = arguments;
    let config = || Config::load(file.as_deref()).map_err(|error| Failure::new(Exit::Configuration, error));
    match command {
        Command::Run => daemon::run(config()?, file),
        Command::Setup(arguments) => block_on(setup::run(&config()?, &arguments, json)),
        Command::NatsAccounts => nats_accounts::run(&config()?),
        Command::Migrate(arguments) => block_on(migrate::run(&config()?, &arguments, json)),
        Command::Check => block_on(check::run(&config()?, json)),
        Command::Emit(arguments) => block_on(emit::run(&config()?, arguments, json)),
        Command::Status => block_on(status::run(&config()?, json)),
        Command::Log(arguments) => block_on(log::run(&config()?, arguments, json)),
        Command::Show(arguments) => block_on(show::run(&config()?, &arguments, json)),
        Command::Spend(arguments) => block_on(spend::run(&config()?, &arguments, json)),
        Command::Prove(arguments) => block_on(prove::run(&config()?, &arguments, json)),
        Command::VerifyProof(arguments) => verify_proof::run(&arguments, json),
        Command::Verify(arguments) => {
            let config = config()?;
            told_of_difference(&config, "verify", verify::run(&config, &arguments, json))
        }
        Command::Replay(arguments) => block_on_threads(replay::run(&config()?, &arguments, json)),
        Command::Reconcile(arguments) => {
            let config = config()?;
            told_of_difference(&config, "reconcile", block_on_threads(reconcile::run(&config, &arguments, json)))
        }
        Command::Dlq(arguments) => block_on(dlq::run(&config()?, &arguments, json)),
        Command::Keygen(arguments) => keygen::run(&arguments, json),
        Command::Checkpoint(arguments) => block_on(checkpoint::run(&config()?, &arguments, json)),
        Command::Retention(arguments) => block_on(retention::run(&config()?, &arguments, json)),
        Command::Mcp => block_on_threads(mcp::run(&config()?)),
        Command::Schema(arguments) => schema::run(&config()?, &arguments),
        Command::Console(console::ConsoleArguments { export_verifier: Some(file) }) => verifier::export(&file),
        Command::Console(arguments) => block_on_threads(console::run(&config()?, &arguments, file.as_deref())),
        Command::Notify(arguments) => block_on(notify::run(&config()?, &arguments, json)),
        Command::Completions { shell } => {
            manual::completions(shell);
            Ok(())
        }
        Command::Man { folder } => manual::man(folder.as_deref()),
    }
}

/// Tells the targets of notifications what a check found.
fn told_of_difference(config: &Config, check: &str, done: Result<(), Failure>) -> Result<(), Failure> {
    if let Err(failure) = &done {
        block_on(async {
            notices::tell_difference(config, check, failure).await;
            Ok(())
        })?;
    }
    done
}

/// Runs a short command to its end.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Failed, error))?.block_on(command)
}

/// Runs a command that reads, judges and writes at a time.
fn block_on_threads(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Failed, error))?.block_on(command)
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
