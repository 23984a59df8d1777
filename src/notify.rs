//! Webhooks out: tells targets of budgets, rejects, blocked events, stalls and differences, signed as Standard Webhooks says.
//!
//! The outbox is the ledger itself. Each target has a position in each source of events, which moves after a delivery. So
//! nothing is lost, whenever the daemon is killed, and a commit does no more than before.

pub(crate) mod command;
pub mod delivery;
pub mod notices;
pub mod sender;
pub mod sources;
pub mod store;
