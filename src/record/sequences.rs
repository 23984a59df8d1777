//! Ranges of sequences, and sets of disjoint ranges.

use std::fmt;

/// Sequences of a stream, from the first to the last; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: i64,
    last: i64,
}

impl Span {
    /// `None` where the last comes before the first.
    pub fn new(first: i64, last: i64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    pub fn of(sequence: i64) -> Self {
        Self { first: sequence, last: sequence }
    }

    pub fn first(self) -> i64 {
        self.first
    }

    pub fn last(self) -> i64 {
        self.last
    }

    pub fn count(self) -> i64 {
        self.last - self.first + 1
    }

    pub fn common(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first} to {last}") }
    }
}

/// Sequences as few ranges: in order, and with something between each two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Adds sequences, known ones or new ones.
    pub fn add(&mut self, span: Span) {
        // Those that overlap or touch it become one with it.
        let start = self.0.partition_point(|other| other.last < span.first - 1);
        let end = self.0.partition_point(|other| other.first <= span.last.saturating_add(1));
        let mut whole = span;
        if let (Some(first), Some(last)) = (self.0.get(start), end.checked_sub(1).and_then(|end| self.0.get(end)))
            && start < end
        {
            whole = Span { first: span.first.min(first.first), last: span.last.max(last.last) };
        }
        self.0.splice(start..end, [whole]);
    }

    /// Adds all of them.
    pub fn add_all(&mut self, others: &Self) {
        others.iter().for_each(|span| self.add(span));
    }

    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    pub fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    pub fn last(&self) -> Option<Span> {
        self.0.last().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many sequences they have.
    pub fn count(&self) -> i64 {
        self.iter().map(Span::count).sum()
    }

    /// Those that are in a range.
    #[must_use]
    pub fn within(&self, span: Span) -> Self {
        let start = self.0.partition_point(|own| own.last < span.first);
        Self(self.0[start..].iter().map_while(|own| own.common(span)).collect())
    }

    /// Those of a range that are not among these.
    #[must_use]
    pub fn rest_of(&self, span: Span) -> Self {
        let mut rest = Vec::new();
        let mut next = span.first;
        for own in self.within(span).iter() {
            rest.extend(Span::new(next, own.first - 1));
            next = own.last + 1;
        }
        rest.extend(Span::new(next, span.last));
        Self(rest)
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut all = Self::default();
        spans.into_iter().for_each(|span| all.add(span));
        all
    }
}

/// How many ranges are named before the rest is only counted.
const NAMED_MAX: usize = 20;

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.0.iter().take(NAMED_MAX).map(Span::to_string).collect();
        f.write_str(&named.join(", "))?;
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sequences(spans: &Spans) -> BTreeSet<i64> {
        spans.iter().flat_map(|span| span.first..=span.last).collect()
    }

    fn span() -> impl Strategy<Value = Span> {
        (1..40_i64, 0..6_i64).prop_map(|(first, more)| Span { first, last: first + more })
    }

    proptest! {
        #[test]
        fn spans_are_the_set_of_what_was_added(added in prop::collection::vec(span(), 0..12), cut in span()) {
            let spans: Spans = added.iter().copied().collect();
            let expected: BTreeSet<i64> = added.iter().flat_map(|span| span.first..=span.last).collect();
            prop_assert_eq!(sequences(&spans), expected.clone());
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].last + 1 < pair[1].first), "{:?}", spans);
            let inside: BTreeSet<i64> = (cut.first..=cut.last).collect();
            prop_assert_eq!(sequences(&spans.within(cut)), expected.intersection(&inside).copied().collect());
            prop_assert_eq!(sequences(&spans.rest_of(cut)), inside.difference(&expected).copied().collect());
            prop_assert_eq!(spans.count(), i64::try_from(expected.len()).expect("few"));
        }
    }

    #[test]
    fn they_are_named_in_few_words() {
        let spans: Spans = [Span::of(3), Span::of(4), Span::of(9)].into_iter().collect();
        assert_eq!(spans.to_string(), "3 to 4, 9");
        let many: Spans = (0..30).map(|n| Span::of(n * 2)).collect();
        assert!(many.to_string().ends_with("38 and 10 more ranges"), "{many}");
    }
}
