//! Dead letters: the publication of rejected messages on their subjects, and the decisions of operators about them.

pub mod command;
pub mod decisions;
pub mod original_headers;
pub mod queries;
pub mod queue;
pub mod requeue;
pub mod resolution;
pub mod stream;
