//! `ledgerd dlq discard`: marks dead letters as discarded, with a reason. The dead letters themselves are kept.

use crate::command::{connect, output};
use crate::config::Config;
use crate::dead_letter::command::which::Selection;
use crate::dead_letter::command::{Exit, Failure};
use crate::dead_letter::deciding::Deciding;
use crate::dead_letter::recording;
use crate::dead_letter::resolution::LetterState;
use crate::ingest::store::Ledger;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct DiscardArguments {
    #[command(flatten)]
    selection: Selection,
    /// Who decides
    #[arg(long, value_name = "NAME", value_parser = recording::name)]
    by: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = recording::reason)]
    why: String,
}

pub(crate) async fn run(config: &Config, arguments: &DiscardArguments, as_json: bool) -> Result<(), Failure> {
    let ledger = Ledger::new(connect::database(config, 2)?, config.budget.clone());
    let mut walk = arguments.selection.walk(ledger.connections(), &[LetterState::Open]).await?;
    if !arguments.selection.dry_run {
        recording::record_what_is_unrecorded(&ledger).await?;
    }
    let deciding = Deciding {
        ledger: &ledger,
        by: &arguments.by,
        why: Some(&arguments.why),
        dry_run: arguments.selection.dry_run,
    };
    let (mut values, mut refused) = (Vec::new(), 0);
    let done = async {
        while let Some(letter) = walk.next().await? {
            let done = Box::pin(deciding.discard(&letter)).await?;
            let reference = &letter.reference;
            let (word, why) = match &done {
                Ok(()) if arguments.selection.dry_run => ("would be discarded", None),
                Ok(()) => ("discarded", None),
                Err(why) => ("refused", Some(why)),
            };
            refused += usize::from(done.is_err());
            if as_json {
                values.push(json!({ "reference": reference, "result": word.replace(' ', "_"), "why": why }));
            } else {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                output::line(format_args!("{reference}  {word}{why}"));
            }
        }
        Ok::<_, Failure>(())
    };
    let done = done.await;
    // What was done is said, whatever came then.
    if as_json {
        output::json(&Value::Array(values));
    }
    done?;
    match refused {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Failed, format!("{refused} were not discarded"))),
    }
}
