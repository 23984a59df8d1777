//! A transparency log: an RFC 6962 tree over leaf hashes, and the C2SP formats for its verification. It does no IO, and
//! reads no clock.

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
