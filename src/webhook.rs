//! Webhooks: records that are accepted over HTTP, published, and answered once they are committed.

pub mod call;
pub mod credentials;
pub mod refusal_queries;
pub mod refusals;
pub mod routes;
