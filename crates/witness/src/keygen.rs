//! `ledgerd-witness keygen`: creates the witness's key once, and never overwrites it.

use crate::{Exit, Failure};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use tlog::cosignature::WitnessSignerKey;
use tlog::key::KeyName;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The verifier key that is printed is for the log's operator, and for everybody who checks.\n\nExample:\n  \
    ledgerd-witness keygen --name witness.example --out /etc/credstore/ledgerd.witness-key"
)]
pub(crate) struct KeygenArguments {
    /// The witness's name, best a URL without its scheme
    #[arg(long)]
    name: String,
    /// Where the secret key is written; a file that exists is left alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

const SEED_BYTES: usize = 32;

pub(crate) fn run(arguments: &KeygenArguments) -> Result<(), Failure> {
    let usage = |error| Failure::new(Exit::Usage, format!("--name {}: {error}", arguments.name));
    let name = KeyName::parse(&arguments.name).map_err(usage)?;
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::new(Exit::Failed, format!("the system gives no randomness: {error}")))?;
    let key = WitnessSignerKey::from_seed(name, &seed).map_err(usage)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&arguments.out);
    let written = file.and_then(|mut file| {
        writeln!(file, "{}", key.secret_text())?;
        file.sync_all()
    });
    let path = arguments.out.display();
    written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write {path}: {error}")))?;
    writeln!(std::io::stdout(), "{}", key.verifier()).map_err(|error| Failure::new(Exit::Failed, error))
}
