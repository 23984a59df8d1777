//! PostgreSQL: the store. The only place that knows `sqlx`.

pub mod alerts;
pub mod audit;
mod budget;
mod connections;
mod custody;
mod epochs;
mod failure;
pub mod outbox;
mod projection;
pub mod reads;
mod remedy;
pub mod schema;
mod store;

pub use connections::{Connections, Limits};
pub use remedy::DatabaseError;
pub use store::Ledger;
