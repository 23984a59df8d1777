//! Adds a publisher's headers to a message that the ledger publishes again. They stay unchanged, except that headers
//! with an effect on the server or the daemon are renamed.

use crate::record::message::{Headers, ORIGINAL};
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::str::FromStr as _;

/// The server takes 64 KiB of headers. What the publisher set beyond this is in custody alone.
const BYTES_MAX: usize = 32 * 1024;

/// Adds them. Those that the server or this daemon would act on travel under another name: a publisher chooses nothing that
/// takes effect.
pub(crate) fn add(original: &Headers, headers: &mut HeaderMap) {
    let length = original.as_bytes().map_or(0, <[u8]>::len);
    match original.pairs() {
        _ if length > BYTES_MAX => omit(original, headers),
        None => {
            let block = original.as_bytes().unwrap_or_default();
            headers.insert("Ledger-Original-Headers-Base64", BASE64.encode(block));
        }
        Some(pairs) => {
            for (name, value) in pairs {
                let lower = name.to_ascii_lowercase();
                let takes_effect = lower.starts_with("nats-") || lower.starts_with("ledger-");
                let name = if takes_effect { format!("{ORIGINAL}{name}") } else { name.to_owned() };
                // `append` panics on what cannot be carried; these two say so.
                if let (Ok(name), Ok(value)) = (HeaderName::from_str(&name), HeaderValue::from_str(value)) {
                    headers.append(name, value);
                }
            }
        }
    }
}

/// Says that they are left out.
pub(crate) fn omit(original: &Headers, headers: &mut HeaderMap) {
    let length = original.as_bytes().map_or(0, <[u8]>::len);
    headers.insert("Ledger-Original-Headers-Omitted", format!("{length} bytes; the ledger has them"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(original: &Headers) -> HeaderMap {
        let mut headers = HeaderMap::new();
        add(original, &mut headers);
        headers
    }

    #[test]
    fn headers_that_nobody_can_parse_travel_as_base64() {
        let headers = added(&Headers::from_block(b"NATS/1.0\r\nA: \xff\r\n\r\n"));
        assert!(headers.get("Ledger-Original-Headers-Base64").is_some());
    }

    #[test]
    fn headers_that_the_server_would_not_take_are_left_out_and_said_so() {
        let long = "x".repeat(60_000);
        let headers = added(&Headers::from_pairs([("Long", long.as_str())]));
        assert!(headers.get("Long").is_none() && headers.get("Ledger-Original-Headers-Omitted").is_some());
    }
}
