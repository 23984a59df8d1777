//! Receipts: what became of a message, told to the publisher who asks.

pub mod emit;
pub mod notifier;
pub mod queries;
pub mod stream;
pub mod submit;
