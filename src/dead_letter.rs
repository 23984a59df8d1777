//! Dead letters: the publication of rejected messages on their subjects, and the decisions of operators about them.

pub mod command;
pub(crate) mod deciding;
pub mod decisions;
pub mod original_headers;
pub mod queries;
pub mod queue;
pub(crate) mod recording;
pub mod requeue;
pub mod resolution;
pub mod stream;
