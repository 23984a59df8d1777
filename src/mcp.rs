//! The Model Context Protocol: questions about the record as tools for models. They read with a reader's login, and nothing
//! here writes.

mod answers;
pub(crate) mod command;
pub(crate) mod http;
mod questions;
pub(crate) mod sources;
mod tools;
