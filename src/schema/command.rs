//! `ledgerd schema`: prints the schemas of the records, the description of the subjects, or that of the API.

use crate::command::{Exit, Failure, output, rules};
use crate::config::Config;
use crate::console::api;
use crate::schema::asyncapi;
use crate::schema::records::{Kind, json_schema};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArguments {
    #[command(flatten)]
    what: What,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// JSON Schema 2020-12 of one kind of record, or of all
    #[arg(long, value_name = "KIND", value_enum, num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "clap takes so an option whose value may be left out")]
    json_schema: Option<Option<Kind>>,
    /// `AsyncAPI` 3.0: the subjects, their messages, and who publishes
    #[arg(long)]
    asyncapi: bool,
    /// `OpenAPI` 3.1: the API of the console
    #[arg(long)]
    openapi: bool,
}

pub(crate) fn run(config: &Config, arguments: &SchemaArguments) -> Result<(), Failure> {
    output::json(&document(config, &arguments.what)?);
    Ok(())
}

fn document(config: &Config, what: &What) -> Result<Value, Failure> {
    if what.openapi {
        return serde_json::to_value(api::description()).map_err(|error| Failure::new(Exit::Failed, error));
    }
    let rules = rules::load(config).map_err(|why| Failure::new(Exit::Configuration, why))?;
    Ok(match what.json_schema {
        Some(kind) => json_schema(kind, &rules),
        None => asyncapi::document(&rules),
    })
}
