//! A path is a tile's or it is not: whatever is read as one is written as the same path; and bundles have one spelling too.
//!
//! `make fuzz` runs it. In front of the bytes stand eight more, a tree's size.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tlog::tile::{Tile, Width, decode_bundle, decode_hashes, encode_bundle, encode_hashes};

fuzz_target!(|input: (u64, &[u8])| {
    let (number, bytes) = input;
    if let Ok(path) = std::str::from_utf8(bytes)
        && let Ok(tile) = Tile::parse(path)
    {
        assert_eq!(tile.to_string(), path);
        let range = tile.range();
        assert!(range.count > 0 && range.count <= 256);
        if tile.is_in(number) {
            assert!((range.first + range.count - 1) << (8 * u32::from(range.level)) < number);
        }
    }
    let width = Width::new(number % 256 + 1).expect("1 to 256");
    if let Ok(entries) = decode_bundle(bytes, width) {
        assert_eq!(entries.len() as u64, width.get());
        assert_eq!(encode_bundle(entries).expect("short entries"), bytes);
    }
    if let Ok(hashes) = decode_hashes(bytes, width) {
        assert_eq!(encode_hashes(&hashes), bytes);
    }
});
