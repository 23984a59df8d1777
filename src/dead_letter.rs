//! Dead letters: rejects on their way to their subject, and what an operator decides about them.

pub mod command;
pub mod decisions;
pub mod original_headers;
pub mod queries;
pub mod queue;
pub mod requeue;
pub mod resolution;
pub mod stream;
