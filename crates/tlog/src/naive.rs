//! A reference implementation for this crate's tests: RFC 6962's recursive definitions, word for word, and a tree with
//! published hashes.

use crate::tree::{Hash, leaf_hash, node_hash};
use sha2::{Digest, Sha256};

/// §2.1: "the largest power of two smaller than n".
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// §2.1: `MTH(D[n])`.
pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
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
pub(crate) fn naive_inclusion(index: usize, leaves: &[Hash]) -> Vec<Hash> {
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
pub(crate) fn naive_consistency(old: usize, leaves: &[Hash]) -> Vec<Hash> {
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
pub(crate) fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

/// A hash as it is published.
pub(crate) fn hash(hex: &str) -> Hash {
    let byte = |place| u8::from_str_radix(&hex[place..place + 2], 16).expect("hexadecimal");
    std::array::from_fn(|index| byte(index * 2))
}

/// The tree of eight leaves that the tests of Certificate Transparency and of transparency-dev/merkle share.
pub(crate) const SHARED_LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// The roots of its first leaves, one for each size from 1.
pub(crate) const SHARED_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
