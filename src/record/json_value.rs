//! JSON values that borrow from their text; numbers keep all their digits.

use crate::record::decimal::Decimal;
use serde_json::{Map, Number, Value};
use std::borrow::Cow;

/// A value. Text without escapes is that of the message itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number that a double can hold.
    Number {
        /// As it was written.
        text: &'a str,
        double: f64,
    },
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    /// An object, in the order of its text. No key stands twice.
    Object(Vec<Member<'a>>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member<'a> {
    pub key: Cow<'a, str>,
    pub value: Json<'a>,
    /// The value as it was written.
    pub text: &'a str,
}

impl<'a> Json<'a> {
    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    pub fn as_f64(&self) -> Option<f64> {
        if let Json::Number { double, .. } = self { Some(*double) } else { None }
    }

    pub fn members(&self) -> Option<&[Member<'a>]> {
        if let Json::Object(members) = self { Some(members) } else { None }
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.members()?.iter().find(|member| member.key == key).map(|member| &member.value)
    }

    /// What it is, for a sentence.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number { .. } => "a number",
            Json::Text(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }

    /// The same as others have it, numbers as integers or doubles.
    pub fn to_value(&self) -> Value {
        match self {
            Json::Null => Value::Null,
            Json::Bool(yes) => Value::Bool(*yes),
            Json::Number { text, double } => match text.parse::<i64>() {
                Ok(integer) if *text != "-0" => Value::from(integer),
                _ => Number::from_f64(*double).map_or(Value::Null, Value::Number),
            },
            Json::Text(text) => Value::from(&**text),
            Json::Array(items) => items.iter().map(Json::to_value).collect(),
            Json::Object(members) => {
                let members = members.iter().map(|member| (member.key.clone().into_owned(), member.value.to_value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    /// Whether both say the same: the order of keys and the form of numbers make no difference, and every digit does.
    pub fn says_the_same(&self, other: &Json<'_>) -> bool {
        match (self, other) {
            (Json::Null, Json::Null) => true,
            (Json::Bool(one), Json::Bool(other)) => one == other,
            (Json::Number { text: one, .. }, Json::Number { text: other, .. }) => {
                one == other || Decimal::parse(one).is_some_and(|one| Decimal::parse(other) == Some(one))
            }
            (Json::Text(one), Json::Text(other)) => one == other,
            (Json::Array(one), Json::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.says_the_same(other))
            }
            (Json::Object(one), Json::Object(other)) => {
                one.len() == other.len()
                    && by_key(one)
                        .zip(by_key(other))
                        .all(|(one, other)| one.key == other.key && one.value.says_the_same(&other.value))
            }
            _ => false,
        }
    }
}

fn by_key<'m, 'a>(members: &'m [Member<'a>]) -> impl Iterator<Item = &'m Member<'a>> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    members.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says_the_same(one: &str, other: &str) -> bool {
        let json = |text| Json::parse(text, 128).expect("JSON");
        json(one).says_the_same(&json(other))
    }

    #[test]
    fn json_is_compared_by_what_it_says() {
        for (one, other) in
            [(r#"{"a":1.10,"b":[null,true]}"#, r#" { "b" : [null, true], "a": 11e-1 } "#), (r#""\u00e9""#, "\"é\"")]
        {
            assert!(says_the_same(one, other), "{one}");
        }
        for (one, other) in [
            ("{}", r#"{"a":null}"#),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("0.1", "0.1000000000000000055511151231257827021181583404541015625"),
            ("1", "\"1\""),
            ("true", "false"),
        ] {
            assert!(!says_the_same(one, other), "{one}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_keys_makes_no_difference_and_any_value_does(
            members in prop::collection::btree_map("[a-c]{0,3}", any::<i32>(), 1..40), place in any::<prop::sample::Index>()
        ) {
            let written = |members: &[(&String, i32)]| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", members.join(","))
            };
            let mut list: Vec<_> = members.iter().map(|(key, value)| (key, *value)).collect();
            let one = written(&list);
            let middle = place.index(list.len());
            list.rotate_left(middle);
            prop_assert!(says_the_same(&one, &written(&list)));
            list[0].1 ^= 1;
            prop_assert!(!says_the_same(&one, &written(&list)));
        }
    }
}
