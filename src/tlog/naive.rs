//! What does RFC 6962 itself say? Its recursive definitions, word for word: what the tests of this folder compare with.

use super::tree::{Hash, leaf_hash, node_hash};
use sha2::{Digest, Sha256};

/// §2.1: "the largest power of two smaller than n".
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// §2.1: `MTH(D[n])`.
pub(super) fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// §2.1.1: `PATH(m, D[n])`.
pub(super) fn naive_inclusion(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) = if index < middle {
        (naive_inclusion(index, left), right)
    } else {
        (naive_inclusion(index - middle, right), left)
    };
    path.push(naive_root(sibling));
    path
}

/// §2.1.2: `PROOF(m, D[n])`.
pub(super) fn naive_consistency(old: usize, leaves: &[Hash]) -> Vec<Hash> {
    fn subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if known { Vec::new() } else { vec![naive_root(leaves)] };
        }
        let middle = split(leaves.len());
        let (left, right) = leaves.split_at(middle);
        let (mut path, other) = if old <= middle {
            (subproof(old, left, known), right)
        } else {
            (subproof(old - middle, right, false), left)
        };
        path.push(naive_root(other));
        path
    }
    if old == 0 { Vec::new() } else { subproof(old, leaves, true) }
}

/// The leaves of a tree for tests: leaf i is i in eight bytes.
pub(super) fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}
