//! Every message becomes exactly one durable row, a record or a dead letter, and is acknowledged only after that row has
//! committed.
//!
//! ```text
//! bytes → Message → Verdict (Record | Reject) → Batch → commit → Durable → acknowledge
//! ```
//!
//! Read [`pipeline`] first: it is the whole daemon. `ARCHITECTURE.md` has the map.

pub mod domain;
pub mod tlog;

pub mod anchor;
pub mod cosign;
pub mod verify;

pub mod lifecycle;
pub mod logbook;
pub mod notary;
pub mod outbox;
pub mod pipeline;
pub mod position;
pub mod receipts;
pub mod refusals;
pub mod retention;
pub mod webhook;
pub mod witness;

pub mod archive;
pub mod nats;
pub mod postgres;

pub mod health;
pub mod http;
pub mod metrics;
pub mod systemd;
pub mod telemetry;

pub mod clock;
pub mod config;
pub mod retry;

pub mod cli;
