//! Receipts: the outcome of a message, reported to the publisher that asks for it.

pub mod emit;
pub mod notifier;
pub mod queries;
pub mod stream;
pub mod submit;
