use super::*;
use crate::record::agents::Agents;
use crate::record::kinds::Record;
use crate::record::message::{Headers, Incarnation};
use crate::record::registry::Registry;
use crate::record::rules::{RuleSettings, Rules};
use crate::record::verdict::Verdict;
use crate::record::writers::Writers;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const SERVER_TIME_NS: i64 = 1_771_609_634_568_123_456;
const COMMITTED_AT_US: i64 = 1_771_609_635_000_000;
const COMMITTED_AT: &str = "2026-02-20 17:47:15";

fn message(subject: &str, payload: impl Into<bytes::Bytes>) -> Message {
    Message {
        incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 7 },
        sequence: 3,
        subject: subject.to_owned(),
        server_time_ns: SERVER_TIME_NS,
        headers: Headers::NONE,
        payload: payload.into(),
    }
}

fn row(message: &Message) -> BTreeMap<&'static str, ExpectedValue<'_>> {
    let row = Row::of(message, COMMITTED_AT_US, None).expect("a good record");
    let table = Subject::parse(&message.subject).expect("a lane").lane.table();
    assert_eq!(row.values.len(), table.rows().columns.len());
    table.rows().columns.iter().copied().zip(row.values).collect()
}

fn said(text: &str) -> ExpectedValue<'_> {
    ExpectedValue::Json(Some(RecordFacts { text, value: Json::parse(text, NESTING_MAX).expect("JSON") }))
}

fn text(text: &str) -> ExpectedValue<'static> {
    ExpectedValue::Text(Some(text.to_owned().into()))
}

fn number(text: &str) -> ExpectedValue<'static> {
    ExpectedValue::Number(Decimal::parse(text))
}

#[test]
fn an_event_without_a_timestamp_was_stamped() {
    let event = json!({"event_id": "e", "actor": "a", "action": "b", "outcome": "c", "details": {"n": 1.10}});
    let message = message("ledger.EXEC.a", event.to_string());
    let row = row(&message);
    assert_eq!(row["timestamp"], text("2026-02-20 17:47:14.568123"));
    assert_eq!(row["timestamp_text"], text("2026-02-20T17:47:14.568123456Z"));
    assert_eq!(row["integrity_hash"], text(&integrity_hash("e", "a", "b", "c", "2026-02-20T17:47:14.568123456Z")));
    assert_eq!(row["details"], said(r#"{"n":1.1}"#));
    assert_eq!((&row["task_id"], &row["created_at"]), (&ExpectedValue::Text(None), &text(COMMITTED_AT)));
}

#[test]
fn an_event_has_the_id_of_custody_where_its_bytes_can_have_that() {
    let event =
        json!({"event_id": "e", "actor": "a", "action": "b", "outcome": "c", "timestamp": "2026-02-20T17:47:14Z"});
    let message = message("ledger.EXEC.a", event.to_string());
    let [short, long] = ContentFingerprint::of(&message, true).ids("e");
    for (stored_as, id) in
        [(None, "e"), (Some("e"), "e"), (Some("e~00000000"), "e"), (Some(&*short), &*short), (Some(&*long), &*long)]
    {
        let row = Row::of(&message, 0, stored_as).expect("a good record");
        assert_eq!(row.record_id, id);
        assert_eq!(row.values[7], text(&integrity_hash(id, "a", "b", "c", "2026-02-20T17:47:14Z")));
    }
}

#[test]
fn a_usage_has_the_day_of_its_timestamp_and_its_place_for_a_name() {
    let given = json!({"agent_name": "a", "tokens_input": 1e3, "tokens_output": 0, "cost_usd": 3e-5, "timestamp": "2026-02-20T23:59:59-01:00"});
    let given = message("ledger.TOKENS.a", given.to_string());
    let given = row(&given);
    assert_eq!((&given["date"], &given["tokens_input"]), (&text("2026-02-21"), &text("1000")));
    assert_eq!((&given["cost_usd"], &given["input_rate_id"]), (&number("0.00003"), &ExpectedValue::Text(None)));
    assert_eq!(given["usage_id"], text("7-3-1771609634568123456"));
    let priced =
        json!({"agent_name": "a", "tokens_input": 1, "tokens_output": 2, "usage_id": "u", "model_tier": "ECONOMY"});
    let priced = message("ledger.TOKENS.a", priced.to_string());
    let priced = row(&priced);
    assert_eq!((&priced["cost_given"], &priced["cost_usd"]), (&text("false"), &ExpectedValue::Priced));
    assert_eq!((&priced["usage_id_given"], &priced["date"]), (&text("true"), &text("2026-02-20")));
    let pricing = Pricing { tier: None, tokens_input: 1, tokens_output: 2 };
    let rate = |text| Decimal::parse(text).expect("a number");
    assert_eq!(pricing.cost(&rate("0.00025"), &rate("0.00125")), rate("0.00000275"));
}

#[test]
fn a_metric_has_the_period_of_its_key_and_its_publisher() {
    let metric = json!({"metric_key": "operating_cost_2026-02", "metric_value": 0.25});
    let metric = message("ledger.METRIC.VRA-CFO", metric.to_string());
    let row = row(&metric);
    assert_eq!((&row["period"], &row["set_by"]), (&text("2026-02"), &text("VRA-CFO")));
    assert_eq!((&row["metric_value"], &row["created_at"]), (&number("0.250"), &text(COMMITTED_AT)));
}

#[test]
fn a_use_of_a_tool_without_a_time_has_the_servers_rounded_as_postgresql_does() {
    let id = "0F8fad5b-d9cb-469f-a165-70867728950e";
    let usage = json!({"agent_id": id, "tool_id": id, "cost_usd": 0.000_000_5});
    let usage = message("ledger.USAGE.a", usage.to_string());
    let row = row(&usage);
    assert_eq!(row["created_at"], text("2026-02-20 17:47:14.568123+00"));
    assert_eq!((&row["agent_id"], &row["cost_usd"]), (&text(&id.to_lowercase()), &number("0.000001")));
    assert_eq!((&row["venture_id"], &row["tokens_consumed"]), (&ExpectedValue::Venture(None), &text("0")));
    assert_eq!(moment_of_ns(1_500_000_000).as_deref(), Some("1970-01-01 00:00:01.5"));
    assert_eq!(moment_of_ns(999_999_999).as_deref(), Some("1970-01-01 00:00:01"));
}

#[test]
fn bytes_that_are_no_record_are_named() {
    for (subject, payload, says) in [
        ("dlq.x", "{}", "no lane"),
        ("ledger.EXEC.a", "{}", "event_id is absent"),
        ("ledger.EXEC.a", "[", "malformed_json"),
        ("ledger.METRIC.a", r#"{"metric_key":"x","metric_value":1}"#, "none of the formats"),
        ("ledger.USAGE.a", r#"{"agent_id":"x"}"#, "no UUID"),
        ("ledger.TOKENS.a", r#"{"agent_name":"a","tokens_input":1.5}"#, "no whole number"),
    ] {
        let error = Row::of(&message(subject, payload), 0, None).expect_err(payload);
        assert!(error.contains(says), "{payload}: {error}");
    }
}

fn rules() -> Rules {
    let everybody = vec!["RXY-CEO".to_owned()];
    let writers = Writers {
        trails: everybody.clone(),
        daily_limits: everybody.clone(),
        token_rates: everybody.clone(),
        finances: everybody,
        ..Writers::default()
    };
    Rules {
        agents: Agents::parse(include_str!("../../registry/agent_schema.yaml"), &[]).expect("shipped"),
        registry: Registry::parse(&[include_str!("../../registry/actions.yaml")]).expect("shipped"),
        settings: RuleSettings { writers, ..RuleSettings::default() },
    }
}

proptest! {
    /// The judging and the derivation read the same bytes in the same way.
    #[test]
    fn what_the_rules_accept_is_what_is_derived(
        input in 0_i64..100_000, cost in 0.0..1000.0, value in -1000.0..1000.0, seconds in 0_u32..86_400, extra in "\\PC{0,20}", given in any::<bool>()
    ) {
        let rules = rules();
        let time = format!("2026-02-20T{:02}:{:02}:{:02}.25+05:30", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut usage = json!({"agent_name": "RXY-CEO", "tokens_input": input, "tokens_output": 1, "cost_usd": cost, "task_id": extra});
        if given {
            usage["timestamp"] = time.clone().into();
        }
        let usage = message("ledger.TOKENS.RXY-CEO", usage.to_string());
        let Verdict::Record(Record::TokenUsage(judged)) = rules.judge(&usage) else { panic!("good") };
        let row = Row::of(&usage, 0, None).expect("good");
        prop_assert_eq!(&row.record_id, &judged.usage_id);
        prop_assert_eq!(&row.values[3], &text(&judged.date));
        prop_assert_eq!(&row.values[8], &ExpectedValue::Text(judged.task_id.map(Cow::Owned)));
        prop_assert_eq!(&row.values[12], &number(judged.cost.given().expect("given").text()));

        let metric = json!({"metric_key": "venture_revenue_x_2026-02", "metric_value": value});
        let metric = message("ledger.METRIC.RXY-CEO", metric.to_string());
        let Verdict::Record(Record::Metric(judged)) = rules.judge(&metric) else { panic!("good") };
        let row = Row::of(&metric, 0, None).expect("good");
        prop_assert_eq!(&row.values[1], &number(judged.value.text()));
        prop_assert_eq!(&row.values[2], &ExpectedValue::Text(judged.period.map(Cow::Owned)));

        let event = json!({
            "event_id": "SEC-RXY-CEO-1708451234567", "actor": "RXY-CEO", "action": "TASK_INTAKE", "outcome": "SUCCESS",
            "timestamp": time, "details": {"x": extra},
        });
        let event = message("ledger.SEC.RXY-CEO", event.to_string());
        let Verdict::Record(Record::Event(judged)) = rules.judge(&event) else { panic!("good") };
        let row = Row::of(&event, 0, None).expect("good");
        prop_assert_eq!(&row.values[4], &said(judged.details.as_deref().expect("given")));
        prop_assert_eq!(&row.values[6], &text(&judged.time.utc().replace('T', " ")));
        prop_assert_eq!(&row.values[7], &text(&judged.integrity_hash));
    }
}
