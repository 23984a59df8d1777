//! Whether the ledger is what it says. Custody bytes → projection row → leaf → tree → known roots, compared piece by piece.
//!
//! Pure: pages of the database come in, and what differs goes out. [`entry`] looks at each message alone, so any number of
//! workers can; [`tree`] takes their leaves in order; [`days`] adds up what agents spent.

pub mod batch;
pub mod checkpoint;
pub mod command;
pub mod days;
pub mod entry;
pub mod findings;
pub mod fingerprint;
pub mod migrations;
pub mod rates;
pub mod removal;
pub mod repaired;
pub mod report;
pub mod resolution;
pub mod rows;
pub mod snapshot;
pub mod stored;
pub mod tree;
