//! PostgreSQL: the store. The only place that knows `sqlx`.

pub mod access;
pub mod audit;
mod budget;
mod commit;
mod company;
mod connections;
mod counted;
mod custody;
pub mod dead_letters;
pub mod entries;
mod epochs;
pub mod erasure;
mod failure;
pub mod held;
pub mod log;
pub mod outbox;
pub mod positions;
mod projection;
pub mod reads;
pub mod receipts;
pub mod refusals;
mod remedy;
pub mod resolution;
pub mod retention;
pub mod schema;
mod store;

pub use connections::{Connections, Limits};
pub use remedy::DatabaseError;
pub use store::Ledger;
