//! `ledgerd emit`: publishes one audit event, from its arguments or from standard input. On demand it waits for the
//! receipt.

use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::nats::api::Api;
use crate::nats::publish::{PubAck, PublishError, publish};
use crate::receipt::submit::{Submission, SubmitClient, Submitted};
use crate::record::event::integrity_hash;
use crate::record::lane::Lane;
use crate::record::message::utc_text;
use crate::record::own_lanes::house_lane;
use crate::record::receipt::{self, Receipt, Status};
use crate::record::table::Table;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
#[command(after_help = "event_id, timestamp and integrity_hash are filled in where they are absent.\n\nExample:\n  \
    ledgerd emit --actor BRM-CTO --action EXECUTION_STARTED --outcome SUCCESS --lane EXEC --details '{\"steps\": 4}'")]
pub(crate) struct EmitArguments {
    /// "-": read one event, a JSON object, from standard input, as is done without any argument; other arguments take
    /// precedence over its fields
    #[arg(value_parser = ["-"], hide_possible_values = true)]
    input: Option<String>,
    /// Who it is, as the agent registry names it
    #[arg(long)]
    actor: Option<String>,
    /// What happened, as the Action Registry names it
    #[arg(long)]
    action: Option<String>,
    /// One of the action's outcomes
    #[arg(long)]
    outcome: Option<String>,
    /// The lane [default: the prefix of --event-id, or the one that LDG-002 gives to the action or the agent]
    #[arg(long)]
    lane: Option<Lane>,
    /// A JSON object
    #[arg(long, value_name = "JSON")]
    details: Option<String>,
    /// The task this event traces to
    #[arg(long)]
    task_id: Option<String>,
    /// ISO 8601 [default: now]
    #[arg(long)]
    timestamp: Option<String>,
    /// [default: {LANE}-{ACTOR}-{unix ms}]
    #[arg(long)]
    event_id: Option<String>,
    /// Wait until the event is committed, and print its receipt: 0 logged, or logged before; 1 rejected; 69 not yet
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "10s", value_parser = patience)]
    wait: Option<Duration>,
}

/// Longer than anybody waits at a terminal.
const PATIENCE_MAX: Duration = Duration::from_hours(1);

fn patience(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; such as 10s"))?;
    if duration <= PATIENCE_MAX { Ok(duration) } else { Err("at most 1h".to_owned()) }
}

pub(crate) async fn run(config: &Config, arguments: EmitArguments, as_json: bool) -> Result<(), Failure> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    let mut event = read_event(&arguments).map_err(usage)?;
    let lane = fill(&mut event, arguments.lane, crate::clock::unix_ns()).map_err(usage)?;
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subject = format!("ledger.{lane}.{}", text("actor"));
    let event_id = text("event_id");
    let payload = Value::Object(event.clone()).to_string().into_bytes();

    let api = connect::nats(config).await?;
    let emitted = Emitted { subject, event_id, integrity_hash: text("integrity_hash") };
    if let Some(patience) = arguments.wait {
        let actor = text("actor");
        return wait(config, &api, &actor, emitted, payload, patience, as_json).await;
    }
    let stored = publish(&api, &config.nats.stream, &emitted.subject, payload).await?;
    emitted.print(&stored, None, as_json);
    Ok(())
}

/// Publishes, and waits until it is known what became of the event.
async fn wait(
    config: &Config,
    api: &Api,
    actor: &str,
    emitted: Emitted,
    payload: Vec<u8>,
    patience: Duration,
    as_json: bool,
) -> Result<(), Failure> {
    let (receipts, subjects) = (&config.nats.receipts_stream, receipt::subjects_of(actor));
    let intake = SubmitClient::listen(api.clone(), &config.nats.stream, receipts, &subjects).await;
    let intake = intake.map_err(|why| Failure::new(Exit::Unavailable, why))?;
    let submission = Submission { subject: emitted.subject.clone(), message_id: None, payload: payload.into() };
    let receipt = match intake.submit(submission, Instant::now() + patience).await? {
        Submitted::Told(receipt) => receipt,
        Submitted::Queued(stored) => {
            emitted.print(&stored, None, as_json);
            let patience = humantime::format_duration(patience);
            let why = format!("not committed within {patience}; it is safe in the stream, and will be");
            return Err(Failure::new(Exit::Unavailable, why));
        }
    };
    let sequence = u64::try_from(receipt.sequence).unwrap_or(0);
    let stored = PubAck { stream: receipt.stream.clone(), sequence, duplicate: false };
    emitted.print(&stored, Some(&receipt), as_json);
    match (receipt.status, receipt.reason, receipt.detail) {
        (Status::Logged | Status::Duplicate, ..) => Ok(()),
        (Status::Rejected, reason, detail) => {
            let why = [reason, detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
            Err(Failure::new(Exit::Failed, format!("rejected: {why}")))
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let exit = if error == PublishError::Unknown { Exit::Unavailable } else { Exit::Failed };
        Failure::new(exit, error)
    }
}

/// The event as it was published.
struct Emitted {
    subject: String,
    event_id: String,
    integrity_hash: String,
}

impl Emitted {
    fn print(&self, stored: &PubAck, receipt: Option<&Receipt>, as_json: bool) {
        let Self { subject, event_id, integrity_hash } = self;
        if as_json {
            output::json(&json!({
                "subject": subject, "stream": stored.stream, "sequence": stored.sequence,
                "event_id": event_id, "integrity_hash": integrity_hash, "receipt": receipt,
            }));
            return;
        }
        output::line(format_args!("{event_id}\n  in {} at sequence {}, on {subject}", stored.stream, stored.sequence));
        output::line(format_args!("  integrity_hash {integrity_hash}"));
        if let Some(receipt) = receipt {
            let status = match receipt.status {
                Status::Logged => "logged",
                Status::Duplicate => "logged before; this is a duplicate",
                Status::Rejected => "rejected",
            };
            output::line(format_args!("  {status}, {}", receipt.committed_at));
            output::line(format_args!("  leaf {} {}", receipt.leaf_index, receipt.leaf_hash));
        }
    }
}

/// The other lanes take records of other kinds.
fn must_be_an_audit_lane(lane: Lane) -> Result<Lane, String> {
    if lane.table() == Table::AuditEvents {
        return Ok(lane);
    }
    Err(format!(
        "{lane} takes no audit events but records of {}; publish those with any NATS client",
        lane.table().name()
    ))
}

fn read_event(arguments: &EmitArguments) -> Result<Map<String, Value>, String> {
    let mut event = Map::new();
    let says_nothing = arguments.actor.is_none() && arguments.action.is_none() && arguments.outcome.is_none();
    if arguments.input.is_some() || (says_nothing && !std::io::stdin().is_terminal()) {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
        event = serde_json::from_str(&text).map_err(|error| format!("standard input is not a JSON object: {error}"))?;
    }
    let given = [
        ("event_id", &arguments.event_id),
        ("actor", &arguments.actor),
        ("action", &arguments.action),
        ("outcome", &arguments.outcome),
        ("task_id", &arguments.task_id),
        ("timestamp", &arguments.timestamp),
    ];
    for (field, value) in given {
        if let Some(value) = value {
            event.insert(field.to_owned(), Value::from(value.as_str()));
        }
    }
    if let Some(details) = &arguments.details {
        let details = serde_json::from_str(details).map_err(|error| format!("--details is not JSON: {error}"))?;
        event.insert("details".to_owned(), details);
    }
    Ok(event)
}

/// Fills in what is absent, and finds the lane.
fn fill(event: &mut Map<String, Value>, lane: Option<Lane>, now_ns: i64) -> Result<Lane, String> {
    let text = |event: &Map<String, Value>, field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
    let required = |event: &Map<String, Value>, field: &str| {
        text(event, field)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("{field} is missing: give --{field}, or an event with it"))
    };
    let actor = required(event, "actor")?;
    let action = required(event, "action")?;
    let outcome = required(event, "outcome")?;
    if !actor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return Err(format!("actor \"{actor}\" cannot stand in a subject: it has letters, digits, - and _"));
    }
    let prefix = text(event, "event_id").and_then(|id| id.split('-').next()?.parse::<Lane>().ok());
    let lane = must_be_an_audit_lane(lane.or(prefix).unwrap_or_else(|| usual_lane(&actor, &action)))?;
    let timestamp = text(event, "timestamp").unwrap_or_else(|| utc_text(now_ns / 1000 * 1000));
    let event_id = text(event, "event_id").unwrap_or_else(|| format!("{lane}-{actor}-{:013}", now_ns / 1_000_000));
    if text(event, "integrity_hash").is_none() {
        let hash = integrity_hash(&event_id, &actor, &action, &outcome, &timestamp);
        event.insert("integrity_hash".to_owned(), Value::from(hash));
    }
    event.insert("timestamp".to_owned(), Value::from(timestamp));
    event.insert("event_id".to_owned(), Value::from(event_id));
    Ok(lane)
}

/// LDG-002, "Event ID Format": which events each prefix is for.
fn usual_lane(actor: &str, action: &str) -> Lane {
    if action.starts_with("INJECTION_") {
        return Lane::Sec;
    }
    if action.starts_with("TOOL_REQUEST_") {
        return Lane::Tool;
    }
    house_lane(actor).unwrap_or(Lane::Sys)
}
