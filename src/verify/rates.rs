//! Determines the rates at which a usage was charged. It applies the rule of the daemon's own statement to the stored
//! rates.

use std::cmp::Reverse;
use std::collections::HashMap;

/// A rate that usage may be charged by.
#[derive(Clone, Debug)]
pub struct Rate {
    pub key: String,
    pub value: String,
    /// When it was published, in nanoseconds since 1970.
    pub published_ns: i64,
    /// When it was stored, in microseconds since 1970.
    pub created_at_us: i64,
}

/// The rates that usage was ever charged by, by their rows.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    by_id: HashMap<i64, Rate>,
    by_key: HashMap<String, Vec<Moments>>,
}

/// A rate of a key, in the order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moments {
    published_ns: i64,
    id: i64,
    created_at_us: i64,
}

/// A transaction lasts less: what was stored longer before a usage was committed, its charging saw; and what was stored longer
/// after, it did not.
pub(crate) const TRANSACTION_MAX_US: i64 = 3_600_000_000;

impl FromIterator<(i64, Rate)> for Rates {
    fn from_iter<I: IntoIterator<Item = (i64, Rate)>>(rates: I) -> Self {
        let mut all = Self::default();
        for (id, rate) in rates {
            let Rate { published_ns, created_at_us, .. } = rate;
            let of_key = all.by_key.entry(rate.key.clone()).or_default();
            of_key.push(Moments { published_ns, id, created_at_us });
            all.by_id.insert(id, rate);
        }
        all.by_key.values_mut().for_each(|of_key| of_key.sort_unstable());
        all
    }
}

impl Rates {
    /// The rate of this row.
    pub fn get(&self, id: i64) -> Option<&Rate> {
        self.by_id.get(&id)
    }

    /// The row whose rate a usage published at a moment is charged at, of those of a key that were stored by another moment: the
    /// one that was published last before it; where all came later, the first of them.
    pub fn in_force(&self, key: &str, at_ns: i64, stored_by_us: i64) -> Option<i64> {
        let of_key = self.by_key.get(key)?;
        let (before, after) = of_key.split_at(of_key.partition_point(|rate| rate.published_ns <= at_ns));
        let is_stored = |rate: &&Moments| rate.created_at_us <= stored_by_us;
        let last = before.iter().rfind(is_stored);
        let first = || {
            let first = after.iter().find(is_stored)?;
            // Of those that were published at once, the newest row.
            after.iter().filter(is_stored).take_while(|rate| rate.published_ns == first.published_ns).last()
        };
        last.or_else(first).map(|rate| rate.id)
    }

    /// Whether a usage that was published at one moment, and committed at another, may have been charged at this row's rate: it
    /// was stored by then, and no other that surely was would have come before it.
    pub fn may_have_charged(&self, id: i64, published_ns: i64, committed_at_us: i64) -> bool {
        let Some(rate) = self.get(id) else { return false };
        let rank = |id: i64, rate: &Rate| {
            (rate.published_ns > published_ns, rate.published_ns.abs_diff(published_ns), Reverse(id))
        };
        let surely_stored_by = committed_at_us.saturating_sub(TRANSACTION_MAX_US);
        let surely = self.in_force(&rate.key, published_ns, surely_stored_by);
        let comes_before = |other: i64| self.get(other).is_some_and(|it| rank(other, it) < rank(id, rate));
        rate.created_at_us <= committed_at_us.saturating_add(TRANSACTION_MAX_US) && !surely.is_some_and(comes_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = TRANSACTION_MAX_US;
    const HOUR_NS: i64 = HOUR_US * 1000;

    /// Rates of one key by their rows, each with the hours of its publication and its storing.
    fn rates(hours: &[(i64, i64, i64)]) -> Rates {
        let rate = |&(id, published, stored): &(i64, i64, i64)| {
            let (published_ns, created_at_us) = (published * HOUR_NS, stored * HOUR_US);
            (id, Rate { key: "rate".to_owned(), value: "1".to_owned(), published_ns, created_at_us })
        };
        hours.iter().map(rate).collect()
    }

    fn in_force(rates: &Rates, at: i64, stored_by: i64) -> Option<i64> {
        rates.in_force("rate", at * HOUR_NS, stored_by * HOUR_US)
    }

    #[test]
    fn in_force_is_what_was_published_last_and_not_what_was_stored_last() {
        let rates = rates(&[(1, 10, 30), (2, 20, 20), (3, 20, 20), (4, 40, 40), (5, 40, 40)]);
        assert_eq!(in_force(&rates, 19, 99), Some(1));
        // Of two that were published at once, the newer row.
        assert_eq!(in_force(&rates, 20, 99), Some(3));
        assert_eq!(in_force(&rates, 39, 99), Some(3));
        assert_eq!(in_force(&rates, 99, 99), Some(5));
        // What is not stored yet is not in force yet; and before there was any, it is the first that came.
        assert_eq!(in_force(&rates, 99, 39), Some(3));
        assert_eq!(in_force(&rates, 9, 99), Some(1));
        assert_eq!(in_force(&rates, 9, 20), Some(3));
        assert_eq!(in_force(&rates, 9, 19), None);
        assert_eq!(rates.in_force("another", 99, 99), None);
    }

    #[test]
    fn a_usage_may_have_been_charged_at_what_was_in_force_when_it_was_stored() {
        let rates = rates(&[(1, 10, 30), (2, 20, 20), (3, 40, 40)]);
        let may = |id: i64, published: i64, committed: i64| {
            rates.may_have_charged(id, published * HOUR_NS, committed * HOUR_US)
        };
        // The older rate was stored after the newer one, and is in force for older usage alone.
        assert!(may(2, 25, 25) && may(2, 25, 35) && !may(1, 25, 35));
        assert!(may(1, 15, 35) && !may(2, 15, 35));
        // Usage that was stored before it knew only the other; and within a transaction's time nobody can tell.
        assert!(may(2, 15, 28) && !may(1, 15, 28));
        assert!(may(2, 15, 30) && may(1, 15, 30));
        // Late usage is charged at what was in force at its publication.
        assert!(may(2, 39, 99) && !may(3, 39, 99) && !may(2, 41, 99) && may(3, 41, 99));
        assert!(!may(7, 39, 99));
    }
}
