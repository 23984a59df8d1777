//! The entry point of `ledgerd`: runs the command line and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ledgerd::cli::main()
}
