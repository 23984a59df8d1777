//! `ledgerd completions` and `ledgerd man`: generate their output from the same definitions as `--help`.

use crate::cli::Arguments;
use crate::command::{Exit, Failure, output};
use crate::config::DEFAULTS;
use clap::CommandFactory as _;
use std::path::Path;
use std::{fs, io};

pub(crate) fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "ledgerd", &mut script);
    output::text(&String::from_utf8_lossy(&script));
}

pub(crate) fn man(folder: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, error);
    if let Some(folder) = folder {
        clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)?;
        return fs::write(folder.join("ledgerd.toml.5"), settings_page()).map_err(failed);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command()).render(&mut page).map_err(failed)?;
    output::text(&String::from_utf8_lossy(&page));
    Ok(())
}

/// `ledgerd.toml(5)`: the file of defaults as it stands, for it explains each setting.
fn settings_page() -> String {
    let settings: String = DEFAULTS.lines().map(roff_line).collect();
    format!(
        ".TH ledgerd.toml 5 \"\" \"ledgerd {version}\"\n\
        .SH NAME\nledgerd.toml \\- settings of ledgerd\n\
        .SH SYNOPSIS\n/etc/ledgerd/ledgerd.toml\n\
        .SH DESCRIPTION\n.nf\n{settings}.fi\n\
        .SH \"SEE ALSO\"\n.BR ledgerd (1)\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A line as it is: a backslash would begin an escape, and a dot or an apostrophe in front a request.
fn roff_line(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{text}\n")
}
