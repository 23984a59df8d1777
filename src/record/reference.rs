//! The reference limits and rates, which only `ledgerd setup --defaults` uses. The values in force are in
//! `economic_metrics`.

use crate::record::agents::Agents;
use crate::record::reject::first_line;
use std::collections::BTreeMap;

/// Metric keys with their values, as JSON numbers, sorted by key.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub fn metrics(yaml: &str, agents: &Agents) -> Result<BTreeMap<String, String>, String> {
    let file: BTreeMap<String, String> = serde_saphyr::from_str(yaml).map_err(|error| first_line(&error))?;
    let mut metrics = BTreeMap::new();
    for (key, value) in file {
        if value.parse::<f64>().is_err() {
            return Err(format!("{key} is \"{value}\", which is no number"));
        }
        match key.split_once('{') {
            None => {
                metrics.insert(key, value);
            }
            Some((prefix, group)) => {
                let members = agents.members(group.trim_end_matches('}'));
                metrics.extend(members.into_iter().map(|member| (format!("{prefix}{member}"), value.clone())));
            }
        }
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_reference_has_a_limit_for_every_agent_with_one_and_all_rates() {
        let agents = Agents::parse(include_str!("../../registry/agent_schema.yaml"), &[]).expect("the shipped agents");
        let metrics =
            metrics(include_str!("../../registry/reference_metrics.yaml"), &agents).expect("the shipped file");
        // Four of the council, fifteen sub-agents, and three of groups; four tiers in two directions.
        assert_eq!(metrics.len(), 4 + 15 + 3 + 8);
        assert_eq!(metrics["daily_limit_SRN-MRS-01"], "1.00");
        assert_eq!(metrics["token_rate_ECONOMY_input"], "0.00025");
    }
}
