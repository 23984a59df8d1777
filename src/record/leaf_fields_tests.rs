use super::*;
use crate::record::leaf::Leaf;
use crate::record::message::Incarnation;
use crate::record::reject::{Reason, Rejection};
use proptest::prelude::*;
use std::sync::Arc;

fn example() -> LeafFields {
    LeafFields {
        stream: "LEDGER".to_owned(),
        stream_created_ns: 1_763_785_913_123_456_789,
        regressions: 2,
        sequence: 7,
        subject: "ledger.EXEC.BRM-CTO".to_owned(),
        server_time_ns: 1_771_609_634_568_000_001,
        headers_sha256: Some([1; 32]),
        payload_sha256: [2; 32],
        disposition: Disposition::Rejected,
        record_id: Some("EXEC-BRM-CTO-1708451234568".to_owned()),
        row_id: Some(1),
        committed_at_us: 1_771_609_634_570_000,
        rejection: Some(LeafRejection { reason: "too_long".to_owned(), detail: "task_id is too long".to_owned() }),
    }
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>()
}

fn fields() -> impl Strategy<Value = LeafFields> {
    let numbers = (any::<i64>(), any::<i32>(), any::<i64>(), any::<i64>(), any::<i64>(), any::<Option<i64>>());
    let texts = (".{0,8}", ".{0,40}", proptest::option::of(".{0,30}"), proptest::option::of((0_usize..24, ".{0,60}")));
    let hashes = (proptest::option::of(hash()), hash(), 0_usize..3);
    (numbers, texts, hashes).prop_map(|(numbers, texts, hashes)| {
        let (stream_created_ns, regressions, sequence, server_time_ns, committed_at_us, row_id) = numbers;
        let (stream, subject, record_id, rejection) = texts;
        let (headers_sha256, payload_sha256, disposition) = hashes;
        let rejection = rejection.map(|(reason, detail)| Rejection::new(Reason::ALL[reason], &detail));
        LeafFields {
            stream,
            stream_created_ns,
            regressions,
            sequence,
            subject,
            server_time_ns,
            headers_sha256,
            payload_sha256,
            disposition: [Disposition::Recorded, Disposition::Duplicate, Disposition::Rejected][disposition],
            record_id,
            row_id,
            committed_at_us,
            rejection: rejection.map(|rejection| LeafRejection {
                reason: rejection.reason().code().to_owned(),
                detail: rejection.detail().to_owned(),
            }),
        }
    })
}

/// The leaf that custody makes of the same fields.
fn leaf_in_custody(fields: &LeafFields) -> Vec<u8> {
    let incarnation = Incarnation { stream: Arc::from(fields.stream.as_str()), created_ns: fields.stream_created_ns };
    let rejection = fields.rejection.as_ref().map(|cause| {
        let reason = Reason::ALL.iter().copied().find(|reason| reason.code() == cause.reason).expect("one of ours");
        Rejection::new(reason, &cause.detail)
    });
    Leaf {
        stream: &incarnation.stream,
        stream_created_ns: incarnation.created_ns,
        regressions: fields.regressions,
        sequence: fields.sequence,
        subject: &fields.subject,
        server_time_ns: fields.server_time_ns,
        headers_sha256: fields.headers_sha256,
        payload_sha256: fields.payload_sha256,
        disposition: fields.disposition,
        record_id: fields.record_id.as_deref(),
        row_id: fields.row_id,
        committed_at_us: fields.committed_at_us,
        rejection: rejection.as_ref().map(|it| (it.reason().code(), it.detail())),
    }
    .encode()
}

#[test]
fn what_is_no_leaf_is_refused_with_its_reason() {
    let leaf = example().encode();
    let bad = |bytes: &[u8]| LeafFields::decode(bytes).expect_err("no leaf").to_string();
    assert!(bad(b"").contains("another text at the beginning"));
    assert!(bad(MAGIC).contains("end within a field"));
    let mut version_2 = leaf.clone();
    version_2[MAGIC.len()] = 2;
    assert!(bad(&version_2).contains("version 2"));
    let with = |tag: u8, value: &[u8]| {
        let mut longer = leaf.clone();
        tlv::write(&mut longer, tag, value);
        longer
    };
    assert!(bad(&with(15, b"new")).contains("unknown field 15"));
    assert!(bad(&with(14, b"again")).contains("ascending"));
    // Cut before the reason, it is the leaf of a message that was not rejected.
    for end in MAGIC.len()..leaf.len() {
        let cut = LeafFields::decode(&leaf[..end]);
        assert!(cut.is_err() || cut == Ok(LeafFields { rejection: None, ..example() }), "cut at {end}");
    }
    let without = |tag: u8| {
        let mut shorter = [MAGIC, &[VERSION]].concat();
        for (other, value) in tlv::read(&leaf, MAGIC, VERSION).expect("a leaf") {
            if other != tag {
                tlv::write(&mut shorter, other, value);
            }
        }
        shorter
    };
    for tag in [1, 2, 3, 4, 5, 6, 8, 9, 12, 13, 14] {
        assert!(bad(&without(tag)).contains("is missing"), "{tag}");
    }
    for tag in [7, 10, 11] {
        assert!(LeafFields::decode(&without(tag)).is_ok(), "{tag}");
    }
}

proptest! {
    #[test]
    fn what_custody_hashes_is_read_back(fields in fields()) {
        let leaf = leaf_in_custody(&fields);
        prop_assert_eq!(&leaf, &fields.encode());
        prop_assert_eq!(LeafFields::decode(&leaf), Ok(fields));
    }

    #[test]
    fn a_leaf_has_one_spelling(at in 0_usize..400, flip in 1_u8..=255) {
        let mut leaf = example().encode();
        let at = at % leaf.len();
        leaf[at] ^= flip;
        if let Ok(fields) = LeafFields::decode(&leaf) {
            prop_assert_ne!(&fields, &example());
            prop_assert_eq!(fields.encode(), leaf);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let leaf = [MAGIC, &[VERSION], &bytes].concat();
        if let Ok(fields) = LeafFields::decode(&leaf) {
            prop_assert_eq!(fields.encode(), leaf);
        }
    }
}
