//! PostgreSQL, for all who use it: connections, SQLSTATE and its remedy, migrations, access.

pub mod access;
pub mod connections;
pub mod failure;
pub mod reads;
pub mod remedy;
pub mod schema;
