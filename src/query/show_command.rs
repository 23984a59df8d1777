//! `ledgerd show`: prints what an id means.

use crate::command::output::{self, safe};
use crate::command::{Exit, Failure, connect};
use crate::config::Config;
use crate::query::Reader;
use crate::query::custody::CustodyEntry;
use crate::query::log_command::text;
use crate::query::search::{Found, SearchAnswer};
use crate::query::story::{ReferenceTarget, Step, Story, Subject};
use crate::record::message::Headers;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArguments {
    /// Any id: of an event, a task, a proposal, a trail, a usage, a reject or a trace; a metric's key; a leaf or a sequence
    #[arg(required_unless_present = "leaf")]
    id: Option<String>,
    /// The entry at this leaf of the log
    #[arg(long, value_name = "N", conflicts_with = "id", value_parser = clap::value_parser!(i64).range(0..))]
    leaf: Option<i64>,
}

pub(crate) async fn run(config: &Config, arguments: &ShowArguments, as_json: bool) -> Result<(), Failure> {
    let reader = Reader(connect::reader(config, 1)?);
    let id = arguments.id.clone().unwrap_or_else(|| arguments.leaf.unwrap_or_default().to_string());
    let answer = reader.search(&id).await?;
    let mut answer = answer.map_err(|bad| Failure::new(Exit::Usage, bad))?;
    if let Some(leaf) = arguments.leaf {
        answer.found.retain(|found| matches!(found, Found::Entry { leaf_index, .. } if *leaf_index == leaf));
    }
    match &answer.found[..] {
        [] => Err(Failure::new(Exit::Failed, nothing(&answer))),
        [only] => show(&reader, only, as_json).await,
        several => {
            list(&answer, several, as_json);
            Ok(())
        }
    }
}

fn nothing(answer: &SearchAnswer) -> String {
    format!("nothing recorded has {}; it was looked for as {}", safe(&answer.query), answer.tried.join(", "))
}

fn list(answer: &SearchAnswer, several: &[Found], as_json: bool) {
    if as_json {
        return output::json(&json!(answer));
    }
    output::line(format_args!("{} may mean any of these:", safe(&answer.query)));
    for found in several {
        output::line(listed(found));
    }
    output::line("`ledgerd show --leaf N` shows one entry.");
}

fn listed(found: &Found) -> String {
    match found {
        Found::Entry { line: Some(line), .. } => text(line),
        Found::Entry { leaf_index, disposition, .. } => format!("leaf {leaf_index}, {disposition}"),
        Found::Task { id } => format!("the task {}", safe(id)),
        Found::Proposal { id } => format!("the proposal {}", safe(id)),
        Found::Agent { name } => format!("the agent {0}: `ledgerd log --actor {0}`", safe(name)),
    }
}

async fn show(reader: &Reader, found: &Found, as_json: bool) -> Result<(), Failure> {
    match found {
        Found::Entry { leaf_index, .. } => {
            let published = reader.custody_entry(*leaf_index).await?;
            let published = published.ok_or_else(|| Failure::new(Exit::Failed, "the entry is not in custody"))?;
            if as_json {
                output::json(&entry_value(found, &published));
            } else {
                print_entry(found, *leaf_index, &published);
            }
        }
        Found::Task { id } => print_story(reader, Subject::Task, id, as_json).await?,
        Found::Proposal { id } => print_story(reader, Subject::Proposal, id, as_json).await?,
        Found::Agent { .. } if as_json => output::json(&json!(found)),
        Found::Agent { .. } => output::line(listed(found)),
    }
    Ok(())
}

fn entry_value(found: &Found, published: &CustodyEntry) -> Value {
    let mut value = json!(found);
    let payload = published.payload.as_deref();
    value["stream"] = published.stream.as_str().into();
    value["epoch"] = published.epoch.into();
    value["sequence"] = published.sequence.into();
    value["subject"] = published.subject.as_str().into();
    value["received_at"] = published.received_at.as_str().into();
    value["committed_at"] = published.committed_at.as_str().into();
    value["headers"] = Headers::from_stored(published.headers.clone()).lines().into();
    // Bytes that are not UTF-8 have no place in JSON; `exact` says whether these are the publisher's.
    value["exact"] = payload.is_some_and(|bytes| std::str::from_utf8(bytes).is_ok()).into();
    value["payload"] = payload.map(String::from_utf8_lossy).into();
    value["payload_sha256"] = published.payload_sha256.as_str().into();
    value["leaf_hash"] = published.leaf_hash.as_str().into();
    value
}

fn print_entry(found: &Found, leaf_index: i64, published: &CustodyEntry) {
    let Found::Entry { disposition, line, .. } = found else { return };
    let field = |name: &str, value: &str| output::line(format_args!("{name:<13}{}", safe(value)));
    if let Some(line) = line {
        field("id", line.record_id.as_deref().unwrap_or("(could not be read)"));
        field("agent", &line.actor);
        field("what", line.what());
        field("outcome", &line.outcome);
        field("time", &line.time);
        let optional = [
            ("task", &line.task_id),
            ("says", &line.summary),
            ("reason", &line.reason),
            ("detail", &line.detail),
            ("trace", &line.trace_id),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                field(name, value);
            }
        }
    }
    field("leaf", &format!("{leaf_index}, {disposition}, hash {}", published.leaf_hash));
    field("subject", &published.subject);
    field("came from", &format!("{}, epoch {}, sequence {}", published.stream, published.epoch, published.sequence));
    field("received", &published.received_at);
    field("committed", &published.committed_at);
    for header in Headers::from_stored(published.headers.clone()).lines() {
        field("header", &header);
    }
    field("sha256", &published.payload_sha256);
    output::line("");
    match published.payload.as_deref() {
        None => output::line("The bytes were erased by the word of the Architect."),
        Some(bytes) => output::line(output::indented(bytes)),
    }
}

async fn print_story(reader: &Reader, about: Subject, id: &str, as_json: bool) -> Result<(), Failure> {
    let Some(story) = reader.story(about, id).await? else {
        return Err(Failure::new(Exit::Failed, format!("nothing is recorded of {}", safe(id))));
    };
    if as_json {
        output::json(&json!(story));
        return Ok(());
    }
    for step in &story.steps {
        print_step(step);
    }
    print_sum(&story);
    Ok(())
}

fn print_step(step: &Step) {
    output::line(format_args!("{:<11}  {}", safe(&step.stage), text(&step.line)));
    for (voter, vote) in &step.votes {
        output::line(format_args!("    {} voted {}", safe(voter), safe(vote)));
    }
    if let Some(required) = &step.threshold_required {
        output::line(format_args!("    needs {} approvals", safe(required)));
    }
    for reference in &step.references {
        let leads = match reference.leads_to {
            ReferenceTarget::Recorded => "",
            ReferenceTarget::Erased => " (erased)",
            ReferenceTarget::Nothing => " (leads nowhere)",
        };
        output::line(format_args!("    {} {}{leads}", safe(&reference.field), safe(&reference.event_id)));
    }
}

fn print_sum(story: &Story) {
    let cost = &story.cost;
    let at_least = if cost.is_partial { "at least " } else { "" };
    output::line(format_args!(
        "cost: {at_least}{} USD in {} calls, {} tokens in, {} out",
        cost.usd, cost.calls, cost.tokens_input, cost.tokens_output
    ));
    if story.dangling > 0 {
        output::line(format_args!("references that lead nowhere: {}", story.dangling));
    }
    if story.is_cut {
        output::line("There is more: these are the newest records.");
    }
}
