//! Where in a rejected message its fault is, as far as the detail of the reject says so.

use std::ops::Range;

/// The bytes that a detail is about: the member that it names, or the byte that it counts to.
pub(crate) fn fault_place(payload: &[u8], detail: &str) -> Option<Range<usize>> {
    counted_byte(payload, detail).or_else(|| named_member(payload, detail))
}

/// `… at byte 12 …`, `byte 12 cannot be read`.
fn counted_byte(payload: &[u8], detail: &str) -> Option<Range<usize>> {
    let after = detail.split("byte ").nth(1)?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let at: usize = digits.parse().ok()?;
    let end = (at + 1..payload.len()).find(|end| is_boundary(payload, *end)).unwrap_or(payload.len());
    (at < payload.len()).then_some(at..end)
}

/// The first word of the detail that is a key of the payload, with its value.
fn named_member(payload: &[u8], detail: &str) -> Option<Range<usize>> {
    let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-');
    let words = detail.split(|character| !is_word(character)).filter(|word| !word.is_empty());
    words.take(WORDS_MAX).find_map(|word| member(payload, word))
}

/// A detail is one sentence.
const WORDS_MAX: usize = 100;

fn member(payload: &[u8], key: &str) -> Option<Range<usize>> {
    let quoted = format!("\"{key}\"");
    let quoted = quoted.as_bytes();
    let starts = payload.windows(quoted.len()).enumerate().filter(|(_, bytes)| *bytes == quoted).map(|(at, _)| at);
    starts.into_iter().find_map(|start| {
        let colon = skip_spaces(payload, start + quoted.len());
        (payload.get(colon) == Some(&b':')).then(|| start..value_end(payload, skip_spaces(payload, colon + 1)))
    })
}

fn skip_spaces(payload: &[u8], from: usize) -> usize {
    let rest = payload.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Where the value ends that begins here: behind its closing bracket or quotation mark, or before what follows a plain one.
fn value_end(payload: &[u8], start: usize) -> usize {
    let (mut depth, mut in_string, mut at) = (0_usize, false, start);
    while let Some(byte) = payload.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' | b'}' | b']' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
        if depth == 0 && !in_string && matches!(byte, b'"' | b'}' | b']') {
            return at.min(payload.len());
        }
    }
    payload.len()
}

fn is_boundary(payload: &[u8], at: usize) -> bool {
    payload.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(payload: &str, detail: &str) -> Option<String> {
        fault_place(payload.as_bytes(), detail).map(|place| payload[place].to_owned())
    }

    #[test]
    fn the_member_that_a_detail_names_is_marked() {
        let payload = r#"{"actor": "A\"B", "details" : {"x": [1, "}"]}, "n":12 }"#;
        let marked = |detail: &str| found(payload, detail).unwrap_or_default();
        assert_eq!(marked("actor \"X\" is not Y"), r#""actor": "A\"B""#);
        assert_eq!(marked("the field details is no object"), r#""details" : {"x": [1, "}"]}"#);
        assert_eq!(marked("n is \"12\""), r#""n":12 "#);
        assert_eq!(found(payload, "the field outcome is required and absent"), None);
        assert_eq!(found("{\"a\": 1 é", "an é stands at byte 8 where a comma must be").as_deref(), Some("é"));
        assert_eq!(found("{}", "at byte 99"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_place_inside_or_none(payload: Vec<u8>, detail: String) {
            if let Some(place) = fault_place(&payload, &detail) {
                prop_assert!(place.start < place.end && place.end <= payload.len());
            }
        }

        #[test]
        fn a_key_with_anything_behind_it_is_harmless(rest in "[\"\\\\{}\\[\\],:a ]{0,30}") {
            let payload = format!("{{\"key\":{rest}");
            let place = fault_place(payload.as_bytes(), "key is wrong").expect("the key is there");
            prop_assert!(place.end <= payload.len());
        }
    }
}
