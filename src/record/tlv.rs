//! The tag-length-value encoding of bytes that are hashed: a magic text, a version, then fields in ascending order of
//! tags. A field is a tag (one byte), a length (four bytes, big-endian) and a value. Each sequence of fields has
//! exactly one encoding.

/// Bytes are not such a sequence of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTlv {
    /// They do not begin with the magic text.
    #[error("expected another text at the beginning")]
    Magic,
    #[error("expected version 1, found version {found}: a newer ledgerd may know it")]
    Version {
        /// The one that was found.
        found: u8,
    },
    /// They end within a field.
    #[error("expected more bytes: they end within a field")]
    Ends,
    /// A tag does not come after the one before it.
    #[error("expected tags in ascending order, and {tag} is out of it")]
    Order { tag: u8 },
}

pub(crate) fn write(into: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("a field is shorter than 4 GiB");
    into.push(tag);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(value);
}

/// The fields behind the magic text and the version: their tags ascend strictly, and nothing is left over.
pub(crate) fn read<'a>(bytes: &'a [u8], magic: &[u8], version: u8) -> Result<Vec<(u8, &'a [u8])>, BadTlv> {
    let rest = bytes.strip_prefix(magic).ok_or(BadTlv::Magic)?;
    let (&found, mut rest) = rest.split_first().ok_or(BadTlv::Ends)?;
    if found != version {
        return Err(BadTlv::Version { found });
    }
    let mut fields: Vec<(u8, &[u8])> = Vec::new();
    while let Some((&tag, after)) = rest.split_first() {
        if fields.last().is_some_and(|(last, _)| *last >= tag) {
            return Err(BadTlv::Order { tag });
        }
        let (length, after) = after.split_first_chunk::<4>().ok_or(BadTlv::Ends)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| BadTlv::Ends)?;
        let (value, after) = after.split_at_checked(length).ok_or(BadTlv::Ends)?;
        fields.push((tag, value));
        rest = after;
    }
    Ok(fields)
}
