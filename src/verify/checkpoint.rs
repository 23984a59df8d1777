//! Which roots are known from elsewhere? The text of a checkpoint (c2sp.org/tlog-checkpoint): origin, size and root.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A tree that somebody vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRoot {
    /// How many leaves it has.
    pub size: u64,
    /// Its root.
    pub root: Vec<u8>,
    /// Where this is known from.
    pub source: String,
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose tree it is.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// Its root.
    pub root: Vec<u8>,
}

/// Reads a checkpoint note. This is where the signatures are to be checked: nothing else looks at a note.
///
/// # Errors
/// A sentence that says which line is not as it must be.
pub fn open(note: &str) -> Result<Checkpoint, String> {
    let mut lines = note.lines();
    let origin = lines.next().filter(|line| !line.is_empty()).ok_or("its first line must be the log's origin")?;
    let size = lines.next().filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()));
    let size = size.and_then(|line| line.parse().ok()).ok_or("its second line must be the tree's size")?;
    let root = lines.next().and_then(|line| BASE64.decode(line).ok()).filter(|root| root.len() == 32);
    let root = root.ok_or("its third line must be the tree's root, 32 bytes in base64")?;
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_three_lines() {
        let note = format!("example.com/log\n17\n{}\n\n— example.com/log abcd\n", BASE64.encode([7; 32]));
        let expected = Checkpoint { origin: "example.com/log".to_owned(), size: 17, root: vec![7; 32] };
        assert_eq!(open(&note), Ok(expected));
        for bad in ["", "x\n-1\n", "x\n1\nAAAA\n", "\n1\n", "x\n\n"] {
            assert!(open(bad).is_err(), "{bad:?}");
        }
    }
}
