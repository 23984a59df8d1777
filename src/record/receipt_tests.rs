use super::*;
use crate::record::message::Headers;
use std::sync::Arc;

fn message(subject: &str, headers: &[(&str, &str)], payload: &str) -> Message {
    Message {
        incarnation: Incarnation { stream: Arc::from("LEDGER"), created_ns: 1 },
        sequence: 7,
        subject: subject.to_owned(),
        server_time_ns: 2,
        headers: Headers::from_pairs(headers.iter().copied()),
        payload: payload.to_owned().into(),
    }
}

fn receipt_subject(subject: &str, message_id: Option<&str>, payload: &str) -> String {
    let mut headers = vec![("Ledger-Receipt", "1")];
    headers.extend(message_id.map(|id| ("Nats-Msg-Id", id)));
    Asked::of(&message(subject, &headers, payload)).expect("it asks").receipt_subject
}

#[test]
fn only_who_asks_is_told() {
    for (headers, asks) in [
        (&[][..], false),
        (&[("Ledger-Receipt", "1")], true),
        (&[("ledger-receipt", " 1 ")], true),
        (&[("Ledger-Receipt", "0")], false),
        (&[("Ledger-Receipt", "receipt.RXY-CEO.x")], false),
        (&[("Ledger-Receipt-To", "1")], false),
    ] {
        assert_eq!(Asked::of(&message("ledger.EXEC.A", headers, "{}")).is_some(), asks, "{headers:?}");
    }
    let unreadable =
        Message { headers: Headers::from_block(b"NATS/1.0\r\nA: \xff\r\n\r\n"), ..message("ledger.EXEC.A", &[], "") };
    assert_eq!(Asked::of(&unreadable), None);
}

#[test]
fn a_receipt_goes_by_the_records_own_id_then_the_message_id_then_the_sequence() {
    let event = r#"{"event_id": "EXEC-BRM-CTO-1708451234568"}"#;
    for (subject, message_id, payload, expected) in [
        ("ledger.EXEC.BRM-CTO", Some("m-1"), event, "receipt.BRM-CTO.EXEC-BRM-CTO-1708451234568"),
        ("ledger.EXEC.BRM-CTO", Some("m-1"), "{}", "receipt.BRM-CTO.m-1"),
        ("ledger.EXEC.BRM-CTO", None, "what is this?", "receipt.BRM-CTO.seq-7"),
        ("ledger.EXEC.BRM-CTO", Some(""), r#"{"event_id": 5}"#, "receipt.BRM-CTO.seq-7"),
        ("ledger.TRAIL.RXY-CEO", None, r#"{"trail_id": "TRAIL-P-1"}"#, "receipt.RXY-CEO.TRAIL-P-1"),
        ("ledger.TOKENS.WRK-006", None, r#"{"usage_id": "call-1"}"#, "receipt.WRK-006.call-1"),
        ("ledger.TOKENS.WRK-006", None, r#"{"agent_name": "WRK-006"}"#, "receipt.WRK-006.seq-7"),
        // Its key is that of many rows.
        ("ledger.METRIC.VRA-CFO", None, r#"{"metric_key": "daily_limit_RXY-CEO"}"#, "receipt.VRA-CFO.seq-7"),
    ] {
        assert_eq!(receipt_subject(subject, message_id, payload), expected, "{payload}");
    }
}

#[test]
fn whatever_a_publisher_writes_becomes_one_token_and_no_two_share_it() {
    let long = "x".repeat(300);
    let texts = ["a", "a.b", "ab", "*", ">", "a b", "seq-7", "é", "TOOL-A-2026-02-20T17:47:14", long.as_str()];
    let tokens: std::collections::BTreeSet<String> = texts.iter().map(|text| token(text)).collect();
    assert_eq!(tokens.len(), texts.len(), "{tokens:?}");
    for token in tokens {
        let is_safe = |character: char| character.is_ascii_alphanumeric() || "-_~".contains(character);
        assert!(!token.is_empty() && token.len() <= TOKEN_CHARS_MAX && token.chars().all(is_safe), "{token}");
    }
    assert_eq!(token("seq-7").split_once('~').map(|(kept, digest)| (kept, digest.len())), Some(("seq-7", 32)));
}

#[test]
fn a_servers_answer_and_a_copy_from_elsewhere_are_no_receipts() {
    let receipt = Receipt {
        status: Status::Rejected,
        event_id: None,
        integrity_hash: None,
        leaf_hash: "00".repeat(32),
        leaf_index: 3,
        payload_sha256: Some("11".repeat(32)),
        committed_at: "2026-02-20T17:47:14Z".into(),
        reason: Some("malformed_json".into()),
        detail: Some("\"".repeat(crate::record::reject::DETAIL_BYTES_MAX)),
        stream: "LEDGER".into(),
        sequence: 7,
        subject: "receipt.BRM-CTO.seq-7".into(),
    };
    let bytes = receipt.to_bytes();
    assert!(String::from_utf8_lossy(&bytes).contains(r#""status":"REJECTED""#));
    assert_eq!(Receipt::parse(&bytes, "receipt.BRM-CTO.seq-7"), Some(receipt));
    assert_eq!(Receipt::parse(&bytes, "receipt.RXY-CEO.seq-7"), None);
    assert_eq!(Receipt::parse(br#"{"stream":"LEDGER","seq":7}"#, "receipt.BRM-CTO.seq-7"), None);
}
