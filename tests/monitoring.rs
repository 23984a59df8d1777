//! Whoever is woken by an alert finds what to do; and no alert or panel asks for a metric that is not there.

use std::collections::BTreeSet;
use std::fs;

fn text_of(file: &str) -> String {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows `prefix` in each line that begins with it.
fn after<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(prefix)).map(str::trim).collect()
}

/// Every name of a metric of ours that stands in the text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .filter(|word| word.starts_with("ledgerd_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

#[test]
fn each_alert_has_an_entry_in_the_runbook_and_each_entry_an_alert() {
    let rules = text_of("monitoring/ledgerd.rules.yml");
    let runbook = text_of("docs/runbook.md");
    let alerts = after(&rules, "- alert:");
    let entries: BTreeSet<&str> = after(&runbook, "## ");
    assert!(alerts.len() > 10, "found {alerts:?}");
    assert_eq!(alerts, entries);
    for alert in alerts {
        let address = format!("docs/runbook.md#{}", alert.to_lowercase());
        assert!(rules.contains(&format!("{address:?}")), "{alert} names no entry {address}");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let documented = text_of("docs/metrics.md");
    let documented = after(&documented, "| `ledgerd_");
    let documented: BTreeSet<String> =
        documented.iter().filter_map(|rest| rest.split_once('`').map(|(name, _)| format!("ledgerd_{name}"))).collect();
    for file in ["monitoring/ledgerd.rules.yml", "monitoring/grafana-dashboard.json"] {
        let text = text_of(file);
        let asked = metrics_in(&text);
        assert!(asked.len() > 5, "{file} asks for {asked:?}");
        for name in asked {
            assert!(documented.contains(name), "{file} asks for {name}, which docs/metrics.md does not list");
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&text_of("monitoring/grafana-dashboard.json")).expect("the dashboard is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}
