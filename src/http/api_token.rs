//! The API tokens of the webhooks, and the actors that each may write for. Only the hashes of the tokens are known
//! here.

use crate::http::hashed_tokens::{Grant, HashedToken, HashedTokens};
use crate::record::lengths::ACTOR_CHARS_MAX;
use std::collections::BTreeSet;

/// All tokens that are let in: `SHA256 ACTOR ACTOR …` or `SHA256 *` each.
pub type ApiTokens = HashedTokens<AllowedActors>;

/// Whoever has the token with this hash.
pub type ApiToken = HashedToken<AllowedActors>;

/// The actors that a token may write for.
#[derive(Clone, Debug)]
pub enum AllowedActors {
    /// `*`: the registry alone decides.
    All,
    Named(BTreeSet<String>),
}

const EVERY_ACTOR: &str = "*";

impl ApiToken {
    /// Whether it may write in this actor's name.
    pub fn writes_for(&self, actor: &str) -> bool {
        match self.grant() {
            AllowedActors::All => is_actor(actor),
            AllowedActors::Named(actors) => actors.contains(actor),
        }
    }

    /// The actor of a token that names exactly one.
    pub fn only_actor(&self) -> Option<&str> {
        match self.grant() {
            AllowedActors::Named(actors) if actors.len() == 1 => actors.first().map(String::as_str),
            _ => None,
        }
    }
}

impl Grant for AllowedActors {
    fn parse(text: &str) -> Option<Self> {
        if text.trim() == EVERY_ACTOR {
            return Some(Self::All);
        }
        let actors: BTreeSet<String> = text.split_whitespace().map(str::to_owned).collect();
        (!actors.is_empty() && actors.iter().all(|actor| is_actor(actor))).then_some(Self::Named(actors))
    }
}

/// Whether the text can be the last token of a subject.
fn is_actor(text: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.len() <= ACTOR_CHARS_MAX && text.bytes().all(is_safe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::digest::{hex, sha256};

    fn entry(token: &str, actors: &str) -> String {
        format!("{} {actors}", hex(&sha256(token.as_bytes())))
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_names_its_actors() {
        let tokens = ApiTokens::parse(&[entry("one", "RXY-CEO SRN-CIO"), entry("two", "N8N_SANITIZER")]).expect("good");
        let one = tokens.of_token(b"one").expect("it is known");
        assert!(one.writes_for("SRN-CIO") && !one.writes_for("N8N_SANITIZER") && !one.writes_for(""));
        for wrong in ["", "One", "one ", &hex(&sha256(b"one"))] {
            assert!(tokens.of_token(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains(&hex(&sha256(b"one"))[..8]));
    }

    #[test]
    fn a_star_writes_for_everybody_whose_name_can_stand_in_a_subject() {
        let tokens = ApiTokens::parse(&[entry("one", "*"), entry("two", "RXY-CEO")]).expect("good");
        let everybodys = tokens.of_token(b"one").expect("it is known");
        assert!(everybodys.writes_for("RXY-CEO") && everybodys.writes_for("123e4567-e89b-42d3-a456-426614174000"));
        for no_actor in ["", "*", ">", "a.b", "a b", "é", &"x".repeat(ACTOR_CHARS_MAX + 1)] {
            assert!(!everybodys.writes_for(no_actor), "{no_actor}");
        }
        assert_eq!(everybodys.only_actor(), None);
    }

    #[test]
    fn a_token_for_one_actor_says_which() {
        let tokens = ApiTokens::parse(&[entry("one", "A"), entry("two", "A B")]).expect("good");
        let only = |token: &str| tokens.of_token(token.as_bytes()).expect("it is known").only_actor();
        assert_eq!((only("one"), only("two")), (Some("A"), None));
    }

    #[test]
    fn what_is_no_hash_with_actors_is_refused_and_not_repeated() {
        let digits = hex(&sha256(b"x"));
        for bad in ["hunter2", "hunter2 RXY-CEO", &digits, &format!("{digits} * A"), &format!("{digits} a.b"), ""] {
            let error = ApiTokens::parse(&[bad.to_owned()]).expect_err(bad);
            assert!(error.contains("place 1") && !error.contains("hunter2"), "{error}");
        }
        let nothing = ApiTokens::parse(&[entry("", "A")]).expect_err("everybody has it");
        assert!(nothing.contains("empty"), "{nothing}");
        let twice = ApiTokens::parse(&[entry("x", "A"), entry("x", "B")]).expect_err("one of them would be idle");
        assert!(twice.contains("place 2"), "{twice}");
    }
}
