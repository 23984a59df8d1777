//! Judging is total, and keeps its rules: any bytes on any lane get a verdict without a panic; whatever is accepted is
//! JSON that others read too, under an id of its lane and actor, with the specification's hash; and whatever is rejected says
//! why in one short line.
//!
//! `make fuzz` runs it.

#![no_main]

use bytes::Bytes;
use ledgerd::record::agents::Agents;
use ledgerd::record::event::integrity_hash;
use ledgerd::record::kinds::Record;
use ledgerd::record::message::{Headers, Incarnation, Message};
use ledgerd::record::registry::Registry;
use ledgerd::record::reject::DETAIL_BYTES_MAX;
use ledgerd::record::rules::{RuleSettings, Rules};
use ledgerd::record::verdict::Verdict;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static STRICT: LazyLock<Rules> = LazyLock::new(|| rules(false));
static LENIENT: LazyLock<Rules> = LazyLock::new(|| rules(true));

fn rules(lenient: bool) -> Rules {
    let extra = ["ARCHITECT".to_owned()];
    Rules {
        agents: Agents::parse(include_str!("../../registry/agent_schema.yaml"), &extra).expect("the shipped agents"),
        registry: Registry::parse(&[include_str!("../../registry/actions.yaml")]).expect("the shipped registry"),
        settings: RuleSettings {
            any_event_id: lenient,
            stamp_missing_timestamp: lenient,
            distinct_repeated_ids: lenient,
            ..RuleSettings::default()
        },
    }
}

const SUBJECTS: [&str; 8] = [
    "ledger.EXEC.BRM-CTO",
    "ledger.SEC.WRK-006",
    "ledger.VOTE.RXY-CEO",
    "ledger.TOOL.BRM-WFB-01",
    "ledger.TOKENS.WRK-006",
    "ledger.TRAIL.RXY-CEO",
    "ledger.METRIC.VRA-CFO",
    "ledger.USAGE.BRM-CTO",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, payload) = input;
    let subject = SUBJECTS[usize::from(choice) % SUBJECTS.len()];
    let message = Message {
        incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 1 },
        sequence: 1,
        subject: subject.to_owned(),
        server_time_ns: 1_771_609_634_568_000_000,
        headers: Headers::NONE,
        payload: Bytes::copy_from_slice(payload),
    };
    let rules = if choice & 0x80 == 0 { &*STRICT } else { &*LENIENT };
    match rules.judge(&message) {
        Verdict::Record(record) => {
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload).expect("others read it too");
            assert!(!record.id().is_empty() && !record.id().contains('\0'));
            let Record::Event(event) = record else { return };
            let lane = subject.split('.').nth(1).expect("a lane");
            let actor = if choice & 0x80 == 0 { format!("{}-", event.actor) } else { String::new() };
            assert!(event.event_id.starts_with(&format!("{lane}-{actor}")));
            assert!(subject.ends_with(&event.actor));
            let hash = integrity_hash(&event.event_id, &event.actor, &event.action, &event.outcome, event.time.text());
            assert_eq!(event.integrity_hash, hash);
            if let Some(details) = &event.details {
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(details).expect("an object");
            }
        }
        Verdict::Reject { rejection, .. } => {
            let detail = rejection.detail();
            assert!(!detail.is_empty() && detail.len() <= DETAIL_BYTES_MAX && !detail.contains(char::is_control));
        }
    }
});
