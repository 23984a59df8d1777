//! Compares two sets of rows by a sum over their names, which only equal sets share. Memory use does not grow with the
//! sets.
//!
//! The names are hashed under a new key for each run, so nobody can choose names whose sums collide.

use std::hash::{BuildHasher as _, Hash, RandomState};

/// The key of one run.
#[derive(Clone, Debug, Default)]
pub struct Key([RandomState; 2]);

/// How many names there were, and their sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// How many names, each as often as it came.
    pub count: u64,
    sums: [u64; 2],
}

impl Fingerprint {
    pub fn add(&mut self, key: &Key, name: &(impl Hash + ?Sized)) {
        self.count += 1;
        for (sum, state) in self.sums.iter_mut().zip(&key.0) {
            *sum = sum.wrapping_add(state.hash_one(name));
        }
    }

    /// Adds the names of another part.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.wrapping_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_sets_have_equal_fingerprints() {
        let key = Key::default();
        let of = |names: &[&str]| {
            let mut fingerprint = Fingerprint::default();
            for name in names {
                fingerprint.add(&key, name);
            }
            fingerprint
        };
        let mut parts = of(&["3"]);
        parts.merge(&of(&["1", "2"]));
        assert_eq!(of(&["1", "2", "3"]), parts);
        assert_ne!(of(&["1", "2", "3"]), of(&["1", "2", "4"]));
        assert_ne!(of(&["1", "2", "3"]), of(&["1", "3"]));
        assert_ne!(of(&["1", "2"]), of(&["1", "1"]));
    }
}
