//! Descriptions of the ledger for other programs, made from the registry and the rules in force: JSON Schemas of the
//! records, and an `AsyncAPI` document of the subjects.

mod asyncapi;
pub(crate) mod command;
mod event;
mod fields;
mod metric;
mod records;
mod token_usage;
mod tool_usage;
mod trail;

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
