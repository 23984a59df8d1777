//! Webhooks: records that come over HTTP, are published, and are answered once they are committed.

pub mod call;
pub mod credentials;
pub mod refusal_queries;
pub mod refusals;
pub mod routes;
