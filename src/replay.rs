//! Reading the stream again: `ledgerd replay` stores what is missing, `ledgerd reconcile` proves that nothing is.

pub mod command;
pub mod reader;
pub mod reconcile;
