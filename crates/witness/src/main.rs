//! `ledgerd-witness`: cosigns a log's checkpoints, as long as each extends the previous one. It runs on another machine
//! than the log.

mod judge;
mod keygen;
mod routes;
mod serve;
mod state;

use clap::{CommandFactory as _, Parser, Subcommand};
use std::fmt;
use std::process::ExitCode;

/// A witness of transparency logs: it cosigns a log's checkpoints as long as each grew out of the one before.
#[derive(Debug, Parser)]
#[command(name = "ledgerd-witness", version, after_help = EXIT_CODES)]
struct WitnessArguments {
    #[command(subcommand)]
    command: WitnessCommand,
}

const EXIT_CODES: &str =
    "It needs neither NATS nor PostgreSQL, and no configuration file. docs/verifying.md says how to run one.

Exit codes: 0 done; 1 failed; 64 usage; 78 the key or the state cannot be used.";

#[derive(Debug, Subcommand)]
enum WitnessCommand {
    /// Serve POST /add-checkpoint (c2sp.org/tlog-witness)
    Serve(serve::ServeArguments),
    /// Make the key that cosigns, and print its public half
    Keygen(keygen::KeygenArguments),
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// The exit codes; those above 63 are sysexits.h's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Failed = 1,
    Usage = 64,
    /// The key, or what it remembers, must be mended first.
    Configuration = 78,
}

/// Why a command did not do what it should.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    what: String,
}

impl Failure {
    fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string() }
    }
}

fn main() -> ExitCode {
    let arguments = match WitnessArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    let done = match arguments.command {
        WitnessCommand::Serve(arguments) => serve::run(arguments),
        WitnessCommand::Keygen(arguments) => keygen::run(&arguments),
        WitnessCommand::Man => clap_mangen::Man::new(WitnessArguments::command())
            .render(&mut std::io::stdout())
            .map_err(|error| Failure::new(Exit::Failed, error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "ledgerd-witness: {}", failure.what);
            ExitCode::from(failure.exit as u8)
        }
    }
}
