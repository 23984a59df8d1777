//! The definitions of the streams and consumers from the files in `nats/`, and the differences of a server's from them.

use crate::record::lane::Lane;
use async_nats::jetstream::{consumer, stream};
use serde_json::Value;
use std::fmt;

const LEDGER: &str = include_str!("../../nats/streams/LEDGER.json");
const DLQ: &str = include_str!("../../nats/streams/LEDGER_DLQ.json");
const RECEIPTS: &str = include_str!("../../nats/streams/LEDGER_RECEIPTS.json");
const ALERTS: &str = include_str!("../../nats/streams/LEDGER_ALERTS.json");
const CONSUMER: &str = include_str!("../../nats/consumers/lane.json");

/// The names of the streams in this deployment.
#[derive(Clone, Debug)]
pub struct Names {
    /// Everything that agents publish.
    pub ledger: String,
    pub dlq: String,
    pub receipts: String,
    pub alerts: String,
    /// What the consumers' names begin with.
    pub consumer_prefix: String,
    /// Copies of each stream in the cluster.
    pub replicas: usize,
}

impl Names {
    /// The name of a lane's consumer.
    pub fn consumer(&self, lane: Lane) -> String {
        format!("{}-{lane}", self.consumer_prefix)
    }

    /// The streams to have, as the files say.
    pub fn streams(&self) -> [stream::Config; 4] {
        let files = [(LEDGER, &self.ledger), (DLQ, &self.dlq), (RECEIPTS, &self.receipts), (ALERTS, &self.alerts)];
        files.map(|(file, name)| {
            let mut config: stream::Config =
                serde_json::from_str(file).expect("the shipped file is good, as a test shows");
            if file == LEDGER {
                config.subjects.extend(Lane::added().into_iter().map(Lane::filter));
            }
            config.name.clone_from(name);
            config.num_replicas = self.replicas;
            config
        })
    }
}

/// What the daemon's user may publish at the server for one lane: look at the consumer, make it, delete it, pull, and
/// acknowledge in both forms of the subject. `nats/nats-server.conf` has these for the lanes of the specification.
pub fn permissions(names: &Names, lane: Lane) -> [String; 6] {
    let (stream, consumer) = (&names.ledger, names.consumer(lane));
    [
        format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{}", lane.filter()),
        format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        format!("$JS.ACK.{stream}.{consumer}.>"),
        format!("$JS.ACK.*.*.{stream}.{consumer}.>"),
    ]
}

/// A lane's consumer, as the file says. The daemon makes it with a start and a mark beside (`binding`).
pub fn consumer(names: &Names, lane: Lane) -> consumer::Config {
    let mut config: consumer::Config =
        serde_json::from_str(CONSUMER).expect("the shipped file is good, as a test shows");
    let name = names.consumer(lane);
    config.description = Some(format!("The lane {lane}: a cursor that ledgerd makes anew from its position"));
    config.filter_subject = lane.filter();
    config.durable_name = Some(name.clone());
    config.name = Some(name);
    config
}

/// One setting in which the server differs from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub of: String,
    pub setting: String,
    pub expected: Value,
    pub found: Value,
    /// With it, messages can be lost: the daemon refuses to run.
    pub dangerous: bool,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, setting, expected, found, dangerous } = self;
        let danger = if *dangerous { ", and messages can be lost by it" } else { "" };
        write!(f, "{of}: {setting} is {found}, and is shipped as {expected}{danger}")
    }
}

/// How a stream differs. `is_ledger`: it holds what agents publish.
pub fn stream_drift(expected: &stream::Config, found: &stream::Config, is_ledger: bool) -> Vec<Drift> {
    let is_dangerous = |setting: &str, found: &Value| match setting {
        "discard" => is_ledger && found == "old",
        "retention" => is_ledger && found != "limits",
        "subjects" => is_ledger && captures_dead_letters(&as_texts(found)),
        _ => false,
    };
    differences(&format!("stream {}", expected.name), expected, found, is_dangerous)
}

/// How a lane's consumer differs. Where it starts is the daemon's to say, which makes it anew from the lane's position.
pub fn consumer_drift(names: &Names, lane: Lane, found: &consumer::Config) -> Vec<Drift> {
    let is_dangerous = |setting: &str, found: &Value| match setting {
        "max_deliver" => found.as_i64().is_some_and(|times| times > 0),
        // Some messages would never come, be acknowledged unseen, or come without their bytes.
        "ack_policy" | "filter_subject" | "filter_subjects" | "deliver_subject" | "headers_only" => true,
        _ => false,
    };
    let starts_from_the_beginning = consumer::Config {
        deliver_policy: consumer::DeliverPolicy::All,
        // An operator may pause a lane.
        pause_until: None,
        ..found.clone()
    };
    let mut drift = differences(
        &format!("consumer {}", names.consumer(lane)),
        &consumer(names, lane),
        &starts_from_the_beginning,
        is_dangerous,
    );
    if !matches!(found.deliver_policy, consumer::DeliverPolicy::All | consumer::DeliverPolicy::ByStartSequence { .. }) {
        drift.push(Drift {
            of: format!("consumer {}", names.consumer(lane)),
            setting: "deliver_policy".to_owned(),
            expected: Value::from("by_start_sequence"),
            found: serde_json::to_value(found.deliver_policy).unwrap_or_default(),
            dangerous: true,
        });
    }
    drift
}

/// Why a lane's consumer cannot be read on; `None` when it can.
pub(crate) fn consumer_danger(names: &Names, lane: Lane, found: &consumer::Config) -> Option<String> {
    consumer_drift(names, lane, found).into_iter().find(|drift| drift.dangerous).map(|drift| drift.to_string())
}

/// Settings that the server writes by itself, or that mean nothing to the ledger.
const IGNORED: [&str; 3] = ["metadata", "description", "name"];

fn differences<T: serde::Serialize>(
    of: &str,
    expected: &T,
    found: &T,
    is_dangerous: impl Fn(&str, &Value) -> bool,
) -> Vec<Drift> {
    let as_object = |config: &T| match serde_json::to_value(config) {
        Ok(Value::Object(object)) => object,
        _ => unreachable!("a configuration serializes to an object"),
    };
    let (expected, found) = (as_object(expected), as_object(found));
    let settings: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    settings
        .into_iter()
        .filter(|setting| !IGNORED.contains(&setting.as_str()))
        .filter_map(|setting| {
            let (ours, theirs) = (expected.get(setting), found.get(setting));
            let same = match (ours, theirs) {
                (Some(ours), Some(theirs)) => ours == theirs || (is_unset(ours) && is_unset(theirs)),
                (Some(value), None) | (None, Some(value)) => is_unset(value),
                (None, None) => true,
            };
            let value_or_null = |value: Option<&Value>| value.cloned().unwrap_or(Value::Null);
            (!same).then(|| Drift {
                of: of.to_owned(),
                setting: setting.clone(),
                expected: value_or_null(ours),
                found: value_or_null(theirs),
                dangerous: is_dangerous(setting, &value_or_null(theirs)),
            })
        })
        .collect()
}

/// Zero, -1, empty and absent all mean "no limit" or "default" in these configurations.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_unset),
        Value::Bool(true) => false,
    }
}

fn as_texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether one of the subject patterns matches the subject of a dead letter.
pub fn captures_dead_letters(patterns: &[String]) -> bool {
    let matches = |pattern: &String| {
        let mut tokens = "dlq.ledger.EXEC.A.1".split('.');
        for token in pattern.split('.') {
            match (token, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(found)) if literal == found => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    };
    patterns.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            ledger: "LEDGER".into(),
            dlq: "LEDGER_DLQ".into(),
            receipts: "LEDGER_RECEIPTS".into(),
            alerts: "LEDGER_ALERTS".into(),
            consumer_prefix: "ledgerd".into(),
            replicas: 1,
        }
    }

    #[test]
    fn the_shipped_server_file_grants_what_each_lane_needs() {
        let server = include_str!("../../nats/nats-server.conf");
        for lane in Lane::BUILT_IN {
            for subject in permissions(&names(), lane) {
                assert!(server.contains(&format!("\"{subject}\"")), "{subject}");
            }
        }
    }

    #[test]
    fn the_shipped_files_are_read_and_safe() {
        let [ledger, dlq, ..] = names().streams();
        assert!(stream_drift(&ledger, &ledger, true).is_empty());
        assert!(Lane::BUILT_IN.iter().all(|lane| ledger.subjects.contains(&lane.filter())));
        assert!(dlq.max_message_size > ledger.max_message_size);
        for lane in Lane::BUILT_IN {
            let config = consumer(&names(), lane);
            assert!(consumer_drift(&names(), lane, &config).is_empty());
            assert_eq!(config.durable_name, Some(format!("ledgerd-{lane}")));
            assert_eq!(config.ack_policy, consumer::AckPolicy::All);
            assert_eq!(config.filter_subject, lane.filter());
            assert_eq!(config.max_deliver, -1);
        }
    }

    #[test]
    fn drift_that_can_lose_messages_is_dangerous() {
        let [ledger, ..] = names().streams();
        let discard = stream::Config { discard: stream::DiscardPolicy::Old, ..ledger.clone() };
        let drift = stream_drift(&ledger, &discard, true);
        assert_eq!((drift.len(), drift[0].dangerous), (1, true), "{drift:?}");
        let greedy = stream::Config { subjects: vec![">".into()], ..ledger.clone() };
        assert!(stream_drift(&ledger, &greedy, true)[0].dangerous);
        let exec = || consumer(&names(), Lane::Exec);
        let finite = consumer::Config { max_deliver: 5, ..exec() };
        let drift = consumer_drift(&names(), Lane::Exec, &finite);
        assert!(drift[0].dangerous && drift[0].to_string().contains("max_deliver is 5"), "{drift:?}");
        let slower = consumer::Config { max_ack_pending: 17, ..exec() };
        assert!(!consumer_drift(&names(), Lane::Exec, &slower)[0].dangerous);
        let newest = consumer::Config { deliver_policy: consumer::DeliverPolicy::New, ..exec() };
        assert!(consumer_drift(&names(), Lane::Exec, &newest)[0].dangerous);
        let from = consumer::DeliverPolicy::ByStartSequence { start_sequence: 7 };
        let from = consumer::Config { deliver_policy: from, ..exec() };
        assert!(consumer_drift(&names(), Lane::Exec, &from).is_empty());
    }
}
