//! The tiles of a tree, c2sp.org/tlog-tiles v0.1: paths, tiles of hashes, entry bundles.

use crate::text::decimal;
use crate::tree::Hash;
use std::fmt;

/// How many hashes, or entries, a full tile holds.
pub const TILE_WIDTH: u64 = 256;
/// An entry's length is two bytes in a bundle ("Log entries").
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;
/// `<L>` is a number from 0 to 63 ("Merkle Tree"); a tree whose size is a u64 has hashes at levels 0 to 7.
const LEVEL_MAX: u64 = 63;
/// Tile n of level 0 begins at leaf 256 n, and a leaf's index is a u64.
const INDEX_MAX: u64 = u64::MAX / TILE_WIDTH;

/// Consecutive hashes of one level: at level 0 the hashes of leaves, above it the roots of complete subtrees of 256^level leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashRange {
    /// 0 for leaf hashes, 1 for the roots over 256 leaves, 2 over 65,536.
    pub level: u8,
    /// The first one's place in its level, from 0.
    pub first: u64,
    pub count: u64,
}

/// How much of a tile: 1 to 255 if it is partial, 256 if it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Width(u16);

impl Width {
    /// 256.
    pub const FULL: Width = Width(256);

    /// A width from 1 to 256.
    pub fn new(width: u64) -> Option<Self> {
        u16::try_from(width).ok().filter(|width| (1..=256).contains(width)).map(Self)
    }

    /// From 1 to 256.
    pub fn get(self) -> u64 {
        u64::from(self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `tile/<L>/…`: hashes of that level, 32 bytes each.
    Hashes(u8),
    /// `tile/entries/…`: the leaves themselves.
    Entries,
}

/// A tile or an entry bundle, full or partial, of any tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    content: Content,
    index: u64,
    width: Width,
}

/// A path is not that of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It is not `tile/<L>/<N>[.p/<W>]`.
    #[error("expected tile/<L>/<N>, tile/entries/<N>, or either with .p/<W>")]
    NotATile,
    /// `<L>` is neither `entries` nor a number up to 63.
    #[error("expected a level from 0 to 63 without leading zeros, or entries")]
    Level,
    /// `<N>` is not written as `x001/x234/067`, or beyond every tree.
    #[error("expected a tile's index in groups of three digits, such as x001/x234/067, below 2^56")]
    Index,
    /// `<W>` is not a number from 1 to 255.
    #[error("expected the width of a partial tile, from 1 to 255 without leading zeros")]
    Width,
}

impl Tile {
    /// The tile that holds these hashes; `None` if no tree is so large. Levels are 0 to 63, indexes below 2^56.
    pub fn of_hashes(level: u8, index: u64, width: Width) -> Option<Self> {
        let possible = u64::from(level) <= LEVEL_MAX && index <= INDEX_MAX;
        possible.then_some(Self { content: Content::Hashes(level), index, width })
    }

    /// The bundle that holds the leaves from 256 times `index`; `None` if no tree is so large.
    pub fn of_entries(index: u64, width: Width) -> Option<Self> {
        (index <= INDEX_MAX).then_some(Self { content: Content::Entries, index, width })
    }

    pub fn content(&self) -> Content {
        self.content
    }

    /// `<N>`, its place in its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn width(&self) -> Width {
        self.width
    }

    /// Reads a path below the log's prefix, without a slash in front. Each tile has one path.
    pub fn parse(path: &str) -> Result<Self, BadPath> {
        let (level, rest) =
            path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(BadPath::NotATile)?;
        let content = match level {
            "entries" => Content::Entries,
            _ => Content::Hashes(parse_level(level).ok_or(BadPath::Level)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, parse_partial_width(width).ok_or(BadPath::Width)?),
            None => (rest, Width::FULL),
        };
        Ok(Self { content, index: parse_index(index).ok_or(BadPath::Index)?, width })
    }

    /// The hashes in it; for a bundle, the hashes of its leaves: `first` is the first leaf's index.
    pub fn range(&self) -> HashRange {
        let level = match self.content {
            Content::Hashes(level) => level,
            Content::Entries => 0,
        };
        HashRange { level, first: self.index * TILE_WIDTH, count: self.width.get() }
    }

    /// Whether a tree of `size` leaves has all of it ("Partial Tiles"). A narrower part of a tile that has grown since is there
    /// still: what it holds never changes.
    pub fn is_in(&self, size: u64) -> bool {
        let HashRange { level, first, count } = self.range();
        let in_level = hashes_in_level(size, level);
        first < in_level && in_level - first >= count
    }
}

impl fmt::Display for Tile {
    /// Its path, as [`Tile::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups = format!("x{:03}/{groups}", rest % 1000);
            rest /= 1000;
        }
        f.write_str(&groups)?;
        if self.width < Width::FULL { write!(f, ".p/{}", self.width.get()) } else { Ok(()) }
    }
}

fn parse_level(text: &str) -> Option<u8> {
    decimal(text).filter(|level| *level <= LEVEL_MAX).and_then(|level| u8::try_from(level).ok())
}

fn parse_partial_width(text: &str) -> Option<Width> {
    decimal(text).and_then(Width::new).filter(|width| *width < Width::FULL)
}

fn parse_index(text: &str) -> Option<u64> {
    let (leading, last) = text.rsplit_once('/').map_or((None, text), |(leading, last)| (Some(leading), last));
    let mut index = 0_u64;
    for group in leading.into_iter().flat_map(|groups| groups.split('/')) {
        index = index.checked_mul(1000)?.checked_add(three_digits(group.strip_prefix('x')?)?)?;
        if index == 0 {
            return None; // x000/067 would be a second spelling of 067.
        }
    }
    index = index.checked_mul(1000)?.checked_add(three_digits(last)?)?;
    Some(index).filter(|index| *index <= INDEX_MAX)
}

fn three_digits(text: &str) -> Option<u64> {
    let is_group = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_group { text.parse().ok() } else { None }
}

/// `floor(size / 256^level)`.
fn hashes_in_level(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level) * 8).unwrap_or(0)
}

/// The tiles of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// From 0; the entry bundles are as those of level 0.
    pub level: u8,
    /// How many full tiles it has, with indexes from 0.
    pub full: u64,
    /// The width of the partial tile that comes after them, if there is one.
    pub partial: Option<Width>,
}

/// The tiles of a tree with `size` leaves, by level from 0, up to the last level that has any.
pub fn levels(size: u64) -> Vec<Level> {
    (0..8)
        .map(|level| (level, hashes_in_level(size, level)))
        .take_while(|(_, hashes)| *hashes > 0)
        .map(|(level, hashes)| Level { level, full: hashes / TILE_WIDTH, partial: Width::new(hashes % TILE_WIDTH) })
        .collect()
}

/// The bytes of a tile are not what its width asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTile {
    /// A tile of hashes of that width has another length in bytes.
    #[error("expected a tile of {expected} bytes, found {found}")]
    Length {
        /// 32 for each hash.
        expected: u64,
        found: u64,
    },
    /// A bundle ends within an entry, or before the last.
    #[error("expected more entries: the bundle ends before its width is reached")]
    BundleEnds,
    /// A bundle goes on behind its last entry.
    #[error("expected the bundle's end after its last entry")]
    BundleGoesOn,
}

/// The bytes of a tile of hashes.
pub fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// The hashes of a tile of that width.
pub fn decode_hashes(tile: &[u8], width: Width) -> Result<Vec<Hash>, BadTile> {
    let (hashes, rest) = tile.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() as u64 != width.get() {
        return Err(BadTile::Length { expected: width.get() * 32, found: tile.len() as u64 });
    }
    Ok(hashes.to_vec())
}

/// An entry is longer than 65,535 bytes, which no bundle can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an entry of at most {ENTRY_BYTES_MAX} bytes, found {length}", ENTRY_BYTES_MAX = ENTRY_BYTES_MAX)]
pub struct EntryTooLong {
    /// Its length in bytes.
    pub length: usize,
}

/// An entry bundle: each entry behind its length in two bytes, big-endian ("Log entries").
pub fn encode_bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, EntryTooLong> {
    let mut bundle = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong { length: entry.len() })?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// The entries of a bundle of that width.
pub fn decode_bundle(bundle: &[u8], width: Width) -> Result<Vec<&[u8]>, BadTile> {
    let mut rest = bundle;
    let mut entries = Vec::with_capacity(usize::from(width.0));
    for _ in 0..width.get() {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(BadTile::BundleEnds)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(BadTile::BundleEnds)?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(BadTile::BundleGoesOn) }
}

#[cfg(test)]
#[path = "tile_tests.rs"]
mod tests;
