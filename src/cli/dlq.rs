//! `ledgerd dlq list`, `ledgerd dlq show`: dead letters, as the database holds them.

use super::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::domain::message::Headers;
use crate::postgres::reads::{self, ListedDeadLetter, ShownDeadLetter};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, the newest first
    List {
        /// Only those with this reason, for example `unknown_action`
        #[arg(long, value_name = "CODE")]
        reason: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Show one dead letter with its headers and bytes
    Show {
        /// Its reference, as `list` prints it
        reference: String,
    },
}

pub(super) async fn run(config: &Config, arguments: &Arguments, as_json: bool) -> Result<(), Failure> {
    let connections = connect::database(config, 1)?;
    match &arguments.command {
        Command::List { reason, limit } => {
            let letters = reads::dead_letters(&connections, reason.as_deref(), *limit).await?;
            if as_json {
                output::json(&Value::Array(letters.iter().map(listed_value).collect()));
            } else {
                for letter in &letters {
                    output::line(format_args!(
                        "{}  {}  {:<20}  {}",
                        letter.reference, letter.rejected_at, letter.reason, letter.subject
                    ));
                    output::line(format_args!("    {}", letter.detail));
                }
                output::line(format_args!("{} dead letters", letters.len()));
            }
        }
        Command::Show { reference } => {
            let found = reads::dead_letter(&connections, reference).await?;
            let letter =
                found.ok_or_else(|| Failure::new(Exit::Failed, format!("there is no dead letter {reference}")))?;
            if as_json {
                output::json(&shown_value(&letter));
            } else {
                show(&letter);
            }
        }
    }
    Ok(())
}

fn listed_value(letter: &ListedDeadLetter) -> Value {
    json!({
        "reference": letter.reference, "reason": letter.reason, "detail": letter.detail, "subject": letter.subject,
        "sequence": letter.sequence, "record_id": letter.record_id, "rejected_at": letter.rejected_at,
        "published": letter.published,
    })
}

fn shown_value(letter: &ShownDeadLetter) -> Value {
    let mut value = listed_value(&letter.listed);
    value["leaf_index"] = letter.leaf_index.into();
    value["dlq_subject"] = letter.dlq_subject.as_str().into();
    value["headers"] = headers(letter).into();
    // Bytes that are not UTF-8 have no place in JSON; they are shown escaped, and `exact` says so.
    value["exact"] = std::str::from_utf8(&letter.payload).is_ok().into();
    value["payload"] = String::from_utf8_lossy(&letter.payload).into();
    value
}

fn headers(letter: &ShownDeadLetter) -> Vec<String> {
    match Headers::from_stored(letter.headers.clone()).pairs() {
        Some(pairs) => pairs.into_iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        None => vec![letter.headers.as_deref().unwrap_or_default().escape_ascii().to_string()],
    }
}

fn show(letter: &ShownDeadLetter) {
    let ListedDeadLetter { reference, reason, detail, subject, sequence, record_id, rejected_at, published } =
        &letter.listed;
    output::line(format_args!("reference    {reference}"));
    output::line(format_args!("reason       {reason}"));
    output::line(format_args!("detail       {detail}"));
    output::line(format_args!("subject      {subject}, sequence {sequence}"));
    output::line(format_args!("record id    {}", record_id.as_deref().unwrap_or("(could not be read)")));
    output::line(format_args!("rejected at  {rejected_at}, leaf {}", letter.leaf_index));
    output::line(format_args!(
        "dead letter  {} ({})",
        letter.dlq_subject,
        if *published { "published" } else { "waiting to be published" }
    ));
    for header in headers(letter) {
        output::line(format_args!("header       {header}"));
    }
    match std::str::from_utf8(&letter.payload) {
        Ok(text) if !text.chars().any(|character| character.is_control() && !character.is_whitespace()) => {
            output::line(format_args!("\n{text}"));
        }
        _ => output::line(format_args!("\n{}", letter.payload.escape_ascii())),
    }
}
