//! The frontier of an RFC 6962 tree: appends leaf hashes, computes the root, and reports the complete subtrees of
//! 256^level leaves.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// A tile of tlog-tiles spans 2^8 nodes, so a complete subtree is kept at every eighth height.
const TILE_HEIGHT: u32 = 8;

/// A tree at one size: all that a checkpoint says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// How many leaves it has.
    pub size: u64,
    /// RFC 6962's `MTH(D[size])`.
    pub root: Hash,
}

impl TreeHead {
    /// The tree without leaves; its root is SHA-256 of nothing.
    pub const EMPTY: TreeHead = TreeHead {
        size: 0,
        root: [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae,
            0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
        ],
    };
}

/// A subtree of 256^level leaves that is complete, and so never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// 1 for 256 leaves, 2 for 65,536.
    pub level: i16,
    /// Its place among the subtrees of its level, from 0.
    pub index: i64,
    pub hash: Hash,
}

/// The perfect subtrees that cover a tree's leaves, largest first: all that an append needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

/// The stored frontier does not fit the stored size: the head row was tampered with.
#[derive(Debug, PartialEq, Eq)]
pub struct BrokenFrontier;

impl Frontier {
    pub const EMPTY: Frontier = Frontier { size: 0, roots: Vec::new() };

    /// Takes up a stored frontier again: one hash for each bit that is set in `size`.
    pub fn restore(size: u64, stored: &[u8]) -> Result<Self, BrokenFrontier> {
        let (hashes, rest) = stored.as_chunks::<32>();
        if !rest.is_empty() || hashes.len() != size.count_ones() as usize {
            return Err(BrokenFrontier);
        }
        Ok(Self { size, roots: hashes.to_vec() })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes, to be stored and restored.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.roots.concat()
    }

    /// Appends a leaf. Subtrees that it completes are pushed onto `completed`, the smallest first.
    pub fn append(&mut self, leaf_hash: Hash, completed: &mut Vec<Subtree>) {
        let mut node = leaf_hash;
        // Each bit set at the low end of the size is a perfect subtree that the new node joins.
        for height in 1..=self.size.trailing_ones() {
            let left = self.roots.pop().expect("one root for each bit of the size");
            node = node_hash(&left, &node);
            if height.is_multiple_of(TILE_HEIGHT) {
                completed.push(Subtree {
                    level: i16::try_from(height / TILE_HEIGHT).expect("at most 8 levels"),
                    index: i64::try_from(self.size >> height).expect("a leaf index fits"),
                    hash: node,
                });
            }
        }
        self.roots.push(node);
        self.size += 1;
    }

    /// The root of the whole tree; for the empty tree, SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let mut from_the_right = self.roots.iter().rev();
        let Some(smallest) = from_the_right.next() else { return TreeHead::EMPTY.root };
        from_the_right.fold(*smallest, |right, left| node_hash(left, &right))
    }

    /// The tree as it is now.
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root() }
    }
}

/// RFC 6962 §2.1: SHA-256 over a zero byte and the leaf's bytes.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(leaf);
    hasher.finalize().into()
}

/// RFC 6962 §2.1: SHA-256 over a one byte and both children.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{SHARED_LEAVES, SHARED_ROOTS, hash, leaves, naive_root};
    use proptest::prelude::*;

    #[test]
    fn the_small_trees_have_their_published_roots() {
        let mut frontier = Frontier::EMPTY;
        assert_eq!(frontier.root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        for (input, root) in SHARED_LEAVES.iter().zip(SHARED_ROOTS) {
            frontier.append(leaf_hash(input), &mut Vec::new());
            assert_eq!(frontier.root(), hash(root));
        }
    }

    #[test]
    fn a_frontier_that_does_not_fit_its_size_is_refused() {
        assert_eq!(Frontier::restore(3, &[0; 32]), Err(BrokenFrontier));
        assert_eq!(Frontier::restore(1, &[0; 31]), Err(BrokenFrontier));
        assert!(Frontier::restore(3, &[0; 64]).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_tree_grown_in_any_steps_is_the_naive_tree(size in 1_usize..1400, step in 1_usize..300) {
            let leaves = leaves(size);
            let mut frontier = Frontier::EMPTY;
            let mut completed = Vec::new();
            for chunk in leaves.chunks(step) {
                frontier = Frontier::restore(frontier.size(), &frontier.to_bytes()).expect("as stored");
                for leaf in chunk {
                    frontier.append(*leaf, &mut completed);
                }
            }
            prop_assert_eq!(frontier.root(), naive_root(&leaves));
            prop_assert_eq!(completed.len(), size / 256);
            for subtree in completed {
                let first = usize::try_from(subtree.index).expect("small") * 256;
                prop_assert_eq!(subtree.level, 1);
                prop_assert_eq!(subtree.hash, naive_root(&leaves[first..first + 256]));
            }
        }
    }
}
