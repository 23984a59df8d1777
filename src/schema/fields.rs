//! The pieces that schemas are made of: objects, texts, numbers, timestamps. Each means the same in JSON Schema 2020-12 and in
//! draft 7, which is what `AsyncAPI` reads.

use crate::record::fields::Field;
use crate::record::lengths::TIMESTAMP_CHARS_MAX;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// Where a document keeps the schemas that others refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Definitions(&'static str);

impl Definitions {
    pub(crate) const OF_JSON_SCHEMA: Self = Self("#/$defs/");
    pub(crate) const OF_ASYNCAPI: Self = Self("#/components/schemas/");

    pub(crate) fn reference(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.0) })
    }
}

/// The name of the schema of any value that PostgreSQL can hold. Every record refers to it.
pub(crate) const STORABLE: &str = "storable";

/// What no text and no key may hold, however deep it stands.
pub(crate) fn storable(definitions: Definitions) -> Value {
    const WITHOUT_NUL: &str = "^[^\\u0000]*$";
    json!({
        "description": "PostgreSQL cannot hold U+0000.",
        "pattern": WITHOUT_NUL,
        "propertyNames": { "pattern": WITHOUT_NUL },
        "additionalProperties": definitions.reference(STORABLE),
        "items": definitions.reference(STORABLE),
    })
}

/// An object with these fields and no others. An optional one may be null, which is the same as absent.
pub(crate) fn object(description: &str, fields: &[Field], mut schemas: Map<String, Value>) -> Map<String, Value> {
    let mut required = Vec::new();
    for (name, is_required) in fields {
        let schema = schemas.get_mut(*name).expect("each field is described");
        if *is_required {
            required.push(*name);
        } else {
            admit_null(schema);
        }
    }
    let members = json!({
        "description": description, "type": "object", "required": required, "properties": schemas, "additionalProperties": false,
    });
    let Value::Object(members) = members else { unreachable!("it was written as an object") };
    members
}

fn admit_null(schema: &mut Value) {
    let of_type = schema["type"].take();
    schema["type"] = json!([of_type, "null"]);
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
}

/// The fields and their schemas, by name.
pub(crate) fn named<const N: usize>(schemas: [(&str, Value); N]) -> Map<String, Value> {
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

pub(crate) fn text(chars_max: usize) -> Value {
    json!({ "type": "string", "maxLength": chars_max })
}

pub(crate) fn text_like(pattern: &str, chars_max: usize) -> Value {
    json!({ "type": "string", "maxLength": chars_max, "pattern": pattern })
}

pub(crate) fn one_of(names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names })
}

/// A whole number that each column for counts can hold.
pub(crate) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": i32::MAX })
}

pub(crate) fn amount(range: &RangeInclusive<f64>) -> Value {
    json!({ "type": "number", "minimum": range.start(), "maximum": range.end() })
}

pub(crate) fn uuid() -> Value {
    json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$" })
}

/// An ISO 8601 date and time, in the extended or the basic form. Which years have a 29th of February is more than a pattern says.
pub(crate) fn timestamp() -> Value {
    const YEAR: &str = "([+-][0-9]{6}|[0-9]{4})";
    const TIME: &str = "([01][0-9]|2[0-3])(:?[0-5][0-9](:?([0-5][0-9]|60)([.,][0-9]{1,9})?)?)?";
    const OFFSET: &str = "([Zz]|[+-]([01][0-9]|2[0-5])(:?[0-5][0-9](:?[0-5][0-9]([.,][0-9]{1,9})?)?)?)?";
    let days = |hyphen: &str| {
        let months = [
            ("0[13578]|1[02]", "0[1-9]|[12][0-9]|3[01]"),
            ("0[469]|11", "0[1-9]|[12][0-9]|30"),
            ("02", "0[1-9]|[12][0-9]"),
        ];
        let months = months.map(|(month, day)| format!("{hyphen}({month}){hyphen}({day})"));
        months.join("|")
    };
    let pattern = format!("^{YEAR}({}|{})[Tt]{TIME}{OFFSET}$", days("-"), days(""));
    let mut schema = text_like(&pattern, TIMESTAMP_CHARS_MAX);
    schema["examples"] = json!(["2026-02-20T17:47:14.568Z"]);
    schema
}

/// A text that means itself in a pattern.
pub(crate) fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if "^$\\.*+?()[]{}|/".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// A pattern that any of these texts fits.
pub(crate) fn any_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(literally).collect::<Vec<_>>().join("|")
}
