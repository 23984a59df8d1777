//! `ledgerd setup`: the streams and consumers of nats/.

use super::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::nats::definitions::Names;
use crate::nats::setup::{Item, Mode, Outcome, setup};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also change what differs from the shipped definitions
    #[arg(long)]
    apply: bool,
}

pub(super) async fn run(config: &Config, arguments: &Arguments, as_json: bool) -> Result<(), Failure> {
    let api = connect::nats(config).await?;
    let mode = if arguments.apply { Mode::Apply } else { Mode::Create };
    let items = setup(&api, &Names::from(&config.nats), &config.lanes, mode).await?;
    if as_json {
        output::json(&Value::Array(items.iter().map(as_value).collect()));
    } else {
        for item in &items {
            for line in lines(item) {
                output::line(line);
            }
        }
    }
    if items.iter().any(|item| matches!(item.outcome, Outcome::Differs(_))) {
        return Err(Failure::new(
            Exit::Difference,
            "what differs was left as it is; `ledgerd setup --apply` changes it",
        ));
    }
    Ok(())
}

fn lines(item: &Item) -> Vec<String> {
    let name = &item.name;
    match &item.outcome {
        Outcome::Unchanged => vec![format!("{name}: as it must be")],
        Outcome::Created => vec![format!("{name}: created")],
        Outcome::Missing => vec![format!("{name}: missing")],
        Outcome::Applied(drift) => drift.iter().map(|drift| format!("changed: {drift}")).collect(),
        Outcome::Differs(drift) => drift.iter().map(|drift| format!("differs: {drift}")).collect(),
    }
}

fn as_value(item: &Item) -> Value {
    let (outcome, drift) = match &item.outcome {
        Outcome::Unchanged => ("unchanged", None),
        Outcome::Created => ("created", None),
        Outcome::Missing => ("missing", None),
        Outcome::Applied(drift) => ("applied", Some(drift)),
        Outcome::Differs(drift) => ("differs", Some(drift)),
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
