//! The schema of metrics: one alternative for each of the five formats of their keys.

use crate::record::metric::{FIELDS, KEY_CHARS_MAX, PERIOD_CHARS_MAX, RATE_USD_MAX, SYSTEM, USD_MAX};
use crate::record::rules::Rules;
use crate::schema::fields::{amount, any_of, named, object, one_of, text, text_like};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

const MONTH: &str = "[0-9]{4}-(0[1-9]|1[0-2])";
const NAME: &str = "[0-9A-Za-z_-]+";
/// In whatever case.
const DAILY: &str = "[Dd][Aa][Ii][Ll][Yy]";

/// One format of a key: its pattern, its values, its periods where it implies one, and who may set it.
struct Format<'a> {
    key: String,
    value: RangeInclusive<f64>,
    period: Option<&'a str>,
    setters: &'a [String],
}

/// The schema, without what every record has in common.
pub(crate) fn schema(rules: &Rules) -> Map<String, Value> {
    let formats = formats(rules);
    let keys: Vec<&str> = formats.iter().map(|format| format.key.as_str()).collect();
    let properties = named([
        ("metric_key", text_like(&format!("^({})$", keys.join("|")), KEY_CHARS_MAX)),
        ("metric_value", amount(&(-USD_MAX..=USD_MAX))),
        ("period", text(PERIOD_CHARS_MAX)),
        ("set_by", one_of(&rules.agents.writing())),
    ]);
    let mut schema = object("A limit, a rate, or the finances of a venture (LDG-002, table 4).", &FIELDS, properties);
    let parts: Vec<Value> = formats.iter().map(rules_of).collect();
    schema.insert("allOf".to_owned(), Value::Array(parts));
    schema
}

fn formats(rules: &Rules) -> [Format<'_>; 5] {
    let writers = &rules.settings.writers;
    let money = || 0.0..=USD_MAX;
    [
        Format {
            key: format!("daily_limit_({})", any_of(limited(rules).iter().map(String::as_str))),
            value: money(),
            period: Some(DAILY),
            setters: &writers.daily_limits,
        },
        Format {
            key: format!("venture_revenue_{NAME}_{MONTH}"),
            value: -USD_MAX..=USD_MAX,
            period: Some(MONTH),
            setters: &writers.finances,
        },
        Format {
            key: format!("operating_cost_{MONTH}"),
            value: money(),
            period: Some(MONTH),
            setters: &writers.finances,
        },
        Format {
            key: "token_rate_[A-Z][A-Z0-9_]{0,49}_(input|output)".to_owned(),
            value: 0.0..=RATE_USD_MAX,
            period: None,
            setters: &writers.token_rates,
        },
        Format { key: format!("venture_capital_{NAME}"), value: money(), period: None, setters: &writers.finances },
    ]
}

/// Whom a daily limit can bind.
fn limited(rules: &Rules) -> Vec<String> {
    let groups = rules.agents.groups().into_iter().map(str::to_uppercase);
    let agents = rules.agents.registered().into_iter().map(str::to_owned);
    [SYSTEM.to_owned()].into_iter().chain(groups).chain(agents).collect()
}

fn rules_of(format: &Format<'_>) -> Value {
    let mut properties = named([
        ("metric_value", json!({ "minimum": format.value.start(), "maximum": format.value.end() })),
        (
            "set_by",
            json!({ "enum": format.setters.iter().map(|name| json!(name)).chain([Value::Null]).collect::<Vec<_>>() }),
        ),
    ]);
    if let Some(period) = format.period {
        properties.insert("period".to_owned(), json!({ "pattern": format!("^{period}$") }));
    }
    json!({
        "if": { "properties": { "metric_key": { "pattern": format!("^{}$", format.key) } }, "required": ["metric_key"] },
        "then": { "properties": properties },
    })
}
