//! Checks the daily sums: compares each row of `token_ledger`, and what was removed of it, with the usages of its agent
//! and day.

use crate::record::decimal::Decimal;
use crate::verify::findings::{Finding, Findings, shown};
use crate::verify::removal::{Authorities, Removal};

/// The sums of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    pub tokens_input: Decimal,
    pub tokens_output: Decimal,
    /// USD.
    pub exact_cost: Decimal,
}

impl Sums {
    const NOTHING: Sums = Sums { tokens_input: Decimal::ZERO, tokens_output: Decimal::ZERO, exact_cost: Decimal::ZERO };

    /// Reads three numbers of the database.
    pub fn parse(texts: &[Option<String>]) -> Option<Self> {
        let number = |index: usize| Decimal::parse(texts.get(index)?.as_deref()?);
        Some(Self { tokens_input: number(0)?, tokens_output: number(1)?, exact_cost: number(2)? })
    }

    fn add(&mut self, other: &Self) {
        self.tokens_input = self.tokens_input.plus(&other.tokens_input);
        self.tokens_output = self.tokens_output.plus(&other.tokens_output);
        self.exact_cost = self.exact_cost.plus(&other.exact_cost);
    }
}

/// What the database has of a day.
#[derive(Clone, Debug)]
pub enum Part {
    /// The sums of all rows of `ledger.token_usage`.
    Usage(Option<Sums>),
    /// The row: its sums, the cost that it shows, its status.
    Day(Option<Sums>, Option<String>, Option<String>),
    Removed(Option<Sums>, Removal),
}

/// The statuses that a day may have.
const STATUSES: [&str; 4] = ["GREEN", "YELLOW", "RED", "EXCEEDED"];

/// The day that is being added up.
#[derive(Debug)]
struct Day {
    key: String,
    used: Sums,
    any_used: bool,
    removed: Sums,
    any_removed: bool,
    row: Option<(Option<Sums>, Option<String>, Option<String>)>,
}

/// Adds up day by day: the parts of one day come one after the other.
#[derive(Debug)]
pub struct Days<'a> {
    authorities: &'a Authorities,
    current: Option<Day>,
    /// Rows of `token_ledger`.
    pub rows: u64,
    /// Rows that were removed by right.
    pub explained: u64,
    pub damaged: Vec<String>,
}

impl<'a> Days<'a> {
    pub fn new(authorities: &'a Authorities) -> Self {
        Self { authorities, current: None, rows: 0, explained: 0, damaged: Vec::new() }
    }

    /// Takes a part of the day `AGENT/DATE`.
    pub fn take(&mut self, key: &str, part: Part, findings: &mut Findings) {
        if self.current.as_ref().is_none_or(|day| day.key != key) {
            self.finish(findings);
        }
        let day = self.current.get_or_insert_with(|| Day {
            key: key.to_owned(),
            used: Sums::NOTHING,
            any_used: false,
            removed: Sums::NOTHING,
            any_removed: false,
            row: None,
        });
        match part {
            Part::Usage(Some(sums)) => {
                day.any_used = true;
                day.used.add(&sums);
            }
            Part::Usage(None) => findings.add(Finding::new("ledger.token_usage", key, "cost_usd", "is no number")),
            Part::Day(sums, total_cost, status) => {
                self.rows += 1;
                day.row = Some((sums, total_cost, status));
            }
            Part::Removed(sums, removal) => match (sums, self.authorities.explain(&removal, "token_ledger", key)) {
                (Some(sums), Ok(())) => {
                    self.explained += 1;
                    day.any_removed = true;
                    day.removed.add(&sums);
                }
                (_, Err(why)) => findings.add(Finding::new("ledger.removal", key, "export_id", why)),
                (None, _) => findings.add(Finding::new("ledger.removal", key, "exact_cost", "is no number")),
            },
        }
    }

    /// Judges the last day.
    pub fn finish(&mut self, findings: &mut Findings) {
        let Some(day) = self.current.take() else { return };
        let before = findings.total();
        judge(&day, findings);
        if findings.total() > before {
            self.damaged.push(day.key);
        }
    }
}

fn judge(day: &Day, findings: &mut Findings) {
    let mut differ = |field: &str, says: String| findings.add(Finding::new("token_ledger", &day.key, field, says));
    let Some((sums, total_cost, status)) = &day.row else {
        if !day.any_removed {
            differ("agent_name", "is missing: its usages have no day".to_owned());
        } else if day.used != day.removed {
            differ("agent_name", "is missing: more was used than the removed day had added up".to_owned());
        }
        return;
    };
    let Some(sums) = sums else {
        return differ("exact_cost", "or the tokens beside it are no numbers".to_owned());
    };
    let mut whole = sums.clone();
    whole.add(&day.removed);
    if !day.any_used && whole == day.used {
        differ("agent_name", "has no usage: no record made this day".to_owned());
    }
    for (field, found, expected) in [
        ("total_tokens_input", &whole.tokens_input, &day.used.tokens_input),
        ("total_tokens_output", &whole.tokens_output, &day.used.tokens_output),
        ("exact_cost", &whole.exact_cost, &day.used.exact_cost),
    ] {
        if found != expected {
            let with = if day.any_removed { ", with what was removed," } else { "" };
            differ(field, format!("{with} is {found}, and its usages add up to {expected}").trim_start().to_owned());
        }
    }
    let shown_cost = sums.exact_cost.rounded(4);
    if total_cost.as_deref().and_then(Decimal::parse) != Some(shown_cost.clone()) {
        differ("total_cost", format!("is {}, and exact_cost rounds to {shown_cost}", shown(total_cost.as_deref())));
    }
    if status.as_deref().is_some_and(|status| !STATUSES.contains(&status)) {
        differ("budget_status", format!("is {}, which is no status", shown(status.as_deref())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(input: i64, cost: &str) -> Option<Sums> {
        Sums::parse(&[Some(input.to_string()), Some("0".to_owned()), Some(cost.to_owned())])
    }

    fn found(parts: Vec<Part>) -> Vec<String> {
        let (authorities, mut findings) = (Authorities::default(), Findings::default());
        let mut days = Days::new(&authorities);
        for part in parts {
            days.take("A/2026-02-20", part, &mut findings);
        }
        days.finish(&mut findings);
        findings.listed().iter().map(|finding| finding.field.clone()).collect()
    }

    #[test]
    fn a_day_is_the_sum_of_its_usages() {
        let used = || vec![Part::Usage(sums(1, "0.00003")), Part::Usage(sums(2, "0.00003"))];
        let with = |input, cost: &str, total: &str, status: &str| {
            let mut parts = used();
            parts.push(Part::Day(sums(input, cost), Some(total.to_owned()), Some(status.to_owned())));
            found(parts)
        };
        assert_eq!(with(3, "0.00006", "0.0001", "GREEN"), Vec::<String>::new());
        assert_eq!(with(4, "0.00006", "0.0001", "GREEN"), ["total_tokens_input"]);
        assert_eq!(with(3, "0.00007", "0.0001", "GREEN"), ["exact_cost"]);
        assert_eq!(with(3, "0.00006", "0.0002", "GREEN"), ["total_cost"]);
        assert_eq!(with(3, "0.00006", "0.0001", "BLUE"), ["budget_status"]);
        assert_eq!(found(used()), ["agent_name"]);
        let invented = Part::Day(sums(0, "0"), Some("0".to_owned()), Some("GREEN".to_owned()));
        assert_eq!(found(vec![invented]), ["agent_name"], "a day that no usage made");
        let unfounded = Removal { export_id: Some(1), erasure_id: None, leaf_index: None };
        let mut parts = used();
        parts.push(Part::Removed(sums(3, "0.00006"), unfounded));
        assert_eq!(found(parts), ["export_id", "agent_name"]);
    }
}
