use super::*;
use crate::naive::{SHARED_LEAVES, SHARED_ROOTS, hash, leaves, naive_consistency, naive_inclusion, naive_root};
use crate::tree::leaf_hash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;

const NODE_1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const NODE_2_3: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const NODE_4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const NODE_4_5: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const NODE_4_7: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const NODE_6: &str = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f";
const NODE_6_7: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";

/// Published proofs of inclusion in that tree: index, size, path.
const SHARED_INCLUSION: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (0, 8, &[NODE_1, NODE_2_3, NODE_4_7]),
    (5, 8, &[NODE_4, NODE_6_7, SHARED_ROOTS[3]]),
    (2, 3, &[SHARED_ROOTS[1]]),
    (1, 5, &[SHARED_ROOTS[0], NODE_2_3, NODE_4]),
];

/// Published proofs of consistency in that tree: old size, new size, path.
const SHARED_CONSISTENCY: [(u64, u64, &[&str]); 5] = [
    (1, 1, &[]),
    (1, 8, &[NODE_1, NODE_2_3, NODE_4_7]),
    (6, 8, &[NODE_4_5, NODE_6_7, SHARED_ROOTS[3]]),
    (2, 5, &[NODE_2_3, NODE_4]),
    (6, 7, &[NODE_4_5, NODE_6, SHARED_ROOTS[3]]),
];

fn shared_head(size: u64) -> TreeHead {
    TreeHead { size, root: hash(SHARED_ROOTS[usize::try_from(size).expect("small") - 1]) }
}

/// Every wrong path that is one step away from a right one.
fn wrong_paths(path: &[Hash], roots: [Hash; 2]) -> Vec<Vec<Hash>> {
    let mut wrong = Vec::new();
    for index in 0..path.len() {
        let mut flipped = path.to_vec();
        flipped[index][0] ^= 8;
        wrong.push(flipped);
        let mut shorter = path.to_vec();
        shorter.remove(index);
        wrong.push(shorter);
        let mut swapped = path.to_vec();
        swapped.swap(index, path.len() - 1);
        wrong.push(swapped);
    }
    for hash in roots.into_iter().chain(path.first().copied()).chain([TreeHead::EMPTY.root]) {
        for place in 0..=path.len() {
            let mut longer = path.to_vec();
            longer.insert(place, hash);
            wrong.push(longer);
        }
    }
    wrong.retain(|other| other != path);
    wrong
}

fn check_inclusion(leaf: &Hash, proof: &InclusionProof, tree: &TreeHead) {
    assert_eq!(proof.verify(leaf, tree), Ok(()));
    let InclusionProof { index, path } = proof;
    for other in [index.wrapping_sub(1), index + 1, index ^ 2] {
        assert!(InclusionProof { index: other, path: path.clone() }.verify(leaf, tree).is_err(), "index {other}");
    }
    for size in [0, tree.size * 2, tree.size / 2, index.wrapping_sub(1)].into_iter().filter(|size| *size != tree.size) {
        assert!(proof.verify(leaf, &TreeHead { size, ..*tree }).is_err(), "index {index}, size {size}");
    }
    let mut other_root = *tree;
    other_root.root[31] ^= 1;
    assert_eq!(proof.verify(leaf, &other_root), Err(ProofError::AnotherRoot));
    assert!(proof.verify(&[7; 32], tree).is_err());
    for path in wrong_paths(path, [tree.root, *leaf]) {
        assert!(InclusionProof { index: *index, path }.verify(leaf, tree).is_err());
    }
}

fn check_consistency(proof: &ConsistencyProof, old: &TreeHead, new: &TreeHead) {
    assert_eq!(proof.verify(old, new), Ok(()));
    let fails = |proof: &ConsistencyProof, old: TreeHead, new: TreeHead| assert!(proof.verify(&old, &new).is_err());
    fails(proof, TreeHead { root: [7; 32], ..*old }, *new);
    fails(proof, *old, TreeHead { root: [7; 32], ..*new });
    for path in wrong_paths(&proof.path, [old.root, new.root]) {
        fails(&ConsistencyProof { path }, *old, *new);
    }
    if old.size != new.size {
        fails(proof, *new, *old);
        fails(proof, TreeHead { size: old.size, ..*new }, TreeHead { size: new.size, ..*old });
        fails(proof, TreeHead { size: old.size + 1, ..*old }, *new);
        fails(proof, TreeHead { size: old.size - 1, ..*old }, *new);
        fails(&ConsistencyProof { path: Vec::new() }, *old, *new);
    }
}

#[test]
fn the_published_proofs_hold_and_what_is_near_them_does_not() {
    for (index, size, path) in SHARED_INCLUSION {
        let proof = InclusionProof { index, path: path.iter().map(|hex| hash(hex)).collect() };
        let leaf = leaf_hash(SHARED_LEAVES[usize::try_from(index).expect("small")]);
        check_inclusion(&leaf, &proof, &shared_head(size));
    }
    for (old, new, path) in SHARED_CONSISTENCY {
        let proof = ConsistencyProof { path: path.iter().map(|hex| hash(hex)).collect() };
        check_consistency(&proof, &shared_head(old), &shared_head(new));
    }
}

#[test]
fn nothing_is_in_an_empty_tree() {
    for (index, size) in [(0, 0), (1, 0), (1, 1), (2, 1), (u64::MAX, u64::MAX)] {
        let proof = InclusionProof { index, path: Vec::new() };
        let tree = TreeHead { size, root: TreeHead::EMPTY.root };
        assert_eq!(proof.verify(&TreeHead::EMPTY.root, &tree), Err(ProofError::IndexBeyondTree));
    }
}

#[test]
fn the_edges_of_consistency() {
    let (one, other) = (TreeHead { size: 1, root: [1; 32] }, TreeHead { size: 1, root: [2; 32] });
    let two = TreeHead { size: 2, root: [3; 32] };
    let forged = TreeHead { size: 0, root: [1; 32] };
    let empty = ConsistencyProof { path: Vec::new() };
    let longer = ConsistencyProof { path: vec![TreeHead::EMPTY.root] };
    for (proof, old, new, verdict) in [
        (&empty, TreeHead::EMPTY, TreeHead::EMPTY, Ok(())),
        (&empty, TreeHead::EMPTY, one, Ok(())),
        (&empty, one, one, Ok(())),
        (&empty, one, other, Err(ProofError::AnotherRoot)),
        (&empty, forged, one, Err(ProofError::EmptyTreeWithRoot)),
        (&empty, TreeHead::EMPTY, forged, Err(ProofError::EmptyTreeWithRoot)),
        (&empty, one, TreeHead::EMPTY, Err(ProofError::OldLargerThanNew)),
        (&empty, two, one, Err(ProofError::OldLargerThanNew)),
        (&empty, one, two, Err(ProofError::TooShort)),
        (&longer, TreeHead::EMPTY, TreeHead::EMPTY, Err(ProofError::TooLong)),
        (&longer, TreeHead::EMPTY, one, Err(ProofError::TooLong)),
        (&longer, one, one, Err(ProofError::TooLong)),
    ] {
        assert_eq!(proof.verify(&old, &new), verdict, "{old:?} {new:?}");
    }
}

#[test]
fn a_path_has_at_most_64_hashes() {
    let proof = |length| InclusionProof { index: u64::MAX - 1, path: vec![[0; 32]; length] };
    let tree = TreeHead { size: u64::MAX, root: [0; 32] };
    let verdicts: Vec<_> = (0..200).map(|length| proof(length).verify(&[0; 32], &tree)).collect();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Err(ProofError::AnotherRoot)).count(), 1);
    assert!(verdicts[PATH_MAX + 1..].iter().all(|verdict| *verdict == Err(ProofError::TooLong)));
}

/// Each leaf of each tree, and each pair of trees: RFC 6962's definitions make the proofs, RFC 9162's algorithms check them.
#[test]
fn every_proof_of_every_small_tree_holds() {
    for size in 1..=130 {
        let leaves = leaves(size);
        let tree = TreeHead { size: size as u64, root: naive_root(&leaves) };
        for (index, leaf) in leaves.iter().enumerate() {
            let proof = InclusionProof { index: index as u64, path: naive_inclusion(index, &leaves) };
            assert_eq!(proof.verify(leaf, &tree), Ok(()), "leaf {index} of {size}");
        }
        for old in 1..=size {
            let proof = ConsistencyProof { path: naive_consistency(old, &leaves) };
            let older = TreeHead { size: old as u64, root: naive_root(&leaves[..old]) };
            assert_eq!(proof.verify(&older, &tree), Ok(()), "{old} to {size}");
        }
    }
}

/// ct-merkle makes the proofs.
#[test]
fn the_proofs_of_another_implementation_hold() {
    let mut tree = MemoryBackedTree::<Sha256, _>::new();
    let mut heads = vec![TreeHead::EMPTY];
    for size in 1..=70_usize {
        tree.push((size - 1).to_be_bytes());
        let head = TreeHead { size: size as u64, root: (*tree.root().as_bytes()).into() };
        assert_eq!(head.root, naive_root(&leaves(size)));
        for (index, leaf) in leaves(size).iter().enumerate() {
            let path = tree.prove_inclusion(index).as_bytes().as_chunks::<32>().0.to_vec();
            assert_eq!(InclusionProof { index: index as u64, path }.verify(leaf, &head), Ok(()));
        }
        for (old, older) in heads.iter().enumerate().skip(1) {
            let path = tree.prove_consistency(size - old).as_bytes().as_chunks::<32>().0.to_vec();
            assert_eq!(ConsistencyProof { path }.verify(older, &head), Ok(()));
        }
        heads.push(head);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn wrong_proofs_are_refused(size in 1_usize..600, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let leaves = leaves(size);
        let tree = TreeHead { size: size as u64, root: naive_root(&leaves) };
        let index = index.index(size);
        let proof = InclusionProof { index: index as u64, path: naive_inclusion(index, &leaves) };
        check_inclusion(&leaves[index], &proof, &tree);
        let old = old.index(size) + 1;
        let older = TreeHead { size: old as u64, root: naive_root(&leaves[..old]) };
        check_consistency(&ConsistencyProof { path: naive_consistency(old, &leaves) }, &older, &tree);
    }

    /// Another implementation and this one say the same of any path.
    #[test]
    fn two_implementations_agree(
        index in 0_u64..40, old in 1_u64..40, more in 0_u64..40,
        picks in prop::collection::vec(0_usize..12, 0..8), seeds in prop::collection::vec(any::<[u8; 32]>(), 4),
    ) {
        // Nodes of a real tree, so that paths are right now and then, and others.
        let (size, old) = (old + more, old);
        let leaves = leaves(usize::try_from(size).expect("small"));
        let right = naive_consistency(usize::try_from(old).expect("small"), &leaves);
        let path: Vec<Hash> = picks.iter().map(|pick| right.get(*pick).copied().unwrap_or(seeds[pick % 4])).collect();
        let new = TreeHead { size, root: naive_root(&leaves) };
        let older = TreeHead { size: old, root: naive_root(&leaves[..usize::try_from(old).expect("small")]) };
        for path in [path, right] {
            let ours = ConsistencyProof { path: path.clone() }.verify(&older, &new).is_ok();
            let root = |head: &TreeHead| ct_merkle::RootHash::<Sha256>::new(head.root.into(), head.size);
            let theirs = ct_merkle::ConsistencyProof::try_from_bytes(path.concat()).expect("whole hashes");
            prop_assert_eq!(ours, root(&new).verify_consistency(&root(&older), &theirs).is_ok());
            if index < size {
                let ours = InclusionProof { index, path: path.clone() };
                let leaf = usize::try_from(index).expect("small");
                let theirs = ct_merkle::InclusionProof::try_from_bytes(path.concat()).expect("whole hashes");
                let verdict = root(&new).verify_inclusion(&leaf.to_be_bytes(), index, &theirs).is_ok();
                prop_assert_eq!(ours.verify(&leaves[leaf], &new).is_ok(), verdict);
            }
        }
    }

    #[test]
    fn any_proof_about_any_tree_is_judged(
        index in any::<u64>(), old in any::<u64>(), new in any::<u64>(), path in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let head = |size| TreeHead { size, root: [0; 32] };
        let inclusion = InclusionProof { index, path: path.clone() };
        prop_assert!(inclusion.verify(&[1; 32], &head(new)).is_err());
        let same = old == new && old > 0 && path.is_empty();
        prop_assert_eq!(ConsistencyProof { path }.verify(&head(old), &head(new)).is_ok(), same);
    }
}
