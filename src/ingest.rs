//! The path of a message from the stream to a committed row: read, validate, commit, acknowledge.
//!
//! Read [`pipeline`] first, then [`lifecycle`], whose types make an early acknowledgement a compile error.

pub mod around;
pub mod binding;
pub mod commit;
pub mod counted;
pub mod coverage;
pub mod custody;
pub mod divergence;
pub mod epochs;
pub mod group_commit;
pub mod handover;
pub mod lane_reader;
pub mod lifecycle;
pub mod pipeline;
pub mod position;
pub mod positions;
pub mod projection;
pub mod pull;
pub mod source;
pub mod store;
