//! Numbers and hashes in the lines of C2SP texts: decimal without leading zeros; standard, padded base64.
//!
//! Each value has one spelling alone: what is read is written again byte for byte.

use crate::tree::Hash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A number of ASCII digits without sign or leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits_only && !leading_zero { text.parse().ok() } else { None }
}

/// RFC 4648 §4, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// RFC 4648 §4. Absent padding, and bits that no byte needs, are errors.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A SHA-256 in base64: 44 characters.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    from_base64(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "1\n", "18446744073709551616", "٣", "0x1"] {
            assert_eq!(decimal(text), None, "{text:?}");
        }
        assert_eq!(from_base64("AA=="), Some(vec![0]));
        for text in ["AA", "AA=", "AB==", "AA==\n", " AA==", "A", "_-8="] {
            assert_eq!(from_base64(text), None, "{text:?}");
        }
        assert_eq!(hash(&base64(&[7; 32])), Some([7; 32]));
        assert_eq!(hash(&base64(&[7; 31])), None);
    }
}
