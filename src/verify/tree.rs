//! Compares the tree with its leaves. It takes the stored leaf hashes in order, and compares every subtree, every known
//! root and the head.

use crate::record::digest::hex;
use crate::verify::checkpoint::KnownRoot;
use crate::verify::findings::{Finding, Findings};
use crate::verify::stored::{HeadRow, SubtreeRow};
use std::collections::BTreeMap;
use tlog::tree::{self, Frontier};

/// Each level's subtrees have 2^8 times as many leaves as those of the level below.
const TILE_HEIGHT: u32 = 8;
/// A leaf index has 63 bits.
pub const LEVEL_MAX: i16 = 7;

/// What belongs to a range of leaves.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// Leaf indexes and their hashes, as they are stored, in their order; nothing where what is stored is no hash.
    pub leaves: Vec<(i64, Option<tree::Hash>)>,
    /// The stored subtrees whose last leaf is in the range.
    pub subtrees: Vec<SubtreeRow>,
    /// The roots of trees whose last leaf is in the range.
    pub known_roots: Vec<KnownRoot>,
}

#[derive(Debug)]
pub struct TreeCheck {
    frontier: Frontier,
    next: i64,
    /// From this leaf on, nothing above the leaves can be computed.
    broken_at: Option<i64>,
    roots_checked: u64,
}

impl Default for TreeCheck {
    fn default() -> Self {
        Self { frontier: Frontier::EMPTY, next: 0, broken_at: None, roots_checked: 0 }
    }
}

impl TreeCheck {
    /// How many known roots were compared.
    pub fn roots_checked(&self) -> u64 {
        self.roots_checked
    }

    /// The root, in hexadecimal; nothing where a leaf is missing.
    pub fn root(&self) -> Option<String> {
        self.broken_at.is_none().then(|| hex(&self.frontier.root()))
    }

    /// Compares the roots that are known for the empty tree.
    pub fn begin(&mut self, known_roots: &[KnownRoot], findings: &mut Findings) {
        for known in known_roots.iter().filter(|known| known.size == 0) {
            self.compare_root(known, findings);
        }
    }

    /// Goes on with the leaves of a range that ends before `end`.
    pub fn take(&mut self, stretch: &Stretch, end: i64, findings: &mut Findings) {
        let mut known: BTreeMap<u64, Vec<&KnownRoot>> = BTreeMap::new();
        for root in &stretch.known_roots {
            known.entry(root.size).or_default().push(root);
        }
        let mut completed = Vec::new();
        for (leaf_index, hash) in &stretch.leaves {
            if *leaf_index > self.next {
                self.miss(*leaf_index, findings);
            }
            if *leaf_index < self.next {
                findings.add(Finding::new("ledger.entry", leaf_index, "leaf_index", "is there more than once"));
                self.broken_at = self.broken_at.or(Some(*leaf_index));
                continue;
            }
            self.next = leaf_index + 1;
            let Some(hash) = *hash else {
                findings.add(Finding::new("ledger.entry", leaf_index, "leaf_hash", "is no SHA-256"));
                self.broken_at = self.broken_at.or(Some(*leaf_index));
                continue;
            };
            if self.broken_at.is_none() {
                self.frontier.append(hash, &mut completed);
                for root in known.remove(&self.frontier.size()).unwrap_or_default() {
                    self.compare_root(root, findings);
                }
            }
        }
        if self.next < end {
            self.miss(end, findings);
        }
        self.compare_subtrees(&completed, &stretch.subtrees, findings);
    }

    /// Leaves are missing up to this one.
    fn miss(&mut self, next: i64, findings: &mut Findings) {
        let (first, last) = (self.next, next - 1);
        let says = if first == last { "is missing".to_owned() } else { format!("and all up to {last} are missing") };
        let finding = Finding::new("ledger.entry", first, "leaf_index", says);
        findings.count(&finding, u64::try_from(last - first).unwrap_or(0));
        findings.add(finding);
        self.broken_at = self.broken_at.or(Some(first));
        self.next = next;
    }

    fn compare_root(&mut self, known: &KnownRoot, findings: &mut Findings) {
        self.roots_checked += 1;
        let root = self.frontier.root();
        if known.root != root {
            let (found, computed, size) = (hex(&known.root), hex(&root), known.size);
            let fork = if known.is_signed { "; the log's key signed it, so this is the proof of a fork" } else { "" };
            let says = format!("is {found}, and the root of the ledger's first {size} leaves is {computed}{fork}");
            findings.add(Finding::new(&known.source, known.size, "root", says));
        }
    }

    fn compare_subtrees(&self, completed: &[tree::Subtree], stored: &[SubtreeRow], findings: &mut Findings) {
        let mut stored: BTreeMap<(i16, i64), &SubtreeRow> =
            stored.iter().map(|subtree| ((subtree.level, subtree.index), subtree)).collect();
        for subtree in completed {
            let id = name(subtree.level, subtree.index);
            match stored.remove(&(subtree.level, subtree.index)) {
                None => findings.add(Finding::new("ledger.subtree", id, "hash", "is missing")),
                Some(found) if found.hash != subtree.hash => {
                    let says = format!("is {}, and that of its leaves is {}", hex(&found.hash), hex(&subtree.hash));
                    findings.add(Finding::new("ledger.subtree", id, "hash", says));
                }
                Some(_) => {}
            }
        }
        if self.broken_at.is_some() {
            // Those above the leaves that are missing can neither be confirmed nor refuted.
            return;
        }
        for subtree in stored.values() {
            findings.add(superfluous(subtree.level, subtree.index));
        }
    }

    /// Compares the head, and what lies beyond it.
    pub fn finish(&self, head: Option<&HeadRow>, beyond: &[KnownRoot], findings: &mut Findings) {
        if let Some(leaf) = self.broken_at {
            let says = format!("cannot be computed: from leaf {leaf} on, the tree has no known shape");
            findings.add(Finding::new("ledger.tree_head", "the one row", "root", says));
        }
        let mut differ = |field: &str, says: String| {
            findings.add(Finding::new("ledger.tree_head", "the one row", field, says));
        };
        match head {
            None => differ("size", "is missing with its row".to_owned()),
            Some(head) => {
                if head.size != self.next {
                    differ("size", format!("is {}, and there are {} leaves", head.size, self.next));
                }
                if self.broken_at.is_none() && head.root != self.frontier.root() {
                    let (found, computed) = (hex(&head.root), hex(&self.frontier.root()));
                    differ("root", format!("is {found}, and that of the leaves is {computed}"));
                }
                if self.broken_at.is_none() && head.frontier != self.frontier.to_bytes() {
                    differ("frontier", "is not that of the leaves".to_owned());
                }
            }
        }
        for known in beyond {
            let says = format!(
                "is {}, and the ledger has {} leaves: leaves were removed, or the database was restored from an old backup",
                known.size, self.next
            );
            findings.add(Finding::new(&known.source, known.size, "size", says));
        }
    }

    /// How many subtrees of a level there must be.
    pub fn subtrees(&self, level: i16) -> i64 {
        u32::try_from(level).map_or(0, |level| self.next >> (TILE_HEIGHT * level))
    }
}

/// A subtree that no leaves complete.
pub fn superfluous(level: i16, index: i64) -> Finding {
    Finding::new("ledger.subtree", name(level, index), "index", "belongs to no complete subtree of the leaves")
}

fn name(level: i16, index: i64) -> String {
    format!("{level}/{index}")
}

/// Which subtrees of a level end with a leaf of this range? From the first to before the second.
pub fn subtrees_ending_in(level: i16, start: i64, end: i64) -> (i64, i64) {
    u32::try_from(level).map_or((0, 0), |level| (start >> (TILE_HEIGHT * level), end >> (TILE_HEIGHT * level)))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
