//! The transparency log: signed checkpoints, tiles over HTTP, cosignatures, and proofs of single records.

pub mod anchor;
pub mod announce;
pub mod checkpoint_command;
pub mod cosign;
pub mod entries;
pub mod evidence;
pub mod http_client;
pub mod keygen;
pub mod pages;
pub mod prove;
pub mod proving;
pub mod queries;
pub mod signer;
pub mod stored_tree;
pub mod verify_proof;
pub mod witnesses;
