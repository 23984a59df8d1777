//! Plans proofs over stored hashes: a plan lists the hashes to fetch, and then builds the proof from them.
//!
//! Only the hashes of leaves, and the roots of complete subtrees of 256^level leaves, are stored. A proof needs nodes;
//! each is a run of leaves that follows from few of the stored hashes. A plan asks for less than two tiles per level.
//!
//! ```text
//! InclusionPlan::new(index, size) → ranges() → the caller fetches → Hashes → build() → InclusionProof
//! ```

use crate::proof::{ConsistencyProof, InclusionProof};
use crate::tile::HashRange;
use crate::tree::{Hash, TreeHead, node_hash};
use std::collections::BTreeMap;

/// A plan for something that no tree has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// The leaf's index is not below the tree's size.
    #[error("expected a leaf index below the tree's size {size}, found {index}")]
    IndexBeyondTree { index: u64, size: u64 },
    /// The older tree is larger than the newer.
    #[error("expected an older tree of at most {new} leaves, found {old}")]
    OldLargerThanNew {
        /// The size of the older tree.
        old: u64,
        /// The size of the newer tree.
        new: u64,
    },
}

/// A hash that the plan asked for is not among those that were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the stored hash {index} of level {level}, which was not fetched")]
pub struct MissingHash {
    /// 0 for a leaf's hash.
    pub level: u8,
    /// Its place in its level.
    pub index: u64,
}

/// The hashes that were fetched, by level and place.
#[derive(Clone, Debug, Default)]
pub struct Hashes(BTreeMap<(u8, u64), Hash>);

impl Hashes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the hash of a leaf (level 0) or of a complete subtree of 256^level leaves.
    pub fn insert(&mut self, level: u8, index: u64, hash: Hash) {
        self.0.insert((level, index), hash);
    }

    /// The hashes of a range, in their order: those of a tile.
    pub fn of_range(&self, range: &HashRange) -> Result<Vec<Hash>, MissingHash> {
        (range.first..range.first.saturating_add(range.count)).map(|index| self.get(range.level, index)).collect()
    }

    fn get(&self, level: u8, index: u64) -> Result<Hash, MissingHash> {
        self.0.get(&(level, index)).copied().ok_or(MissingHash { level, index })
    }
}

impl FromIterator<(u8, u64, Hash)> for Hashes {
    fn from_iter<I: IntoIterator<Item = (u8, u64, Hash)>>(hashes: I) -> Self {
        Self(hashes.into_iter().map(|(level, index, hash)| ((level, index), hash)).collect())
    }
}

/// A node of the tree: the leaves from `start` up to `end`, as RFC 6962 splits them off.
///
/// So its size in binary says of which perfect subtrees it consists, the largest first, each aligned to its own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    start: u64,
    end: u64,
}

impl Node {
    /// The stored hashes that each of its perfect subtrees consists of: 1 to 128 siblings of one level.
    fn perfect_subtrees(self) -> impl DoubleEndedIterator<Item = HashRange> {
        let size = self.end - self.start;
        (0..u64::BITS).rev().filter(move |height| size >> height & 1 == 1).map(move |height| {
            let before = if height == 63 { 0 } else { size >> (height + 1) << (height + 1) };
            let level = height / 8;
            HashRange {
                level: u8::try_from(level).expect("at most 7"),
                first: (self.start + before) >> (8 * level),
                count: 1 << (height % 8),
            }
        })
    }

    /// RFC 6962 §2.1's `MTH(D[start:end])`.
    fn hash(self, hashes: &Hashes) -> Result<Hash, MissingHash> {
        let mut from_the_right = self.perfect_subtrees().rev().map(|subtree| perfect_root(subtree, hashes));
        let Some(smallest) = from_the_right.next() else { return Ok(TreeHead::EMPTY.root) };
        from_the_right.try_fold(smallest?, |right, left| Ok(node_hash(&left?, &right)))
    }
}

/// The root over siblings whose number is a power of two.
fn perfect_root(siblings: HashRange, hashes: &Hashes) -> Result<Hash, MissingHash> {
    let mut row = (siblings.first..siblings.first + siblings.count)
        .map(|index| hashes.get(siblings.level, index))
        .collect::<Result<Vec<_>, _>>()?;
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    Ok(row[0])
}

/// §2.1: the largest power of two smaller than `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The ranges to fetch for these nodes: disjoint, by level and place, and as few as they can be.
fn ranges(nodes: &[Node]) -> Vec<HashRange> {
    let mut parts: Vec<HashRange> = nodes.iter().flat_map(|node| node.perfect_subtrees()).collect();
    parts.sort_unstable();
    let mut merged: Vec<HashRange> = Vec::new();
    for part in parts {
        match merged.last_mut() {
            Some(last) if last.level == part.level && last.first + last.count == part.first => last.count += part.count,
            _ => merged.push(part),
        }
    }
    merged
}

fn build(nodes: &[Node], hashes: &Hashes) -> Result<Vec<Hash>, MissingHash> {
    nodes.iter().map(|node| node.hash(hashes)).collect()
}

/// What the proof that a leaf is in a tree needs.
#[derive(Clone, Debug)]
pub struct InclusionPlan {
    index: u64,
    nodes: Vec<Node>,
}

impl InclusionPlan {
    /// RFC 6962 §2.1.1: `PATH(index, D[size])`.
    pub fn new(index: u64, size: u64) -> Result<Self, Impossible> {
        if index >= size {
            return Err(Impossible::IndexBeyondTree { index, size });
        }
        let (mut start, mut end) = (0, size);
        let mut nodes = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                nodes.push(Node { start: middle, end });
                end = middle;
            } else {
                nodes.push(Node { start, end: middle });
                start = middle;
            }
        }
        nodes.reverse();
        Ok(Self { index, nodes })
    }

    pub fn ranges(&self) -> Vec<HashRange> {
        ranges(&self.nodes)
    }

    /// The proof, from what was fetched.
    pub fn build(&self, hashes: &Hashes) -> Result<InclusionProof, MissingHash> {
        Ok(InclusionProof { index: self.index, path: build(&self.nodes, hashes)? })
    }
}

/// What the proof that a tree grew out of another needs.
#[derive(Clone, Debug)]
pub struct ConsistencyPlan {
    nodes: Vec<Node>,
}

impl ConsistencyPlan {
    /// RFC 6962 §2.1.2: `PROOF(old, D[new])`. From the empty tree, and from a tree to itself, the proof is empty.
    pub fn new(old: u64, new: u64) -> Result<Self, Impossible> {
        if old > new {
            return Err(Impossible::OldLargerThanNew { old, new });
        }
        let mut nodes = Vec::new();
        if old > 0 {
            let (mut start, mut end) = (0, new);
            while old < end {
                let middle = start + split(end - start);
                if old <= middle {
                    nodes.push(Node { start: middle, end });
                    end = middle;
                } else {
                    nodes.push(Node { start, end: middle });
                    start = middle;
                }
            }
            // What is left is the old tree's last perfect subtree. If it is all of the old tree, its root is known.
            if start > 0 {
                nodes.push(Node { start, end });
            }
            nodes.reverse();
        }
        Ok(Self { nodes })
    }

    pub fn ranges(&self) -> Vec<HashRange> {
        ranges(&self.nodes)
    }

    /// The proof, from what was fetched.
    pub fn build(&self, hashes: &Hashes) -> Result<ConsistencyProof, MissingHash> {
        Ok(ConsistencyProof { path: build(&self.nodes, hashes)? })
    }
}

/// What the root at one size needs: also at a size that the tree has left behind.
#[derive(Clone, Debug)]
pub struct RootPlan {
    size: u64,
}

impl RootPlan {
    /// The root over the first `size` leaves.
    pub fn new(size: u64) -> Self {
        Self { size }
    }

    fn node(&self) -> Node {
        Node { start: 0, end: self.size }
    }

    pub fn ranges(&self) -> Vec<HashRange> {
        ranges(&[self.node()])
    }

    /// The tree's head, from what was fetched.
    pub fn build(&self, hashes: &Hashes) -> Result<TreeHead, MissingHash> {
        Ok(TreeHead { size: self.size, root: self.node().hash(hashes)? })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
