//! NATS JetStream for all modules: the connection, the API client, and the stream and consumer definitions of `nats/`.

pub mod accounts;
pub mod api;
pub mod client;
pub mod definitions;
pub mod publish;
pub mod setup;
pub mod stream_state;
