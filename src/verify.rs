//! Verifies the ledger: compares custody bytes, projection rows, leaves, the tree and known roots with each other.
//!
//! The comparisons are pure: they take pages of the database, and return the differences. [`entry`] checks each message
//! alone, so any number of workers can run it. [`tree`] takes their leaves in order; [`days`] sums up what agents
//! spent.

pub mod batch;
pub mod checkpoint;
pub mod command;
pub mod days;
pub mod entry;
pub mod findings;
pub mod fingerprint;
pub mod migrations;
pub(crate) mod outside;
pub mod rates;
pub mod removal;
pub mod repaired;
pub mod report;
pub mod resolution;
pub mod rows;
pub mod snapshot;
pub mod stored;
pub mod tree;
