//! The tokens of the console: who has each, and whether they may only read.

use crate::http::hashed_tokens::{Grant, HashedToken, HashedTokens};

/// All tokens that are let in.
pub type ConsoleTokens = HashedTokens<ConsoleGrant>;

/// One of them.
pub type ConsoleToken = HashedToken<ConsoleGrant>;

/// What the bearer of a token may do, and the name that it is recorded under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleGrant {
    pub role: Role,
    pub name: String,
}

/// What a visitor may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Sees everything, and changes nothing.
    Read,
    /// Decides about rejects too.
    Operate,
}

const NAME_CHARS_MAX: usize = 50;

impl Grant for ConsoleGrant {
    /// `ROLE NAME`.
    fn parse(text: &str) -> Option<Self> {
        let (role, name) = text.trim().split_once(' ')?;
        let name = name.trim();
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        let is_name = !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.bytes().all(is_safe);
        is_name.then_some(Self { role: role.parse().ok()?, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::digest::{hex, sha256};

    fn digits() -> String {
        hex(&sha256(b"one"))
    }

    #[test]
    fn a_token_has_a_role_and_a_name() {
        let tokens = ConsoleTokens::parse(&[format!("{} operate ada@example.org", digits())]).expect("good");
        let grant = tokens.of_token(b"one").expect("it is known").grant();
        assert_eq!(grant, &ConsoleGrant { role: Role::Operate, name: "ada@example.org".to_owned() });
        assert!(tokens.of_token(b"two").is_none());
    }

    #[test]
    fn what_is_no_hash_with_role_and_name_is_refused_and_not_repeated() {
        let long = format!("read {}", "x".repeat(NAME_CHARS_MAX + 1));
        for grant in ["", "read", "read ", "admin ada", "Read ada", "read ada b", "read <b>", "ada read", &long] {
            let error = ConsoleTokens::parse(&[format!("{} {grant}", digits())]).expect_err(grant);
            assert!(error.contains("place 1"), "{error}");
        }
        let error = ConsoleTokens::parse(&["hunter2 read ada".to_owned()]).expect_err("no hash");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
