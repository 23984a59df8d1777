//! Reads the fields of a record, and checks the type, the size and the presence of each.

use crate::record::json::Object;
use crate::record::json_value::Json;
use crate::record::reject::{Reason, Rejection, quote};
use std::ops::RangeInclusive;

/// A field's name, and whether it must be there.
pub(crate) type Field = (&'static str, bool);

/// The fields of an object that has all it must have, and none that its kind does not know.
#[derive(Debug)]
pub(crate) struct Fields<'o, 'a> {
    object: &'o Object<'a>,
}

impl<'o, 'a> Fields<'o, 'a> {
    /// Checks the names of all fields. `kind`: what the object is, with its article.
    pub(crate) fn of(kind: &str, object: &'o Object<'a>, known: &[Field]) -> Result<Self, Rejection> {
        if let Some((name, _)) = known.iter().find(|(name, required)| *required && object.get(name).is_none()) {
            return Err(missing(name));
        }
        if let Some(unknown) = object.keys().find(|key| known.iter().all(|(name, _)| name != key)) {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            return Err(Rejection::new(
                Reason::UnknownField,
                &format!("the field {} is unknown; {kind} has {}", quote(unknown), names.join(", ")),
            ));
        }
        Ok(Self { object })
    }

    pub(crate) fn text(&self, field: &str, chars_max: usize) -> Result<&'o str, Rejection> {
        self.optional_text(field, chars_max)?.ok_or_else(|| missing(field))
    }

    pub(crate) fn optional_text(&self, field: &str, chars_max: usize) -> Result<Option<&'o str>, Rejection> {
        text_of(self.object, field, chars_max)
    }

    /// An object, and the publisher's own text of it.
    pub(crate) fn object(&self, field: &str) -> Result<(&'o Json<'a>, &'a str), Rejection> {
        self.optional_object(field)?.ok_or_else(|| missing(field))
    }

    pub(crate) fn optional_object(&self, field: &str) -> Result<Option<(&'o Json<'a>, &'a str)>, Rejection> {
        let (Some(value), Some(text)) = (self.object.get(field), self.object.text_of(field)) else { return Ok(None) };
        if value.members().is_some() { Ok(Some((value, text))) } else { Err(wrong_type(field, "an object", value)) }
    }

    pub(crate) fn count(&self, field: &str) -> Result<i64, Rejection> {
        self.optional_count(field)?.ok_or_else(|| missing(field))
    }

    /// A whole number from 0 to 2³¹ − 1, which each column for counts can hold.
    pub(crate) fn optional_count(&self, field: &str) -> Result<Option<i64>, Rejection> {
        let Some(value) = self.object.get(field) else { return Ok(None) };
        let shown = self.object.text_of(field).unwrap_or_default();
        let not_whole = || {
            let found = if value.as_f64().is_some() { quote(shown) } else { value.type_name().to_owned() };
            Rejection::new(Reason::WrongType, &format!("{field} must be a whole number, and is {found}"))
        };
        let number = value.as_f64().ok_or_else(not_whole)?;
        if number.fract() != 0.0 {
            return Err(not_whole());
        }
        if !(0.0..=f64::from(i32::MAX)).contains(&number) {
            return Err(out_of_range(field, shown, &format!("0 to {}", i32::MAX)));
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within i32")]
        Ok(Some(number as i64))
    }

    pub(crate) fn amount(&self, field: &str, range: RangeInclusive<f64>) -> Result<Amount, Rejection> {
        self.optional_amount(field, range)?.ok_or_else(|| missing(field))
    }

    pub(crate) fn optional_amount(&self, field: &str, range: RangeInclusive<f64>) -> Result<Option<Amount>, Rejection> {
        let (Some(value), Some(text)) = (self.object.get(field), self.object.text_of(field)) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| wrong_type(field, "a number", value))?;
        if !range.contains(&number) {
            return Err(out_of_range(field, text, &format!("{} to {}", range.start(), range.end())));
        }
        if scale(text) > AMOUNT_SCALE_MAX {
            return Err(out_of_range(field, text, &format!("at most {AMOUNT_SCALE_MAX} digits after the point")));
        }
        Ok(Some(Amount(text.to_owned())))
    }
}

/// A JSON number as its publisher wrote it, which PostgreSQL's `numeric` reads exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount(String);

impl Amount {
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// More digits than any double prints; a sum of such numbers stays small.
const AMOUNT_SCALE_MAX: i64 = 40;

/// How many digits a JSON number has after its point, its exponent resolved.
fn scale(number: &str) -> i64 {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let digits = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let exponent: i64 = exponent.parse().unwrap_or(i64::from(i32::MIN));
    i64::try_from(digits).unwrap_or(i64::MAX).saturating_sub(exponent)
}

/// A text of an object that may be bad in any other way.
pub(crate) fn readable_text(object: &Object<'_>, field: &str, chars_max: usize) -> Option<String> {
    text_of(object, field, chars_max).ok().flatten().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn text_of<'o>(object: &'o Object<'_>, field: &str, chars_max: usize) -> Result<Option<&'o str>, Rejection> {
    let Some(value) = object.get(field) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| wrong_type(field, "a string", value))?;
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(Rejection::new(
            Reason::TooLong,
            &format!("{field} has {chars} characters; {chars_max} are allowed"),
        ));
    }
    Ok(Some(text))
}

fn missing(field: &str) -> Rejection {
    Rejection::new(Reason::MissingField, &format!("the field {field} is required and absent"))
}

pub(crate) fn wrong_type(field: &str, expected: &str, found: &Json<'_>) -> Rejection {
    Rejection::new(Reason::WrongType, &format!("{field} must be {expected}, and is {}", found.type_name()))
}

fn out_of_range(field: &str, found: &str, allowed: &str) -> Rejection {
    Rejection::new(Reason::NumberOutOfRange, &format!("{field} is {}; allowed is {allowed}", quote(found)))
}

/// 8-4-4-4-12 hexadecimal digits, in lower case.
pub(crate) fn as_uuid(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_uuid = lengths == [8, 4, 4, 4, 12] && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit());
    is_uuid.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_a_number_counts_its_digits_after_the_point() {
        for (number, digits) in [("1", 0), ("0.00025", 5), ("2.5e-4", 5), ("1.50e1", 1), ("1e3", -3), ("1e-300", 300)] {
            assert_eq!(scale(number), digits, "{number}");
        }
    }
}
