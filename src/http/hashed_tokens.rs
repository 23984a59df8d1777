//! Tokens that are known by their hashes alone, each with what it grants.

use crate::record::digest::{Hash, sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// What a token grants, as it is written behind the hash.
pub trait Grant: Sized {
    fn parse(text: &str) -> Option<Self>;
}

/// All tokens that are let in.
#[derive(Clone, Debug)]
pub struct HashedTokens<G>(Vec<HashedToken<G>>);

/// Whoever has the token with this hash.
#[derive(Clone)]
pub struct HashedToken<G> {
    token_sha256: Hash,
    grant: G,
}

impl<G: fmt::Debug> fmt::Debug for HashedToken<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashedToken").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl<G> Default for HashedTokens<G> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<G: Grant> HashedTokens<G> {
    /// `SHA256 GRANT` each.
    ///
    /// # Errors
    /// A sentence that does not repeat the text, for it may be a token by mistake.
    pub fn parse(list: &[String]) -> Result<Self, String> {
        let mut tokens: Vec<HashedToken<G>> = Vec::new();
        for (text, place) in list.iter().zip(1..) {
            let token =
                HashedToken::parse(text).ok_or_else(|| format!("the token at place {place} is not written so"))?;
            if token.token_sha256 == sha256(b"") {
                return Err(format!("the token at place {place} is empty: the hash is that of nothing"));
            }
            if tokens.iter().any(|known| known.token_sha256 == token.token_sha256) {
                return Err(format!("the token at place {place} was there before"));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who has this token. The time that it takes says nothing about the tokens that there are.
    pub fn of_token(&self, token: &[u8]) -> Option<&HashedToken<G>> {
        self.of_hash(&sha256(token))
    }

    /// The same by the hash of the token.
    pub fn of_hash(&self, hash: &Hash) -> Option<&HashedToken<G>> {
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.token_sha256.ct_eq(hash)) {
                found = Some(token);
            }
        }
        found
    }
}

impl<G: Grant> HashedToken<G> {
    fn parse(text: &str) -> Option<Self> {
        let (digits, grant) = text.trim().split_once(' ')?;
        Some(Self { token_sha256: hash_of_digits(digits)?, grant: G::parse(grant)? })
    }
}

impl<G> HashedToken<G> {
    /// A name for it that others cannot guess.
    pub fn token_sha256(&self) -> &Hash {
        &self.token_sha256
    }

    pub fn grant(&self) -> &G {
        &self.grant
    }
}

fn hash_of_digits(digits: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if digits.len() != hash.len() * 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// Whether two secrets are the same. The time that it takes does not say where they differ.
pub fn is_same_secret(one: &[u8], other: &[u8]) -> bool {
    sha256(one).ct_eq(&sha256(other)).into()
}
