//! Named Ed25519 keys, in the text formats of c2sp.org/signed-note v1 (verifier keys) and of Go's sumdb/note (signer
//! keys).
//!
//! A key signs one kind of object, given by its signature type. Keys of different signature types are different Rust
//! types.

use crate::text::{base64, from_base64};
use ed25519_dalek::{SECRET_KEY_LENGTH, SIGNATURE_LENGTH, Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;

/// The names of our own keys, in bytes. The specification sets no limit; cosignatures of other types have this one.
pub const KEY_NAME_BYTES_MAX: usize = 255;
const SECRET_PREFIX: &str = "PRIVATE+KEY+";

/// A key's name: not empty, without spaces and plus signs (signed-note, "Format").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// A name, best a URL without its scheme, such as `example.com/ledger`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let forbidden = |c: char| c.is_whitespace() || c == '+' || c < ' ';
        if text.is_empty() || text.contains(forbidden) { Err(KeyError::Name) } else { Ok(Self(text.to_owned())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of the keys of a name: four bytes of a hash. It identifies, and proves nothing (signed-note, "Signatures").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl KeyId {
    /// `SHA-256(key name || 0x0A || signature type || public key)[:4]`.
    fn of(name: &KeyName, signature_type: u8, public_key: &[u8; 32]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(name.as_str());
        hasher.update([b'\n', signature_type]);
        hasher.update(public_key);
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        Self([a, b, c, d])
    }
}

impl fmt::Display for KeyId {
    /// Eight lowercase hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// A text is not a key of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, or has a space, a plus sign or a control character in it.
    #[error("expected a key name without spaces, plus signs and control characters")]
    Name,
    /// The name of one of our own keys is longer than [`KEY_NAME_BYTES_MAX`].
    #[error("expected a key name of at most {KEY_NAME_BYTES_MAX} bytes", KEY_NAME_BYTES_MAX = KEY_NAME_BYTES_MAX)]
    NameTooLong,
    /// It is not `name+id+base64`.
    #[error("expected a verifier key: its name, eight hexadecimal digits and base64, joined by plus signs")]
    NotAVerifierKey,
    /// It is not `PRIVATE+KEY+name+id+base64`.
    #[error("expected a signer key: PRIVATE+KEY, its name, eight hexadecimal digits and base64, joined by plus signs")]
    NotASignerKey,
    /// It is a key, of another signature type.
    #[error("expected a key of signature type {expected:#04x}, found type {found:#04x}")]
    AnotherType {
        /// The type byte that was expected.
        expected: u8,
        /// The one that was found.
        found: u8,
    },
    /// The id is not the one of this name and this key.
    #[error("expected the key id of this name and this key in lowercase, found another")]
    Id,
    /// The 32 bytes are no point of the curve, or one of those under which anything is signed.
    #[error("expected an Ed25519 public key, and these 32 bytes are none, or a weak one")]
    Point,
}

/// A key that a verifier knows, of any type.
pub trait Verifier {
    fn name(&self) -> &KeyName;
    fn id(&self) -> KeyId;
    /// Whether the signature, without the key id in front, is this key's over the note's text.
    fn verifies(&self, text: &str, signature: &[u8]) -> bool;
}

/// The public half of a key, which signs what the byte `TYPE` stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct TypedVerifierKey<const TYPE: u8> {
    name: KeyName,
    id: KeyId,
    point: VerifyingKey,
}

impl<const TYPE: u8> TypedVerifierKey<TYPE> {
    /// The key under its name. `public_key` is RFC 8032's encoding.
    pub fn new(name: KeyName, public_key: &[u8; 32]) -> Result<Self, KeyError> {
        if name.as_str().len() > KEY_NAME_BYTES_MAX {
            return Err(KeyError::NameTooLong);
        }
        let point = VerifyingKey::from_bytes(public_key).map_err(|_| KeyError::Point)?;
        if point.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(Self { id: KeyId::of(&name, TYPE, public_key), name, point })
    }

    /// Reads `<name>+<key id>+<base64 of type and public key>`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, public_key) = parse_parts(text, TYPE, KeyError::NotAVerifierKey)?;
        let key = Self::new(name, &public_key)?;
        if key.id.to_string() == id { Ok(key) } else { Err(KeyError::Id) }
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// RFC 8032's encoding.
    pub fn public_key(&self) -> &[u8; 32] {
        self.point.as_bytes()
    }

    /// Whether the 64 bytes are the key's Ed25519 signature. Strict: no signature is also one of other keys or messages.
    pub(crate) fn verifies_message(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = <[u8; SIGNATURE_LENGTH]>::try_from(signature).map(|bytes| Signature::from_bytes(&bytes));
        signature.is_ok_and(|signature| self.point.verify_strict(message, &signature).is_ok())
    }
}

impl<const TYPE: u8> fmt::Display for TypedVerifierKey<TYPE> {
    /// As [`TypedVerifierKey::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, self.id, encode_typed(TYPE, self.public_key()))
    }
}

impl<const TYPE: u8> fmt::Debug for TypedVerifierKey<TYPE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

/// The secret half of a key. It has no text but the one that [`TypedSignerKey::secret_text`] is asked for.
#[derive(Clone)]
pub struct TypedSignerKey<const TYPE: u8> {
    secret: SigningKey,
    verifier: TypedVerifierKey<TYPE>,
}

impl<const TYPE: u8> TypedSignerKey<TYPE> {
    /// The key that these 32 bytes are the seed of (RFC 8032 §5.1.5). The caller takes them from a source of randomness.
    pub fn from_seed(name: KeyName, seed: &[u8; SECRET_KEY_LENGTH]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_bytes(seed);
        let verifier = TypedVerifierKey::new(name, secret.verifying_key().as_bytes())?;
        Ok(Self { secret, verifier })
    }

    /// Reads `PRIVATE+KEY+<name>+<key id>+<base64 of type and seed>`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let parts = text.strip_prefix(SECRET_PREFIX).ok_or(KeyError::NotASignerKey)?;
        let (name, id, seed) = parse_parts(parts, TYPE, KeyError::NotASignerKey)?;
        let key = Self::from_seed(name, &seed)?;
        if key.verifier.id.to_string() == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The same secret under another name: another key to all who verify.
    pub fn renamed(&self, name: KeyName) -> Result<Self, KeyError> {
        Self::from_seed(name, self.secret.as_bytes())
    }

    /// The secret, as [`TypedSignerKey::parse`] reads it.
    pub fn secret_text(&self) -> String {
        let TypedVerifierKey { name, id, .. } = &self.verifier;
        format!("{SECRET_PREFIX}{name}+{id}+{}", encode_typed(TYPE, self.secret.as_bytes()))
    }

    pub fn name(&self) -> &KeyName {
        &self.verifier.name
    }

    pub fn verifier(&self) -> &TypedVerifierKey<TYPE> {
        &self.verifier
    }

    pub(crate) fn sign_message(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.secret.sign(message).to_bytes()
    }
}

impl<const TYPE: u8> fmt::Debug for TypedSignerKey<TYPE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({})", self.verifier)
    }
}

fn encode_typed(signature_type: u8, key: &[u8; 32]) -> String {
    let mut typed = vec![signature_type];
    typed.extend_from_slice(key);
    base64(&typed)
}

/// The parts of `<name>+<key id>+<base64 of type and 32 bytes>`.
fn parse_parts(text: &str, expected: u8, otherwise: KeyError) -> Result<(KeyName, &str, [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(typed)) = (parts.next(), parts.next(), parts.next()) else { return Err(otherwise) };
    let name = KeyName::parse(name)?;
    let typed = from_base64(typed).ok_or(otherwise)?;
    let (found, key) = typed.split_first().ok_or(otherwise)?;
    if *found != expected {
        return Err(KeyError::AnotherType { expected, found: *found });
    }
    Ok((name, id, key.try_into().map_err(|_| otherwise)?))
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
