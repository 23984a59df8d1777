//! The data model: incoming messages, the rules for valid records, and the encodings that are hashed.
//!
//! All of it is pure and synchronous: it does no IO, reads no clock, and does not panic on any bytes.

pub mod agents;
pub mod dead_letter;
pub mod decimal;
pub mod digest;
pub(crate) mod envelope;
pub mod event;
pub mod fields;
pub mod json;
pub mod json_value;
pub mod kinds;
pub mod lane;
pub mod leaf;
pub mod leaf_fields;
pub mod lengths;
pub mod message;
pub mod metric;
pub mod metric_key;
pub mod model_tiers;
pub mod own_lanes;
pub mod own_streams;
pub mod receipt;
pub mod reference;
pub mod registry;
pub mod reject;
pub mod row;
pub mod rules;
pub mod sequences;
pub mod stored_id;
pub mod subject;
pub mod table;
pub mod timestamp;
pub mod tlv;
pub mod token_usage;
pub mod tool_usage;
pub mod trail;
pub mod verdict;
pub mod writers;
