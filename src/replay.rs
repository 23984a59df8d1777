//! Reads the stream again: `ledgerd replay` stores missing messages, and `ledgerd reconcile` proves that none is
//! missing.

pub mod command;
pub mod reader;
pub mod reconcile;
