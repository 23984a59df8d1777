//! Every message becomes exactly one durable row, a record or a dead letter, and is acknowledged only after that row has
//! committed.
//!
//! ```text
//! bytes → Message → Verdict (Record | Reject) → Batch → commit → Durable → acknowledge
//! ```
//!
//! Read [`ingest::pipeline`] first: it is the whole daemon. `ARCHITECTURE.md` has the map.

pub mod record;
pub mod tlog;

pub mod budget;
pub mod dead_letter;
pub mod ingest;
pub mod log;
pub mod receipt;
pub mod replay;
pub mod retention;
pub mod verify;
pub mod webhook;
pub mod witness;

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
