//! `ledgerd completions`, `ledgerd man`: written from the same definitions as `--help`.

use super::{Arguments, Exit, Failure};
use clap::CommandFactory as _;
use std::io;
use std::path::Path;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "ledgerd", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(|error| Failure::new(Exit::Failed, error))
}

pub(super) fn man(folder: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, error);
    match folder {
        Some(folder) => clap_mangen::generate_to(Arguments::command(), folder).map_err(failed),
        None => clap_mangen::Man::new(Arguments::command()).render(&mut io::stdout()).map_err(failed),
    }
}
