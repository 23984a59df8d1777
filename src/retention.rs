//! Retention and erasure: rows leave after their archive was read back, and each removal is on record.

pub mod archive;
pub mod command;
pub mod erase;
pub mod erasure;
pub mod file;
pub mod queries;
pub mod removal;
