//! NATS JetStream: where messages come from, and where rejects go. The only place that knows `async_nats`.

pub mod accounts;
pub mod alerts;
pub mod api;
pub mod checkpoints;
pub mod client;
pub mod dead_letters;
pub mod definitions;
pub mod doubts;
mod floor;
pub mod holdings;
pub mod intake;
mod lease;
mod original_headers;
pub mod publish;
pub mod pull;
pub mod reader;
pub mod receipts;
mod reclaim;
pub mod requeue;
pub mod setup;
pub mod source;
