//! ledgerd: the exit code is the command line's.

use std::process::ExitCode;

fn main() -> ExitCode {
    ledgerd::cli::main()
}
