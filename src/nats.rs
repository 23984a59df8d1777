//! NATS JetStream, for all who use it: the connection, the client of its API, and what the files of `nats/` define.

pub mod accounts;
pub mod api;
pub mod client;
pub mod definitions;
pub mod publish;
pub mod setup;
pub mod stream_state;
