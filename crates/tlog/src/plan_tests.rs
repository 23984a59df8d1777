use super::*;
use crate::naive::{leaves, naive_consistency, naive_inclusion, naive_root};
use crate::tree::Frontier;
use proptest::prelude::*;

/// What the database stores of these leaves: themselves, and the subtrees that the frontier completed.
fn stored(leaves: &[Hash]) -> Hashes {
    let mut frontier = Frontier::EMPTY;
    let mut completed = Vec::new();
    for leaf in leaves {
        frontier.append(*leaf, &mut completed);
    }
    let mut hashes: Hashes = leaves.iter().enumerate().map(|(index, hash)| (0, index as u64, *hash)).collect();
    for subtree in completed {
        let level = u8::try_from(subtree.level).expect("small");
        hashes.insert(level, u64::try_from(subtree.index).expect("not negative"), subtree.hash);
    }
    hashes
}

/// What a caller fetches: exactly what the plan asks for.
fn fetch(ranges: &[HashRange], stored: &Hashes) -> Hashes {
    let mut fetched = Hashes::new();
    for range in ranges {
        for index in range.first..range.first + range.count {
            fetched.insert(range.level, index, stored.get(range.level, index).expect("stored"));
        }
    }
    fetched
}

fn check_inclusion(index: usize, leaves: &[Hash], stored: &Hashes) {
    let plan = InclusionPlan::new(index as u64, leaves.len() as u64).expect("in the tree");
    let proof = plan.build(&fetch(&plan.ranges(), stored)).expect("all that it asked for");
    assert_eq!(proof, InclusionProof { index: index as u64, path: naive_inclusion(index, leaves) });
}

fn check_consistency(old: usize, leaves: &[Hash], stored: &Hashes) {
    let plan = ConsistencyPlan::new(old as u64, leaves.len() as u64).expect("in order");
    let proof = plan.build(&fetch(&plan.ranges(), stored)).expect("all that it asked for");
    assert_eq!(proof.path, naive_consistency(old, leaves));
}

fn head(size: usize, stored: &Hashes) -> TreeHead {
    let plan = RootPlan::new(size as u64);
    plan.build(&fetch(&plan.ranges(), stored)).expect("all that it asked for")
}

#[test]
fn every_plan_of_every_small_tree_makes_the_rfcs_proof() {
    let all = leaves(300);
    let stored = stored(&all);
    for size in (0..=66).chain(126..=130).chain(254..=259).chain([300]) {
        let leaves = &all[..size];
        assert_eq!(head(size, &stored), TreeHead { size: size as u64, root: naive_root(leaves) });
        for index in 0..size {
            check_inclusion(index, leaves, &stored);
            check_consistency(index + 1, leaves, &stored);
        }
        check_consistency(0, leaves, &stored);
    }
}

#[test]
fn a_large_tree_is_read_in_few_ranges() {
    let all = leaves(70_000);
    let stored = stored(&all);
    let tree = head(70_000, &stored);
    for index in [0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
        let plan = InclusionPlan::new(index, 70_000).expect("in the tree");
        assert!(plan.ranges().len() <= 6, "{:?}", plan.ranges());
        assert!(plan.ranges().iter().all(|range| range.count < 2 * 256));
        let proof = plan.build(&fetch(&plan.ranges(), &stored)).expect("all that it asked for");
        assert_eq!(proof.verify(&all[usize::try_from(index).expect("small")], &tree), Ok(()));
    }
    for old in [1, 255, 256, 257, 65_535, 65_536, 65_537, 69_888, 69_999, 70_000] {
        let plan = ConsistencyPlan::new(old as u64, 70_000).expect("in order");
        assert!(plan.ranges().len() <= 6, "{:?}", plan.ranges());
        let proof = plan.build(&fetch(&plan.ranges(), &stored)).expect("all that it asked for");
        assert_eq!(proof.verify(&head(old, &stored), &tree), Ok(()));
    }
}

#[test]
fn what_no_tree_has_is_refused() {
    let beyond = InclusionPlan::new(3, 3).expect_err("only 0 to 2");
    assert_eq!(beyond, Impossible::IndexBeyondTree { index: 3, size: 3 });
    assert_eq!(InclusionPlan::new(0, 0).expect_err("empty"), Impossible::IndexBeyondTree { index: 0, size: 0 });
    let reversed = ConsistencyPlan::new(4, 3).expect_err("reversed");
    assert_eq!(reversed, Impossible::OldLargerThanNew { old: 4, new: 3 });
}

#[test]
fn a_hash_that_was_not_fetched_is_named() {
    let plan = InclusionPlan::new(0, 257).expect("in the tree");
    let expected = [HashRange { level: 0, first: 1, count: 256 }];
    assert_eq!(plan.ranges(), expected);
    assert_eq!(plan.build(&Hashes::new()), Err(MissingHash { level: 0, index: 1 }));
    let plan = InclusionPlan::new(256, 257).expect("in the tree");
    assert_eq!(plan.ranges(), [HashRange { level: 1, first: 0, count: 1 }]);
    assert_eq!(plan.build(&Hashes::new()), Err(MissingHash { level: 1, index: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_plan_makes_the_rfcs_proof(
        size in 1_usize..3000, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(),
    ) {
        let leaves = leaves(size);
        let stored = stored(&leaves);
        check_inclusion(index.index(size), &leaves, &stored);
        check_consistency(old.index(size), &leaves, &stored);
        prop_assert_eq!(head(size, &stored).root, naive_root(&leaves));
    }

    /// However large the tree: each hash that is asked for is complete in it, each is asked for once, and they are few.
    #[test]
    fn every_plan_asks_for_what_is_stored(a in any::<u64>(), b in any::<u64>(), shift in 0_u32..64) {
        let (low, size) = ((a >> shift).min(b >> shift), (a >> shift).max(b >> shift));
        let mut plans = vec![ConsistencyPlan::new(low, size).expect("in order").ranges(), RootPlan::new(size).ranges()];
        if low < size {
            plans.push(InclusionPlan::new(low, size).expect("in the tree").ranges());
        }
        for ranges in plans {
            for HashRange { level, first, count } in &ranges {
                prop_assert!(first + count <= size >> (8 * level));
            }
            prop_assert!(ranges.is_sorted_by(|one, next| one.level < next.level || one.first + one.count < next.first));
            prop_assert!(ranges.iter().map(|range| range.count).sum::<u64>() <= 8 * 2 * 256);
        }
    }
}
