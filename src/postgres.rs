//! PostgreSQL for all modules: connections, the remedy for each SQLSTATE, migrations, and access control.

pub mod access;
pub mod connections;
pub mod failure;
pub mod reads;
pub mod remedy;
pub mod runs;
pub mod schema;
