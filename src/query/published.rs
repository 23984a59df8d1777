//! What a publisher sent, as people and programs can be shown it: bytes as text, headers by name, the trace.

use crate::record::message::Headers;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A message as it was published.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Published {
    /// How many bytes it has. Nothing where custody does not hold them any more.
    pub bytes: Option<usize>,
    /// The bytes as text; those that are none are shown escaped, as `\xff`.
    pub payload: Option<String>,
    /// Whether that text is exactly what was published.
    pub exact: bool,
    pub headers: Vec<Header>,
    /// The header block, escaped, where nobody can parse it.
    pub unparsed_headers: Option<String>,
}

/// One header.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Header {
    pub name: String,
    pub value: String,
}

impl Published {
    pub(crate) fn of(payload: Option<&[u8]>, headers: &Headers) -> Self {
        let text = payload.and_then(|bytes| std::str::from_utf8(bytes).ok()).filter(|text| !has_controls(text));
        let pairs = headers.pairs();
        let header = |(name, value): (&str, &str)| Header { name: name.to_owned(), value: value.to_owned() };
        Self {
            bytes: payload.map(<[u8]>::len),
            payload: payload.map(|bytes| text.map_or_else(|| bytes.escape_ascii().to_string(), str::to_owned)),
            exact: payload.is_none() || text.is_some(),
            unparsed_headers: pairs
                .is_none()
                .then(|| headers.as_bytes().unwrap_or_default().escape_ascii().to_string()),
            headers: pairs.unwrap_or_default().into_iter().map(header).collect(),
        }
    }

    /// What it says, where it is JSON; null elsewhere.
    pub(crate) fn json(&self) -> Value {
        let text = self.payload.as_deref().filter(|_| self.exact).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// A page shows neither control characters nor carriage returns as they are.
fn has_controls(text: &str) -> bool {
    text.contains(|character: char| character.is_control() && !matches!(character, '\n' | '\t'))
}

/// A trace of W3C Trace Context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, JsonSchema)]
pub(crate) struct Trace {
    pub trace_id: String,
    pub parent_id: String,
}

impl Trace {
    /// The trace that a header `traceparent` names: version, trace, parent and flags.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        let mut parts = headers.value("traceparent")?.split('-');
        let (version, trace_id, parent_id) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next()?;
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_given = |text: &str| text.bytes().any(|byte| byte != b'0');
        let good = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(parent_id, 16);
        (good && is_given(trace_id) && is_given(parent_id))
            .then(|| Self { trace_id: trace_id.to_owned(), parent_id: parent_id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_escaped_and_said_to_be() {
        let of = |bytes: &[u8]| Published::of(Some(bytes), &Headers::NONE);
        let good = of("{\"a\":\n\"ä\"}".as_bytes());
        assert!(good.exact && good.payload.as_deref() == Some("{\"a\":\n\"ä\"}"));
        for bad in [&b"\xff{}"[..], b"a\r\nb", b"\x1b[31m", b"\0"] {
            let bad = of(bad);
            assert!(!bad.exact && bad.payload.expect("escaped").is_ascii());
        }
    }

    #[test]
    fn a_trace_is_read_as_w3c_writes_it() {
        let of = |value: &str| Trace::of(&Headers::from_pairs([("TraceParent", value)]));
        let good = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("a trace");
        assert_eq!(good.trace_id, "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
