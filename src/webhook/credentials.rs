//! Extracts the tokens of a request. A token comes in the header `X-Hegemon-Token`, in `Authorization`, or as the
//! password of a login in the URL.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

const TOKEN_HEADER: &str = "X-Hegemon-Token";

/// The ways that an answer names.
pub(crate) const WAYS: &str = "send it in the header X-Hegemon-Token, as Authorization: Bearer, or as the password of \
    Authorization: Basic, which a URL like http://agents:TOKEN@host/webhook/… sends";
/// The ways that `WWW-Authenticate` names.
pub(crate) const CHALLENGE: &str = "Bearer realm=\"ledgerd\", Basic realm=\"ledgerd\"";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Every token in the headers. None of them is known to be a good one.
pub(crate) fn tokens(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let own = headers.get(TOKEN_HEADER).map(|value| value.as_bytes().to_vec());
    let standard = headers.get(header::AUTHORIZATION).and_then(|value| authorized(value.as_bytes()));
    own.into_iter().chain(standard).filter(|token| !token.is_empty()).collect()
}

fn authorized(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(rest.to_vec());
    }
    if scheme.eq_ignore_ascii_case(b"Basic") {
        let login = BASE64.decode(rest).ok()?;
        let colon = login.iter().position(|byte| *byte == b':')?;
        return Some(login[colon + 1..].to_vec());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn tokens_of(pairs: &[(&'static str, &str)]) -> Vec<String> {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        tokens(&headers).into_iter().map(|token| String::from_utf8(token).expect("UTF-8")).collect()
    }

    #[test]
    fn a_token_comes_in_any_of_three_ways() {
        for (name, value) in [
            ("x-hegemon-token", "s3:cret"),
            ("authorization", "Bearer s3:cret"),
            ("authorization", "bearer  s3:cret "),
            // agents:s3:cret, and the same without a user and without padding.
            ("authorization", "Basic YWdlbnRzOnMzOmNyZXQ="),
            ("authorization", "basic OnMzOmNyZXQ"),
        ] {
            assert_eq!(tokens_of(&[(name, value)]), ["s3:cret"], "{name}: {value}");
        }
    }

    #[test]
    fn what_carries_no_token_gives_none() {
        for (name, value) in [
            ("x-hegemon-token", ""),
            ("authorization", ""),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("authorization", "Basic YWdlbnRzOg=="),
            ("authorization", "Basic YWdlbnRz"),
            ("authorization", "Basic ?"),
            ("authorization", "Digest x"),
            ("cookie", "s3:cret"),
        ] {
            assert!(tokens_of(&[(name, value)]).is_empty(), "{name}: {value}");
        }
        assert_eq!(tokens_of(&[("x-hegemon-token", "a"), ("authorization", "Bearer b")]), ["a", "b"]);
    }
}
