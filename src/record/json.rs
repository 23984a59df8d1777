//! A strict JSON parser for records: reads one object, in one pass.
//!
//! `serde_json` keeps the last of two equal keys, rounds numbers and lets U+0000 through. Each of these would make the
//! stored row differ from the bytes in custody. So the text is parsed here, and everything that cannot be kept exactly
//! is reported with its position. `serde_json`'s parser is the oracle of the tests.

use crate::record::json_value::{Json, Member};
use crate::record::reject::{Reason, Rejection, quote};
use std::borrow::Cow;
use std::collections::HashSet;

/// One JSON object: its members in the order of the text.
#[derive(Debug)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    /// Reads `bytes` as one object of at most `nesting_max` levels.
    pub fn parse(bytes: &'a [u8], nesting_max: usize) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Rejection::new(
                Reason::NotUtf8,
                &format!("the message is not UTF-8: byte {} cannot be read", error.valid_up_to()),
            )
        })?;
        match Json::parse(text, nesting_max)? {
            Json::Object(members) => Ok(Self { members }),
            other => Err(Rejection::new(
                Reason::WrongType,
                &format!("the message must be a JSON object, and is {}", other.type_name()),
            )),
        }
    }

    /// The names of all members.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.key)
    }

    /// A member's value; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.member(key).map(|member| &member.value)
    }

    /// A member's own text, as the publisher wrote it; `null` counts as absent.
    pub fn text_of(&self, key: &str) -> Option<&'a str> {
        self.member(key).map(|member| member.text)
    }

    /// A member, which is absent from now on; `null` counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Member<'a>> {
        let place = self.members.iter().position(|member| member.key == key)?;
        Some(self.members.swap_remove(place)).filter(|member| !member.value.is_null())
    }

    fn member(&self, key: &str) -> Option<&Member<'a>> {
        self.members.iter().find(|member| member.key == key && !member.value.is_null())
    }
}

impl<'a> Json<'a> {
    /// Reads a text as one value of at most `nesting_max` levels.
    pub fn parse(text: &'a str, nesting_max: usize) -> Result<Self, Rejection> {
        let mut reader = JsonReader { text, at: 0, path: Vec::new(), nesting_max };
        reader.skip_space();
        let value = reader.value(0)?;
        reader.end()?;
        Ok(value)
    }
}

/// Up to so many members are looked through; the keys of more are kept in a set as well, and nobody can make it slow.
const MEMBERS_LOOKED_THROUGH_MAX: usize = 32;

fn stands_already(key: &str, members: &[Member<'_>], many_keys: &mut HashSet<String>) -> bool {
    if members.len() < MEMBERS_LOOKED_THROUGH_MAX {
        return members.iter().any(|member| member.key == key);
    }
    if many_keys.is_empty() {
        many_keys.extend(members.iter().map(|member| member.key.clone().into_owned()));
    }
    !many_keys.insert(key.to_owned())
}

/// A double's exact decimal expansion never has more significant digits than this.
const SIGNIFICANT_DIGITS_MAX: usize = 767;

/// PostgreSQL's `numeric` has at most this many digits after the point.
const NUMERIC_SCALE_MAX: i64 = 16_383;
const TOO_MANY_DIGITS: &str = "has more digits than PostgreSQL can hold";

/// Keys in objects come in a handful, and have room at once.
const MEMBERS_EXPECTED: usize = 8;

enum ParseStep<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    path: Vec<ParseStep<'a>>,
    nesting_max: usize,
}

impl<'a> JsonReader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Rejection> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.malformed("the end of the message")) }
    }

    /// `depth` counts the containers around the value.
    fn value(&mut self, depth: usize) -> Result<Json<'a>, Rejection> {
        match self.peek() {
            Some(b'{') => self.members(depth + 1).map(Json::Object),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Json::Bool(true)),
            Some(b'f') => self.literal("false", Json::Bool(false)),
            Some(b'n') => self.literal("null", Json::Null),
            _ => Err(self.malformed("a value")),
        }
    }

    fn members(&mut self, depth: usize) -> Result<Vec<Member<'a>>, Rejection> {
        self.check_depth(depth)?;
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(Vec::new());
        }
        let mut members = Vec::with_capacity(MEMBERS_EXPECTED);
        let mut many_keys = HashSet::new();
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.malformed("a key in quotation marks"));
            }
            let key = self.string()?;
            if stands_already(&key, &members, &mut many_keys) {
                return Err(self.reject(Reason::DuplicateKey, &format!("the key {} stands twice", quote(&key))));
            }
            self.skip_space();
            if !self.take(b':') {
                return Err(self.malformed("':'"));
            }
            self.skip_space();
            let start = self.at;
            self.path.push(ParseStep::Key(key));
            let value = self.value(depth)?;
            let Some(ParseStep::Key(key)) = self.path.pop() else {
                unreachable!("each step is taken back where it was made")
            };
            members.push(Member { key, value, text: &self.text[start..self.at] });
            self.skip_space();
            if self.take(b'}') {
                return Ok(members);
            }
            if !self.take(b',') {
                return Err(self.malformed("',' or '}'"));
            }
            self.skip_space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, Rejection> {
        self.check_depth(depth)?;
        let mut items = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            self.path.push(ParseStep::Index(items.len()));
            items.push(self.value(depth)?);
            self.path.pop();
            self.skip_space();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return Err(self.malformed("',' or ']'"));
            }
            self.skip_space();
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Rejection> {
        self.at += 1;
        let first = self.plain_characters();
        if self.take(b'"') {
            return Ok(Cow::Borrowed(first));
        }
        let mut content = first.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(content));
                }
                Some(b'\\') => content.push(self.escape()?),
                _ => return Err(self.malformed("'\"' at the end of a string (control characters must be escaped)")),
            }
            content.push_str(self.plain_characters());
        }
    }

    /// What stands for itself in a string.
    fn plain_characters(&mut self) -> &'a str {
        let rest = &self.text.as_bytes()[self.at..];
        let is_plain = |byte: &u8| *byte != b'"' && *byte != b'\\' && *byte >= 0x20;
        let length = rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        &self.text[start..self.at]
    }

    fn escape(&mut self) -> Result<char, Rejection> {
        self.at += 1;
        let letter = self.peek();
        self.at += 1;
        Ok(match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => {
                self.at -= 1;
                return Err(self.malformed("an escape that JSON knows"));
            }
        })
    }

    fn unicode_escape(&mut self) -> Result<char, Rejection> {
        let first = self.four_hex_digits()?;
        if first == 0 {
            return Err(self.reject(Reason::NulCharacter, "a string holds \\u0000, which PostgreSQL cannot store"));
        }
        let code = match first {
            0xd800..=0xdbff if self.text[self.at..].starts_with("\\u") => {
                self.at += 2;
                let second = self.four_hex_digits()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.malformed("the second half of a surrogate pair"));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            _ => first,
        };
        char::from_u32(code).ok_or_else(|| self.malformed("a whole surrogate pair"))
    }

    fn four_hex_digits(&mut self) -> Result<u32, Rejection> {
        let digits =
            self.text.as_bytes().get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return Err(self.malformed("four hexadecimal digits")) };
        let code = digits.iter().fold(0, |code, &digit| code * 16 + char::from(digit).to_digit(16).unwrap_or(0));
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Result<Json<'a>, Rejection> {
        let start = self.at;
        self.take(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.malformed("a digit")),
        }
        if self.take(b'.') {
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.some_digits()?;
        }
        let text = &self.text[start..self.at];
        let double = exact_double(text).map_err(|why| {
            self.reject(
                Reason::NumberOutOfRange,
                &format!("the number {} {why}; round it, or send it as a string where a string is taken", quote(text)),
            )
        })?;
        Ok(Json::Number { text, double })
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Rejection> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.malformed("a digit"));
        }
        self.digits();
        Ok(())
    }

    fn literal(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, Rejection> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.malformed("a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn check_depth(&self, depth: usize) -> Result<(), Rejection> {
        if depth <= self.nesting_max {
            return Ok(());
        }
        let limit = self.nesting_max;
        Err(self.reject(Reason::TooLarge, &format!("objects and arrays are nested deeper than {limit} levels")))
    }

    fn malformed(&self, expected: &str) -> Rejection {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => "the message ends".to_owned(),
            Some(character) => format!("{character:?} stands"),
        };
        self.reject(Reason::MalformedJson, &format!("{found} at byte {} where {expected} must be", self.at))
    }

    fn reject(&self, reason: Reason, what: &str) -> Rejection {
        let mut place = String::new();
        for step in &self.path {
            match step {
                ParseStep::Key(key) => {
                    if !place.is_empty() {
                        place.push('.');
                    }
                    place.push_str(key);
                }
                ParseStep::Index(index) => place.extend(["[", &index.to_string(), "]"]),
            }
        }
        if place.is_empty() {
            return Rejection::new(reason, what);
        }
        // A long path keeps its tail, which says more than its head.
        let tail: String = place.chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect();
        Rejection::new(reason, &format!("{tail}: {what}"))
    }
}

/// The double that a JSON number names, if a double can hold it: printed again with as many significant digits, it
/// must give the same digits. So 0.1 and 9007199254740992 pass, and 9007199254740993 does not. PostgreSQL's `numeric` holds
/// whatever a double holds, but it also keeps trailing zeros, and has room for so many digits only.
fn exact_double(text: &str) -> Result<f64, String> {
    let double: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    // Fifteen digits come back from any double that is neither huge nor tiny.
    if text.len() <= f64::DIGITS as usize && !text.contains(['e', 'E']) {
        return Ok(if double == 0.0 { 0.0 } else { double });
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.trim_start_matches('+').parse().map_err(|_| TOO_MANY_DIGITS.to_owned())?;
    let fraction_digits = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = i64::try_from(fraction_digits).unwrap_or(i64::MAX).saturating_sub(exponent);
    if exponent.saturating_abs() > NUMERIC_SCALE_MAX || scale > NUMERIC_SCALE_MAX {
        return Err(TOO_MANY_DIGITS.to_owned());
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0.0);
    }
    if double.is_infinite() {
        return Err("is greater than a double can hold".to_owned());
    }
    if double == 0.0 {
        return Err("is nearer to zero than a double can hold".to_owned());
    }
    let held = if significant.len() > SIGNIFICANT_DIGITS_MAX {
        String::new()
    } else {
        format!("{:.*e}", significant.len() - 1, double.abs())
    };
    let held_digits: String = held.split('e').next().unwrap_or("").chars().filter(char::is_ascii_digit).collect();
    if held_digits == significant {
        Ok(double)
    } else {
        Err(format!("cannot be held exactly by a double (the nearest is {double})"))
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
