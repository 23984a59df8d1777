//! The vocabulary, pure and sync: what arrives, what is good, and which bytes are hashed.
//!
//! Nothing here does IO, knows a clock, or panics on any bytes.

pub mod agents;
pub mod dead_letter;
pub mod event;
pub mod json;
pub mod leaf;
pub mod message;
pub mod registry;
pub mod reject;
pub mod rules;
pub mod subject;
pub mod timestamp;
