//! `ledgerd keygen`: creates the log's signing key once, and never overwrites it.

use crate::command::{Exit, Failure, output};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use tlog::key::KeyName;
use tlog::note::SignerKey;

#[derive(Debug, clap::Args)]
#[command(after_help = "The verifier key that is printed is for everybody who checks: publish it where nobody can \
    change it together with the ledger.\n\nExample:\n  ledgerd keygen --name example.com/ledger --out /etc/credstore/ledgerd.signing-key")]
pub(crate) struct KeygenArguments {
    /// The log's name, best a URL without its scheme: the first line of each checkpoint
    #[arg(long)]
    name: String,
    /// Where the secret key is written; a file that exists is left alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

const SEED_BYTES: usize = 32;

pub(crate) fn run(arguments: &KeygenArguments, as_json: bool) -> Result<(), Failure> {
    let usage = |error| Failure::new(Exit::Usage, format!("--name {}: {error}", arguments.name));
    let name = KeyName::parse(&arguments.name).map_err(usage)?;
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::new(Exit::Failed, format!("the system gives no randomness: {error}")))?;
    let key = SignerKey::from_seed(name, &seed).map_err(usage)?;
    let (secret, verifier) = (key.secret_text() + "\n", key.verifier().to_string());
    let path = arguments.out.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&arguments.out);
    let written = file.and_then(|mut file| {
        file.write_all(secret.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write {path}: {error}")))?;
    if as_json {
        output::json(&json!({ "verifier_key": verifier, "secret_key_file": arguments.out }));
    } else {
        output::line(verifier);
    }
    Ok(())
}
