use super::*;
use crate::naive::{leaves, naive_root};
use proptest::prelude::*;

fn width(width: u64) -> Width {
    Width::new(width).expect("from 1 to 256")
}

/// The examples of the specification's text.
#[test]
fn paths_are_those_of_the_specification() {
    let tile = Tile::parse("tile/0/x001/x234/067").expect("a tile");
    assert_eq!((tile.content(), tile.index(), tile.width()), (Content::Hashes(0), 1_234_067, Width::FULL));
    let tile = Tile::parse("tile/2/000.p/1").expect("a tile");
    assert_eq!((tile.content(), tile.index(), tile.width()), (Content::Hashes(2), 0, width(1)));
    let tile = Tile::parse("tile/entries/x001/000.p/255").expect("a bundle");
    assert_eq!((tile.content(), tile.index(), tile.width()), (Content::Entries, 1000, width(255)));
    assert_eq!(Tile::of_entries(INDEX_MAX, Width::FULL).expect("the last").range().first, u64::MAX - 255);
}

#[test]
fn other_paths_are_refused() {
    for (path, fault) in [
        ("", BadPath::NotATile),
        ("tile", BadPath::NotATile),
        ("tile/0", BadPath::NotATile),
        ("/tile/0/000", BadPath::NotATile),
        ("checkpoint", BadPath::NotATile),
        ("tile/64/000", BadPath::Level),
        ("tile/00/000", BadPath::Level),
        ("tile/-1/000", BadPath::Level),
        ("tile//000", BadPath::Level),
        ("tile/data/000", BadPath::Level),
        ("tile/0/", BadPath::Index),
        ("tile/0/0", BadPath::Index),
        ("tile/0/0000", BadPath::Index),
        ("tile/0/x000", BadPath::Index),
        ("tile/0/000/", BadPath::Index),
        ("tile/0/001/067", BadPath::Index),
        ("tile/0/x000/067", BadPath::Index),
        ("tile/0/X001/067", BadPath::Index),
        ("tile/0/x001//067", BadPath::Index),
        ("tile/0/+01", BadPath::Index),
        ("tile/0/x999/x999/x999/x999/x999/x999/999", BadPath::Index),
        ("tile/0/x072/x057/x594/x037/x927/936", BadPath::Index),
        ("tile/0/000.p", BadPath::Index),
        ("tile/0/000.p/", BadPath::Width),
        ("tile/0/000.p/0", BadPath::Width),
        ("tile/0/000.p/01", BadPath::Width),
        ("tile/0/000.p/256", BadPath::Width),
        ("tile/0/000.p/1.p/1", BadPath::Width),
        ("tile/0/000.p/1/", BadPath::Width),
    ] {
        assert_eq!(Tile::parse(path), Err(fault), "{path}");
    }
    assert!(Tile::parse("tile/0/x072/x057/x594/x037/x927/935").is_ok());
}

/// "Partial Tiles": both examples.
#[test]
fn a_tree_has_the_tiles_that_the_specification_counts() {
    let level = |level, full, partial: u64| Level { level, full, partial: Width::new(partial) };
    assert_eq!(levels(70_000), [level(0, 273, 112), level(1, 1, 17), level(2, 0, 1)]);
    assert_eq!(levels(256), [level(0, 1, 0), level(1, 0, 1)]);
    assert_eq!(levels(0), []);
    assert_eq!(levels(u64::MAX).len(), 8);
}

#[test]
fn a_tile_is_in_a_tree_that_has_all_of_it() {
    let tile = |path: &str| Tile::parse(path).expect("a tile");
    for path in [
        "tile/0/272",
        "tile/0/273.p/112",
        "tile/0/273.p/1",
        "tile/0/000.p/7",
        "tile/1/000",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
        "tile/entries/272",
        "tile/entries/273.p/112",
    ] {
        assert!(tile(path).is_in(70_000), "{path}");
    }
    for path in [
        "tile/0/273",
        "tile/0/273.p/113",
        "tile/0/274.p/1",
        "tile/1/001",
        "tile/1/001.p/18",
        "tile/2/000.p/2",
        "tile/3/000.p/1",
        "tile/8/000.p/1",
        "tile/63/000.p/1",
        "tile/entries/273",
    ] {
        assert!(!tile(path).is_in(70_000), "{path}");
    }
    assert!(!tile("tile/0/000.p/1").is_in(0));
    assert!(!tile("tile/8/000.p/1").is_in(u64::MAX));
    assert!(tile("tile/0/x072/x057/x594/x037/x927/935.p/255").is_in(u64::MAX));
}

/// "The n-th tile at level l": its definition over 66,000 leaves.
#[test]
fn the_range_of_a_tile_is_the_specifications_formula() {
    let leaves = leaves(700);
    let tile = Tile::parse("tile/1/000.p/2").expect("a tile");
    assert!(tile.is_in(700));
    let HashRange { level, first, count } = tile.range();
    let span = 256_usize.pow(u32::from(level));
    let hashes: Vec<Hash> = (first..first + count)
        .map(|place| usize::try_from(place).expect("small") * span)
        .map(|start| naive_root(&leaves[start..start + span]))
        .collect();
    assert_eq!(hashes, [naive_root(&leaves[..256]), naive_root(&leaves[256..512])]);
    assert_eq!(decode_hashes(&encode_hashes(&hashes), width(2)), Ok(hashes));
    assert_eq!(decode_hashes(&[0; 33], width(1)), Err(BadTile::Length { expected: 32, found: 33 }));
}

#[test]
fn a_bundle_is_lengths_and_entries() {
    let bundle = encode_bundle([b"".as_slice(), b"ab"]).expect("short");
    assert_eq!(bundle, b"\0\0\0\x02ab");
    assert_eq!(decode_bundle(&bundle, width(2)), Ok(vec![b"".as_slice(), b"ab"]));
    assert_eq!(decode_bundle(&bundle, width(1)), Err(BadTile::BundleGoesOn));
    assert_eq!(decode_bundle(&bundle, width(3)), Err(BadTile::BundleEnds));
    assert_eq!(decode_bundle(&bundle[..5], width(2)), Err(BadTile::BundleEnds));
    let longest = vec![7; ENTRY_BYTES_MAX];
    assert!(encode_bundle([longest.as_slice()]).is_ok());
    let longer = vec![7; ENTRY_BYTES_MAX + 1];
    assert_eq!(encode_bundle([longer.as_slice()]), Err(EntryTooLong { length: 65_536 }));
}

proptest! {
    #[test]
    fn a_tile_has_one_path(level in 0_u8..=63, index in 0..=INDEX_MAX, shift in 0_u32..56, partial in 1_u64..=256) {
        for tile in [Tile::of_hashes(level, index >> shift, width(partial)), Tile::of_entries(index >> shift, width(partial))] {
            let tile = tile.expect("possible");
            prop_assert_eq!(Tile::parse(&tile.to_string()), Ok(tile));
        }
    }

    #[test]
    fn any_text_is_judged(path in "(tile/)?(entries|[0-9]{1,3})?/?(x?[0-9]{3}/?){0,8}(.p/[0-9]{0,3})?") {
        if let Ok(tile) = Tile::parse(&path) {
            prop_assert_eq!(tile.to_string(), path);
        }
    }

    #[test]
    fn each_level_has_the_tiles_that_are_in_the_tree(size in any::<u64>(), shift in 0_u32..64) {
        let size = size >> shift;
        for Level { level, full, partial } in levels(size) {
            if full > 0 {
                prop_assert!(Tile::of_hashes(level, full - 1, Width::FULL).expect("possible").is_in(size));
            }
            prop_assert!(!Tile::of_hashes(level, full, Width::FULL).expect("possible").is_in(size));
            if let Some(partial) = partial {
                prop_assert!(Tile::of_hashes(level, full, partial).expect("possible").is_in(size));
            }
        }
    }
}
