//! Compares a row with the record that produced it, column by column, each by its meaning.

use crate::record::decimal::Decimal;
use crate::record::row::{ExpectedValue, Pricing, RecordFacts, Row};
use crate::record::table::Table;
use crate::verify::findings::{Finding, shown};
use crate::verify::rates::Rates;
use crate::verify::stored::{RowKey, Values};

/// Compares a row with what its record must have made. `ventures` are those that there are.
pub fn compare(
    table: Table,
    key: &RowKey,
    row: &Row<'_>,
    found: &Values,
    ventures: &[String],
    charge: Charge<'_>,
) -> Vec<Finding> {
    let name = table.rows().name();
    let mut findings = Vec::new();
    for ((column, expected), found) in table.rows().columns.iter().zip(&row.values).zip(found.iter()) {
        let wanted = match expected {
            ExpectedValue::Text(wanted) if found == wanted.as_deref() => continue,
            ExpectedValue::Number(wanted) if is_number(found, wanted.as_ref()) => continue,
            ExpectedValue::Json(wanted) if is_json(found, wanted.as_ref()) => continue,
            ExpectedValue::Venture(wanted) if is_venture(found, wanted.as_deref(), ventures) => continue,
            ExpectedValue::Priced => continue,
            ExpectedValue::Text(wanted) => shown(wanted.as_deref()),
            ExpectedValue::Json(wanted) => shown(wanted.as_ref().map(|said| said.text)),
            ExpectedValue::Venture(wanted) => shown(wanted.as_deref()),
            ExpectedValue::Number(wanted) => wanted.as_ref().map_or_else(|| "null".to_owned(), ToString::to_string),
        };
        findings.push(Finding::new(name, key, column, format!("is {}, custody says {wanted}", shown(found))));
    }
    if let Some(pricing) = &row.pricing {
        findings.extend(charge.check(key, pricing, found));
    }
    findings
}

fn is_number(found: Option<&str>, wanted: Option<&Decimal>) -> bool {
    match (found, wanted) {
        (None, None) => true,
        (Some(found), Some(wanted)) => Decimal::parse(found).is_some_and(|found| found == *wanted),
        _ => false,
    }
}

fn is_json(found: Option<&str>, wanted: Option<&RecordFacts<'_>>) -> bool {
    match (found, wanted) {
        (None, None) => true,
        (Some(found), Some(wanted)) => wanted.is_said_by(found),
        _ => false,
    }
}

/// A venture that is gone has left its usage behind.
fn is_venture(found: Option<&str>, wanted: Option<&str>, ventures: &[String]) -> bool {
    let is_gone = || wanted.is_none_or(|wanted| ventures.iter().all(|venture| venture != wanted));
    found == wanted || found.is_none() && is_gone()
}

/// What a usage was charged by.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    pub rates: &'a Rates,
    /// When the usage was published, in nanoseconds since 1970: maybe long before it was committed.
    pub published_ns: i64,
    /// When the usage was committed, in microseconds since 1970.
    pub committed_at_us: i64,
}

impl Charge<'_> {
    /// The cost follows from the two rates that the row names, and these were those of its tier at that time.
    pub fn check(self, key: &RowKey, pricing: &Pricing, found: &Values) -> Vec<Finding> {
        let value = |name: &str| {
            let index = Table::TokenLedger.rows().columns.iter().position(|column| *column == name);
            index.and_then(|index| found.get(index))
        };
        let differ = |field: &str, says: String| Finding::new("ledger.token_usage", key, field, says);
        let mut findings = Vec::new();
        let mut named = Vec::new();
        for (field, direction) in [("input_rate_id", "input"), ("output_rate_id", "output")] {
            match self.rate(value(field), direction, pricing) {
                Ok(rate) => named.push(rate),
                Err(why) => findings.push(differ(field, format!("is {}, {why}", shown(value(field))))),
            }
        }
        let [(input_tier, input_rate), (output_tier, output_rate)] = &named[..] else { return findings };
        if input_tier != output_tier {
            let says = format!("is a rate of the tier {output_tier}, and input_rate_id is one of {input_tier}");
            findings.push(differ("output_rate_id", says));
        }
        let cost = pricing.cost(input_rate, output_rate);
        if !is_number(value("cost_usd"), Some(&cost)) {
            let says = format!("is {}, and its tokens at its rates cost {cost}", shown(value("cost_usd")));
            findings.push(differ("cost_usd", says));
        }
        findings
    }

    /// The tier and the value of a rate that a usage names.
    fn rate(self, id: Option<&str>, direction: &str, pricing: &Pricing) -> Result<(String, Decimal), String> {
        let found = id.and_then(|id| id.parse().ok()).and_then(|id: i64| Some((id, self.rates.get(id)?)));
        let (id, rate) = found.ok_or("and economic_metrics has no such rate")?;
        let tier = rate.key.strip_prefix("token_rate_").and_then(|rest| rest.strip_suffix(direction));
        let tier = tier.and_then(|tier| tier.strip_suffix('_'));
        let tier = tier.ok_or_else(|| format!("which is {}, and no {direction} rate", rate.key))?;
        if pricing.tier.as_deref().is_some_and(|wanted| wanted != tier) {
            return Err(format!("a rate of the tier {tier}, and custody names another"));
        }
        if !self.rates.may_have_charged(id, self.published_ns, self.committed_at_us) {
            return Err(format!("{} of another time than the usage's", rate.key));
        }
        let value = Decimal::parse(&rate.value).ok_or_else(|| format!("whose value is {}", rate.value))?;
        Ok((tier.to_owned(), value))
    }

    /// The rates for a tier that the usage was charged by, where its row does not say: those that were in force when it was
    /// committed. If all seem to have been stored later, its transaction had begun before it saw them.
    pub fn rates_of(self, tier: &str) -> Option<[i64; 2]> {
        let in_force = |direction: &str| {
            let key = format!("token_rate_{tier}_{direction}");
            let stored_by = |moment_us: i64| self.rates.in_force(&key, self.published_ns, moment_us);
            stored_by(self.committed_at_us).or_else(|| stored_by(i64::MAX))
        };
        Some([in_force("input")?, in_force("output")?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::rates::{Rate, TRANSACTION_MAX_US};

    const NOW: i64 = 100 * TRANSACTION_MAX_US;

    fn rate(key: &str, value: &str, created_at_us: i64) -> Rate {
        let published_ns = created_at_us * 1000;
        Rate { key: key.to_owned(), value: value.to_owned(), published_ns, created_at_us }
    }

    fn rates() -> Rates {
        Rates::from_iter([
            (1, rate("token_rate_ECONOMY_input", "9", 0)),
            (2, rate("token_rate_ECONOMY_input", "0.00025", 10)),
            (3, rate("token_rate_ECONOMY_output", "0.00125", 10)),
            (4, rate("token_rate_FREE_output", "0.00125", 10)),
            (5, rate("daily_limit_x", "0.00025", 10)),
        ])
    }

    fn charge(rates: &Rates, published_at_us: i64, committed_at_us: i64) -> Charge<'_> {
        Charge { rates, published_ns: published_at_us * 1000, committed_at_us }
    }

    fn charged(tier: Option<&str>, cost: &str, input: &str, output: &str) -> Vec<String> {
        let pricing = Pricing { tier: tier.map(str::to_owned), tokens_input: 1, tokens_output: 2 };
        let mut found = Values::default();
        (3..Table::TokenLedger.rows().columns.len()).for_each(|_| found.push(None));
        for text in [cost, input, output] {
            found.push(Some(text));
        }
        let differences = charge(&rates(), NOW, 2 * NOW).check(&RowKey::Number(1), &pricing, &found);
        differences.into_iter().map(|finding| finding.field).collect()
    }

    #[test]
    fn a_cost_follows_from_rates_that_were_in_force() {
        assert_eq!(charged(Some("ECONOMY"), "0.00000275", "2", "3"), Vec::<String>::new());
        assert_eq!(charged(None, "0.000002750", "2", "3"), Vec::<String>::new());
        assert_eq!(charged(None, "0.00000276", "2", "3"), ["cost_usd"]);
        // A rate that was replaced long before, another direction, another tier, another metric, none at all.
        assert_eq!(charged(None, "0.0090025", "1", "3"), ["input_rate_id"]);
        assert_eq!(charged(None, "0", "3", "2"), ["input_rate_id", "output_rate_id"]);
        assert_eq!(charged(None, "0.00000275", "2", "4"), ["output_rate_id"]);
        assert_eq!(charged(Some("FREE"), "0.00000275", "2", "4"), ["input_rate_id"]);
        assert_eq!(charged(None, "0.00000275", "5", "77"), ["input_rate_id", "output_rate_id"]);
        let of_tier = |tier: &str, at: i64, committed: i64| charge(&rates(), at, committed).rates_of(tier);
        assert_eq!(of_tier("ECONOMY", NOW, NOW), Some([2, 3]));
        assert_eq!(of_tier("ECONOMY", 9, NOW), Some([1, 3]));
        assert_eq!(of_tier("ECONOMY", -9, NOW), Some([1, 3]));
        // What was stored later was not in force yet, unless there was nothing else.
        assert_eq!(of_tier("ECONOMY", NOW, 9), Some([1, 3]));
        assert_eq!(of_tier("FREE", NOW, NOW), None);
    }

    #[test]
    fn a_venture_may_be_null_once_it_is_gone() {
        let there = vec!["a".to_owned()];
        assert!(is_venture(Some("a"), Some("a"), &there) && is_venture(None, None, &there));
        assert!(is_venture(None, Some("b"), &there));
        assert!(!is_venture(None, Some("a"), &there) && !is_venture(Some("b"), Some("a"), &there));
        assert!(!is_venture(Some("b"), None, &there));
    }
}
