//! The verifiable log: an RFC 6962 tree over the leaf hashes of custody. Pure.

pub mod tree;
