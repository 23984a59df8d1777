//! What readers of the log ask of the store: hashes for proofs and tiles, and leaves.

use crate::tlog::plan::Hashes;
use crate::tlog::tile::HashRange;
use std::fmt;
use std::future::Future;

/// Where the log's hashes and leaves are stored.
pub trait StoredTree: Send + Sync + 'static {
    /// The stored hashes of these ranges: of leaves at level 0, of complete subtrees above. One that is missing is left out.
    fn hashes(&self, ranges: &[HashRange]) -> impl Future<Output = Result<Hashes, Unread>> + Send;

    /// The bytes of `count` leaves from the index `first` on, each of which has the stored hash.
    fn leaves(&self, first: u64, count: u64) -> impl Future<Output = Result<Vec<Vec<u8>>, Unread>> + Send;
}

/// The store did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It cannot be asked now; later it can.
    Away(String),
    /// These leaves were removed with all that came before them: the log begins at this index.
    Removed {
        /// The index of the first leaf that is still there.
        begins_at: u64,
    },
    /// What is stored contradicts itself: somebody changed it.
    Broken(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Away(what) | Unread::Broken(what) => f.write_str(what),
            Unread::Removed { begins_at } => write!(f, "the entries below index {begins_at} were removed"),
        }
    }
}

impl std::error::Error for Unread {}
