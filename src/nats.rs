//! NATS JetStream: where messages come from, and where rejects go. The only place that knows `async_nats`.

pub mod accounts;
pub mod alerts;
pub mod api;
pub mod checkpoints;
pub mod client;
pub mod dead_letters;
pub mod definitions;
mod lease;
pub mod publish;
pub mod pull;
mod reclaim;
pub mod setup;
pub mod source;
