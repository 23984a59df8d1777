//! The verifiable log: an RFC 6962 tree over the leaf hashes of custody, and the C2SP formats in which others check it. Pure.

pub mod tree;

pub mod tile;

pub mod plan;
pub mod proof;

pub mod key;
pub mod note;

pub mod checkpoint;
pub mod cosignature;

pub mod receipt;
pub mod witness;

mod text;

#[cfg(test)]
mod naive;
