//! RFC 6962's proofs of inclusion and of consistency, verified by the algorithms of RFC 9162.

use crate::tree::{Hash, TreeHead, node_hash};

/// No proof of inclusion in a tree of fewer than 2^64 leaves has more hashes.
pub const PATH_MAX: usize = 64;

/// RFC 6962 §2.1.1: the hashes that lead from a leaf to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The leaf's index, from 0.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub path: Vec<Hash>,
}

/// RFC 6962 §2.1.2: the hashes that lead from a tree's root to that of a tree which begins with the same leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// Empty if the older tree is empty, or is the newer.
    pub path: Vec<Hash>,
}

/// A proof does not prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf's index is not below the tree's size.
    #[error("expected a leaf index below the tree's size")]
    IndexBeyondTree,
    /// The older tree is larger than the newer.
    #[error("expected the older tree to be no larger than the newer")]
    OldLargerThanNew,
    /// An empty tree has another root than SHA-256 of nothing.
    #[error("expected the root of an empty tree, SHA-256 of nothing")]
    EmptyTreeWithRoot,
    /// The path ends below the root.
    #[error("expected more hashes: the proof ends below the root")]
    TooShort,
    /// The path goes on when the root is reached.
    #[error("expected fewer hashes: the proof goes on beyond the root")]
    TooLong,
    /// The path leads to another root than the tree's; of a consistency proof, the newer tree's.
    #[error("expected the proof to lead to the tree's root, and it leads to another")]
    AnotherRoot,
    /// The path leads to another root than the older tree's.
    #[error("expected the proof to lead to the older tree's root, and it leads to another")]
    AnotherOldRoot,
}

/// Where a path is on its way up: the place of its node and of the tree's last node, in the same row.
struct Climb {
    place: u64,
    last: u64,
}

impl Climb {
    fn at_root(&self) -> bool {
        self.last == 0
    }

    /// Whether the next hash of the path stands to the left of the node.
    fn sibling_is_left(&self) -> bool {
        self.place & 1 == 1 || self.place == self.last
    }

    /// Goes up over a sibling. A last node without a right sibling was passed up unchanged, row by row, until it had a left one.
    fn up(&mut self) {
        if self.place == self.last && self.place & 1 == 0 {
            let rows = self.place.trailing_zeros().min(63);
            self.place >>= rows;
            self.last >>= rows;
        }
        self.place >>= 1;
        self.last >>= 1;
    }
}

impl InclusionProof {
    /// RFC 9162 §2.1.3.2: whether the leaf with this hash is at the proof's index in the tree.
    pub fn verify(&self, leaf_hash: &Hash, tree: &TreeHead) -> Result<(), ProofError> {
        if self.index >= tree.size {
            return Err(ProofError::IndexBeyondTree);
        }
        let mut climb = Climb { place: self.index, last: tree.size - 1 };
        let mut node = *leaf_hash;
        for sibling in &self.path {
            if climb.at_root() {
                return Err(ProofError::TooLong);
            }
            node = if climb.sibling_is_left() { node_hash(sibling, &node) } else { node_hash(&node, sibling) };
            climb.up();
        }
        if !climb.at_root() {
            return Err(ProofError::TooShort);
        }
        if node == tree.root { Ok(()) } else { Err(ProofError::AnotherRoot) }
    }
}

impl ConsistencyProof {
    /// RFC 9162 §2.1.4.2: whether the newer tree begins with the leaves of the older, in their order.
    pub fn verify(&self, old: &TreeHead, new: &TreeHead) -> Result<(), ProofError> {
        if old.size > new.size {
            return Err(ProofError::OldLargerThanNew);
        }
        if [old, new].iter().any(|tree| tree.size == 0 && **tree != TreeHead::EMPTY) {
            return Err(ProofError::EmptyTreeWithRoot);
        }
        if old.size == 0 || old.size == new.size {
            return match () {
                () if !self.path.is_empty() => Err(ProofError::TooLong),
                () if old.size == new.size && old.root != new.root => Err(ProofError::AnotherRoot),
                () => Ok(()),
            };
        }
        self.climb(old, new)
    }

    /// The way up from the older tree's last perfect subtree, for 0 < old < new.
    fn climb(&self, old: &TreeHead, new: &TreeHead) -> Result<(), ProofError> {
        let mut siblings = self.path.iter();
        let first = if old.size.is_power_of_two() { Some(&old.root) } else { siblings.next() };
        let first = *first.ok_or(ProofError::TooShort)?;
        let rows = old.size.trailing_zeros();
        let mut climb = Climb { place: (old.size - 1) >> rows, last: (new.size - 1) >> rows };
        let (mut old_node, mut new_node) = (first, first);
        for sibling in siblings {
            if climb.at_root() {
                return Err(ProofError::TooLong);
            }
            if climb.sibling_is_left() {
                old_node = node_hash(sibling, &old_node);
                new_node = node_hash(sibling, &new_node);
            } else {
                new_node = node_hash(&new_node, sibling);
            }
            climb.up();
        }
        match () {
            () if !climb.at_root() => Err(ProofError::TooShort),
            () if old_node != old.root => Err(ProofError::AnotherOldRoot),
            () if new_node != new.root => Err(ProofError::AnotherRoot),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
