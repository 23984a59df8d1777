//! The audit ledger daemon: stores every message as exactly one durable row, a record or a dead letter. It acknowledges
//! a message only after that row has committed.
//!
//! ```text
//! bytes → Message → Verdict (Record | Reject) → Batch → commit → Durable → acknowledge
//! ```
//!
//! Read [`ingest::pipeline`] first: it is the core of the daemon. `ARCHITECTURE.md` has an overview of all modules.

pub mod record;

pub mod budget;
pub mod console;
pub mod dead_letter;
pub mod ingest;
pub mod log;
pub mod mcp;
pub mod notify;
pub mod query;
pub mod receipt;
pub mod replay;
pub mod retention;
pub mod schema;
pub mod verify;
pub mod webhook;

pub mod http;
pub mod nats;
pub mod outbox;
pub mod postgres;

pub mod clock;
pub mod config;
pub mod health;
pub mod metrics;
pub mod retry;
pub mod systemd;
pub mod telemetry;

pub mod cli;
mod command;
mod daemon;
