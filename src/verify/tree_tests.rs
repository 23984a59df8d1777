use super::*;
use crate::record::digest::sha256;

const LEAVES: i64 = 600;

fn leaves() -> Vec<(i64, Vec<u8>)> {
    (0..LEAVES).map(|index| (index, sha256(&index.to_be_bytes()).to_vec())).collect()
}

fn grown(leaves: &[(i64, Vec<u8>)]) -> (Frontier, Vec<SubtreeRow>) {
    let (mut frontier, mut completed) = (Frontier::EMPTY, Vec::new());
    for (_, hash) in leaves {
        frontier.append(hash.as_slice().try_into().expect("32 bytes"), &mut completed);
    }
    let stored = completed.iter().map(|it| SubtreeRow { level: it.level, index: it.index, hash: it.hash.to_vec() });
    (frontier, stored.collect())
}

fn known(size: usize) -> KnownRoot {
    let root = grown(&leaves()[..size]).0.root().to_vec();
    KnownRoot { size: size as u64, root, source: "checkpoint".to_owned(), is_signed: false }
}

fn size_of(known: &KnownRoot) -> i64 {
    i64::try_from(known.size).expect("small")
}

/// Checks leaves, subtrees and roots in ranges of a chunk, and says what was found.
fn check(leaves: &[(i64, Vec<u8>)], stored: &[SubtreeRow], roots: &[KnownRoot], head: Option<&HeadRow>) -> Vec<String> {
    const CHUNK: i64 = 256;
    let (mut tree, mut findings) = (TreeCheck::default(), Findings::default());
    tree.begin(roots, &mut findings);
    let end_of_all = leaves.last().map_or(0, |(index, _)| index + 1);
    let mut start = 0;
    while start < end_of_all {
        let end = (start + CHUNK).min(end_of_all);
        let here = |index: i64| index >= start && index < end;
        let ends_here = |it: &&SubtreeRow| {
            let (from, to) = subtrees_ending_in(it.level, start, end);
            it.index >= from && it.index < to
        };
        let stretch = Stretch {
            leaves: leaves
                .iter()
                .filter(|(index, _)| here(*index))
                .map(|(index, hash)| (*index, hash.as_slice().try_into().ok()))
                .collect(),
            subtrees: stored.iter().filter(ends_here).cloned().collect(),
            known_roots: roots.iter().filter(|root| root.size > 0 && here(size_of(root) - 1)).cloned().collect(),
        };
        tree.take(&stretch, end, &mut findings);
        start = end;
    }
    let beyond: Vec<_> = roots.iter().filter(|root| size_of(root) > end_of_all).cloned().collect();
    tree.finish(head, &beyond, &mut findings);
    findings.listed().iter().map(ToString::to_string).collect()
}

fn head() -> HeadRow {
    let frontier = grown(&leaves()).0;
    HeadRow { size: LEAVES, root: frontier.root().to_vec(), frontier: frontier.to_bytes() }
}

#[test]
fn a_good_tree_passes_with_every_known_root() {
    let roots: Vec<_> = [0, 1, 255, 256, 257, 512, 599, 600].map(known).into();
    assert_eq!(check(&leaves(), &grown(&leaves()).1, &roots, Some(&head())), Vec::<String>::new());
    assert_eq!(
        check(&[], &[], &[], Some(&HeadRow { size: 0, root: sha256(b"").to_vec(), frontier: Vec::new() })),
        Vec::<String>::new()
    );
}

#[test]
fn each_damage_is_named() {
    let (all, stored) = (leaves(), grown(&leaves()).1);
    let missing: Vec<_> = all.iter().filter(|(index, _)| *index != 300).cloned().collect();
    let found = check(&missing, &stored, &[known(600)], Some(&head()));
    assert_eq!(found[0], "ledger.entry id 300: leaf_index is missing");
    assert!(found[1].contains("from leaf 300 on"), "{found:?}");

    let mut changed = all.clone();
    changed[5].1[0] ^= 1;
    let found = check(&changed, &stored, &[known(5), known(6)], Some(&head()));
    let starts = [
        "checkpoint id 6: root",
        "ledger.subtree id 1/0: hash",
        "ledger.tree_head id the one row: root",
        "ledger.tree_head id the one row: frontier",
    ];
    assert_eq!(found.len(), starts.len(), "{found:?}");
    assert!(found.iter().zip(starts).all(|(found, start)| found.starts_with(start)), "{found:?}");

    let found = check(&all[..500], &stored[..1], &[known(600)], Some(&HeadRow { size: 500, ..head() }));
    assert!(found.iter().any(|it| it.contains("restored from an old backup")), "{found:?}");
    let found = check(&all, &stored[1..], &[], Some(&head()));
    assert_eq!(found, ["ledger.subtree id 1/0: hash is missing"]);
    assert_eq!(check(&all, &stored, &[], None), ["ledger.tree_head id the one row: size is missing with its row"]);
}
