//! `ledgerd setup`: creates the streams and consumers of `nats/`, and on demand publishes the reference limits and
//! rates.

use crate::command::{Exit, Failure, connect, output, rules};
use crate::config::Config;
use crate::ingest::position::Positions as _;
use crate::nats::api::{Api, ApiError};
use crate::nats::definitions::{self, Names};
use crate::nats::publish::publish;
use crate::nats::setup::{Item, Mode, SetupOutcome, setup};
use crate::postgres::reads;
use crate::record::lane::Lane;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct SetupArguments {
    /// Also change what differs from the shipped definitions
    #[arg(long)]
    apply: bool,
    /// Also publish the reference limits and rates, as ARCHITECT, where no value is in force yet
    #[arg(long)]
    defaults: bool,
}

pub(crate) async fn run(config: &Config, arguments: &SetupArguments, as_json: bool) -> Result<(), Failure> {
    // A registry file that cannot be read adds no prefix, and its subject would be taken from the stream.
    rules::load(config).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let api = connect::nats(config).await?;
    let mode = if arguments.apply { Mode::Apply } else { Mode::Create };
    let names = Names::from(&config.nats);
    let items = setup(&api, &names, &config.lanes, mode).await?;
    let added: Vec<Lane> = config.lanes.iter().copied().filter(|lane| matches!(lane, Lane::Added(_))).collect();
    if !as_json {
        items.iter().flat_map(lines).for_each(output::line);
        added.iter().flat_map(|&lane| permission_lines(&names, lane)).for_each(output::line);
    }
    let defaults = if arguments.defaults { publish_defaults(config, &api, as_json).await? } else { Vec::new() };
    if as_json {
        let grants = added.iter().map(|&lane| {
            json!({ "name": format!("permissions of {lane}"), "outcome": "to grant", "publish": definitions::permissions(&names, lane) })
        });
        output::json(&Value::Array(items.iter().map(as_value).chain(defaults).chain(grants).collect()));
    }
    if items.iter().any(|item| matches!(item.outcome, SetupOutcome::Differs(_))) {
        return Err(Failure::new(
            Exit::Difference,
            "what differs was left as it is; `ledgerd setup --apply` changes it",
        ));
    }
    Ok(())
}

/// Publishes each reference metric whose key has no row yet. They take the way of all records: `ledgerd run` stores them.
async fn publish_defaults(config: &Config, api: &Api, as_json: bool) -> Result<Vec<Value>, Failure> {
    let reference = rules::reference_metrics(config).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let mut in_force = reads::metrics_in_force(&connect::database(config, 1)?).await?;
    // What was published and is not stored yet goes before the reference, too.
    in_force.extend(waiting_metrics(config, api).await?);
    let mut items = Vec::new();
    for (key, value) in reference {
        let (outcome, line) = if let Some(found) = in_force.get(&key) {
            ("in force", format!("{key}: {found} is in force, and stays"))
        } else {
            publish_metric(api, &config.nats.stream, &key, &value).await?;
            ("published", format!("{key}: {value} published"))
        };
        if !as_json {
            output::line(line);
        }
        items.push(json!({ "name": key, "outcome": outcome, "value": in_force.get(&key).unwrap_or(&value) }));
    }
    Ok(items)
}

/// The metrics in the stream that nobody has stored yet, by their keys.
async fn waiting_metrics(config: &Config, api: &Api) -> Result<Vec<(String, String)>, Failure> {
    let failed = |error| Failure::new(Exit::Failed, error);
    let incarnation = api.incarnation(&config.nats.stream).await.map_err(failed)?;
    let position = connect::positions(config)?.reliable_position(&incarnation, Lane::Metric).await;
    let position = position.map_err(|why| Failure::new(Exit::Failed, why))?;
    let (mut waiting, mut next) = (Vec::new(), position + 1);
    while waiting.len() < WAITING_METRICS_MAX {
        let message = match api.next_message(&incarnation, Lane::Metric, next).await {
            Ok(message) => message,
            Err(ApiError::MessageNotFound) => return Ok(waiting),
            Err(error) => return Err(failed(error)),
        };
        next = message.sequence + 1;
        let said: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        if let Some(key) = said["metric_key"].as_str() {
            waiting.push((key.to_owned(), format!("{} waits in the stream, and", said["metric_value"])));
        }
    }
    let why = format!("more than {WAITING_METRICS_MAX} metrics are not stored yet: let `ledgerd run` store them first");
    Err(Failure::new(Exit::Failed, why))
}

/// More are looked up one by one only where the daemon has been away for long.
const WAITING_METRICS_MAX: usize = 1000;

async fn publish_metric(api: &Api, stream: &str, key: &str, value: &str) -> Result<(), Failure> {
    // The value stands there as the reference writes it: no reader may round it on the way.
    let payload = format!("{{\"metric_key\":{},\"metric_value\":{value},\"set_by\":\"{SETTER}\"}}", Value::from(key));
    let published = publish(api, stream, &format!("ledger.METRIC.{SETTER}"), payload.into_bytes()).await;
    published.map(drop).map_err(|error| {
        let Failure { exit, what } = error.into();
        Failure { exit, what: format!("{key}: {what}") }
    })
}

/// In whose name the reference is published.
const SETTER: &str = "ARCHITECT";

/// What the server's configuration must grant for a prefix that a registry file adds: nobody can grant it over NATS.
fn permission_lines(names: &Names, lane: Lane) -> Vec<String> {
    let filter = lane.filter();
    let of_daemon = definitions::permissions(names, lane);
    let title = format!("{lane}: where the server has permissions, grant the user ledgerd to publish");
    let others = format!("and the users webhooks and requeue {filter}; `ledgerd nats-accounts` has the actors");
    std::iter::once(title).chain(of_daemon.into_iter().map(|subject| format!("  {subject}"))).chain([others]).collect()
}

fn lines(item: &Item) -> Vec<String> {
    let name = &item.name;
    match &item.outcome {
        SetupOutcome::Unchanged => vec![format!("{name}: as it must be")],
        SetupOutcome::Created => vec![format!("{name}: created")],
        SetupOutcome::Missing => vec![format!("{name}: missing")],
        SetupOutcome::Applied(drift) => drift.iter().map(|drift| format!("changed: {drift}")).collect(),
        SetupOutcome::Differs(drift) => drift.iter().map(|drift| format!("differs: {drift}")).collect(),
    }
}

fn as_value(item: &Item) -> Value {
    let (outcome, drift) = match &item.outcome {
        SetupOutcome::Unchanged => ("unchanged", None),
        SetupOutcome::Created => ("created", None),
        SetupOutcome::Missing => ("missing", None),
        SetupOutcome::Applied(drift) => ("applied", Some(drift)),
        SetupOutcome::Differs(drift) => ("differs", Some(drift)),
    };
    let drift: Vec<Value> = drift
        .into_iter()
        .flatten()
        .map(|drift| {
            json!({ "setting": drift.setting, "expected": drift.expected, "found": drift.found, "dangerous": drift.dangerous })
        })
        .collect();
    json!({ "name": item.name, "outcome": outcome, "drift": drift })
}
