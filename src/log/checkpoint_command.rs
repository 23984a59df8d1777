//! `ledgerd checkpoint`: prints the newest checkpoint, or declares that the log starts again under a new name.

use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::log::anchor::{Anchor, Last, Line};
use crate::log::queries::LogStore;
use crate::log::signer::key_in_force;
use crate::record::digest::hex;
use crate::record::message::utc_text;
use serde_json::json;
use tlog::checkpoint::{self, Checkpoint, SignedCheckpoint};
use tlog::note::SignerKey;

#[derive(Debug, clap::Args)]
pub(crate) struct CheckpointArguments {
    /// Declare that what was signed and is no longer in the database is lost for good, and why: the log goes on under a new name
    #[arg(long, value_name = "REASON")]
    new_epoch: Option<String>,
}

pub(crate) async fn run(config: &Config, arguments: &CheckpointArguments, as_json: bool) -> Result<(), Failure> {
    match (config.checkpoint.key(), &arguments.new_epoch) {
        (Ok(Some(key)), reason) => {
            let anchor = config.checkpoint.anchor_file().map_err(|why| Failure::new(Exit::Configuration, why))?;
            let anchor = Anchor::at(&anchor);
            let last = anchor.read().map_err(|error| cannot("read", &anchor, &error))?;
            match reason {
                Some(reason) => declare(&key, &anchor, &last, reason, as_json),
                None => show(config, &key, &last, as_json).await,
            }
        }
        (Ok(None), Some(_)) => Err(Failure::new(
            Exit::Configuration,
            "checkpoint.key_file is not set, and no credential is here: where a service signs the log, give this command the service's \
             credentials (docs/runbook.md, LedgerdCheckpointRefusing); where nothing does yet, `ledgerd keygen` makes a key",
        )),
        (Err(why), Some(_)) => Err(Failure::new(Exit::Configuration, why)),
        // A checkpoint is a public object, and whoever reads the database may see it.
        (Ok(None), None) => show_newest(config, "no key is configured here", as_json).await,
        (Err(why), None) => show_newest(config, &why, as_json).await,
    }
}

/// The newest checkpoint, of whatever name of the log, as the database has it.
async fn show_newest(config: &Config, why_unchecked: &str, as_json: bool) -> Result<(), Failure> {
    let newest = LogStore(connect::database(config, 1)?).newest_checkpoint(None).await?;
    let newest = newest.ok_or_else(|| {
        Failure::new(Exit::Failed, "nothing was signed yet: `ledgerd keygen` makes the key that signs")
    })?;
    let broken = |error: &dyn std::fmt::Display| Failure::new(Exit::Difference, format!("ledger.checkpoint: {error}"));
    let note = newest.note.to_string();
    let checkpoint = Checkpoint::parse(newest.note.unverified_text()).map_err(|error| broken(&error))?;
    output::complain(&format!("its signature is not checked: {why_unchecked}"));
    if as_json {
        let head = checkpoint.head();
        output::json(&json!({
            "origin": checkpoint.origin().as_str(), "size": head.size, "root": hex(&head.root), "note": note, "verifier_key": null,
        }));
    } else {
        output::text(&note);
    }
    Ok(())
}

fn cannot(what: &str, anchor: &Anchor, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {what} {}: {error}", anchor.path().display()))
}

async fn show(config: &Config, key: &SignerKey, last: &Last, as_json: bool) -> Result<(), Failure> {
    let key = key_in_force(key, last).map_err(|why| Failure::new(Exit::Failed, why))?;
    let log = checkpoint::Log::of_key(key.verifier().clone());
    let kept = LogStore(connect::database(config, 1)?).last_checkpoint(log.origin()).await?;
    let note = kept.ok_or_else(|| Failure::new(Exit::Failed, format!("nothing was signed as {} yet", log.origin())))?;
    let signed = SignedCheckpoint::parse(note.as_bytes(), &log)
        .map_err(|error| Failure::new(Exit::Difference, format!("ledger.checkpoint: {error}")))?;
    if as_json {
        let head = signed.head();
        output::json(&json!({
            "origin": log.origin().as_str(), "size": head.size, "root": hex(&head.root), "note": note,
            "verifier_key": key.verifier().to_string(),
        }));
    } else {
        output::text(&note);
    }
    Ok(())
}

fn declare(key: &SignerKey, anchor: &Anchor, last: &Last, reason: &str, as_json: bool) -> Result<(), Failure> {
    if reason.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "--new-epoch takes the reason, for those who will ask"));
    }
    let origin = next_origin(key.name().as_str(), last.origin.as_deref());
    let declared = Last { origin: Some(origin.clone()), checkpoint: None };
    let renamed = key_in_force(key, &declared).map_err(|why| Failure::new(Exit::Failed, why))?;
    let declared_at = utc_text(crate::clock::unix_ns());
    let line = Line::NewEpoch { origin: origin.clone(), reason: reason.to_owned(), declared_at };
    anchor.append(&line, last).map_err(|error| cannot("write", anchor, &error))?;
    let verifier = renamed.verifier().to_string();
    if as_json {
        output::json(&json!({ "origin": origin, "verifier_key": verifier }));
    } else {
        output::line(format_args!("the log goes on as {origin}; its verifier key is"));
        output::line(verifier);
    }
    Ok(())
}

/// `name`, then `name/2`, `name/3`, …
fn next_origin(name: &str, present: Option<&str>) -> String {
    let number: u64 =
        present.and_then(|origin| origin.strip_prefix(name)?.strip_prefix('/')?.parse().ok()).unwrap_or(1);
    format!("{name}/{}", number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_beginning_has_a_name_of_its_own() {
        assert_eq!(next_origin("log", None), "log/2");
        assert_eq!(next_origin("log", Some("log/2")), "log/3");
    }
}
