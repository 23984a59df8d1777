//! NATS JetStream: where messages come from, and where rejects go. The only place that knows `async_nats`.

pub mod accounts;
pub mod alerts;
pub mod api;
mod around;
mod binding;
pub mod checkpoints;
pub mod client;
pub mod dead_letters;
pub mod definitions;
mod direct;
pub mod divergence;
pub mod holdings;
pub mod intake;
pub mod lane_reader;
mod look;
mod original_headers;
pub mod publish;
pub mod pull;
pub mod reader;
mod reading;
pub mod receipts;
pub mod requeue;
pub mod setup;
pub mod source;
