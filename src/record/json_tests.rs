use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

const NESTING_MAX: usize = 8;

fn reason(text: &str) -> Option<Reason> {
    Object::parse(text.as_bytes(), NESTING_MAX).err().map(|rejection| rejection.reason())
}

#[test]
fn each_departure_has_its_reason_and_its_place() {
    for (text, expected, place) in [
        ("", Reason::MalformedJson, "ends"),
        ("[]", Reason::WrongType, "an array"),
        ("\"x\"", Reason::WrongType, "a string"),
        ("{} {}", Reason::MalformedJson, "end of the message"),
        ("{\"a\":1,}", Reason::MalformedJson, "key"),
        ("{\"a\":01}", Reason::MalformedJson, "a"),
        ("{\"a\":1.}", Reason::MalformedJson, "digit"),
        ("{\"a\":+1}", Reason::MalformedJson, "value"),
        ("{\"a\":\"\u{1}\"}", Reason::MalformedJson, "escaped"),
        ("{\"a\":\"\\ud800\"}", Reason::MalformedJson, "surrogate"),
        ("{\"a\":\"\\udc00\"}", Reason::MalformedJson, "surrogate"),
        ("{\"a\":\"\\ud800\\u0041\"}", Reason::MalformedJson, "surrogate"),
        ("{\"a\":{\"b\":[0,{\"c\":1,\"c\":2}]}}", Reason::DuplicateKey, "a.b[1]: the key \"c\""),
        ("{\"a\":1,\"\\u0061\":2}", Reason::DuplicateKey, "\"a\""),
        ("{\"a\":[\"\\u0000\"]}", Reason::NulCharacter, "a[0]"),
        ("{\"\\u0000\":1}", Reason::NulCharacter, "\\u0000"),
        ("{\"a\":[[[[[[[[1]]]]]]]]}", Reason::TooLarge, "8 levels"),
    ] {
        let rejection = Object::parse(text.as_bytes(), NESTING_MAX).expect_err(text);
        assert_eq!(rejection.reason(), expected, "{text}: {rejection}");
        assert!(rejection.detail().contains(place), "{text}: {rejection}");
    }
    assert_eq!(Object::parse(b"{\"a\":\"\xff\"}", NESTING_MAX).expect_err("bytes").reason(), Reason::NotUtf8);
}

#[test]
fn a_number_passes_if_a_double_gives_the_same_digits_back() {
    for good in [
        "0",
        "-0",
        "0.0",
        "0.1",
        "0.045",
        "1.10",
        "1e2",
        "1E+2",
        "9007199254740992",
        "123456789012345680000",
        "1e308",
        "5e-324",
        "0.30000000000000004",
        "0.10000000000000001",
        "-17.25",
        "0e300",
    ] {
        assert_eq!(reason(&format!("{{\"a\":{good}}}")), None, "{good}");
    }
    let many_zeros = format!("1.{}", "0".repeat(17_000));
    let many_digits = format!("0.{}", "3".repeat(100_000));
    for bad in [
        "9007199254740993",
        "-9007199254740993",
        "18446744073709551615",
        "1e309",
        "-1e400000",
        "1e-400",
        "1e131072",
        "0.12345678901234567890",
        many_digits.as_str(),
        many_zeros.as_str(),
        "0e-99999",
        "0e99999999999999999999",
    ] {
        assert_eq!(reason(&format!("{{\"a\":{bad}}}")), Some(Reason::NumberOutOfRange), "{bad:.40}");
    }
}

#[test]
fn a_member_keeps_the_text_that_the_publisher_wrote() {
    let object =
        Object::parse(br#"{ "details" : {"b": 1.10, "a":1e2} , "task_id":null}"#, NESTING_MAX).expect("an object");
    assert_eq!(object.text_of("details"), Some(r#"{"b": 1.10, "a":1e2}"#));
    assert_eq!(object.text_of("task_id"), None);
    assert_eq!(object.get("task_id"), None);
    assert_eq!(object.keys().collect::<Vec<_>>(), ["details", "task_id"]);
}

#[test]
fn a_key_that_stands_twice_is_found_among_many() {
    let members = |count: usize| (0..count).map(|number| format!("\"k{number}\":0,")).collect::<String>();
    for count in [1, MEMBERS_LOOKED_THROUGH_MAX - 1, MEMBERS_LOOKED_THROUGH_MAX, MEMBERS_LOOKED_THROUGH_MAX + 1, 1000] {
        let text = |key: &str| format!("{{{}\"{key}\":1}}", members(count));
        assert_eq!(reason(&text("another")), None, "{count}");
        for twice in [0, count / 2, count - 1] {
            assert_eq!(reason(&text(&format!("k{twice}"))), Some(Reason::DuplicateKey), "{count}");
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |double| double.is_finite()).prop_map(Value::from),
        "[^\\x00]{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map("[^\\x00]{0,6}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_serde_json_writes_is_read_back_the_same(value in any_json()) {
        let text = serde_json::to_string(&serde_json::json!({ "a": value })).expect("JSON");
        let object = Object::parse(text.as_bytes(), 64).expect("the text is good");
        prop_assert_eq!(object.members[0].value.to_value(), value);
    }

    #[test]
    fn any_bytes_are_read_or_rejected_and_what_is_read_serde_json_reads_too(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if Object::parse(&bytes, NESTING_MAX).is_ok() {
            prop_assert!(serde_json::from_slice::<Map<String, Value>>(&bytes).is_ok());
        }
    }

    #[test]
    fn json_like_text_is_judged_as_serde_json_judges_it_but_for_the_strict_rules(text in "[{}\\[\\]\",:0-9eE.+\\-a-f\\\\untrsl ]{0,40}") {
        let text = format!("{{\"k\":{text}}}");
        let ours = Object::parse(text.as_bytes(), NESTING_MAX);
        match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(_) => if let Err(rejection) = ours {
                let strict = [Reason::DuplicateKey, Reason::NulCharacter, Reason::NumberOutOfRange, Reason::TooLarge];
                prop_assert!(strict.contains(&rejection.reason()), "{}: {}", text, rejection);
            },
            Err(error) => prop_assert!(ours.is_err(), "{}: {}", text, error),
        }
    }
}
