//! Retention and erasure of rows. Expired rows are deleted only after their archive was read back, and each removal is
//! recorded.

pub mod archive;
pub mod command;
pub mod erase;
pub mod erasure;
pub mod file;
pub mod queries;
pub mod removal;
