//! What strangers hand to `ledgerd verify-proof`: any bytes are read without a panic, and what is read has one spelling.
//!
//! `make fuzz` runs it.

#![no_main]

use ledgerd::log::evidence::Evidence;
use ledgerd::record::leaf_fields::LeafFields;
use libfuzzer_sys::fuzz_target;
use tlog::receipt::ProofFile;

fuzz_target!(|input: &[u8]| {
    if let Ok(fields) = LeafFields::decode(input) {
        assert_eq!(fields.encode(), input);
    }
    if let Ok(evidence) = Evidence::decode(input) {
        assert_eq!(evidence.encode(), input);
        if let Ok(fields) = evidence.examine() {
            assert_eq!(fields.encode(), evidence.leaf);
        }
    }
    if let Ok(receipt) = ProofFile::parse(input) {
        assert_eq!(receipt.to_string().as_bytes(), input);
    }
});
