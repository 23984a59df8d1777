//! The interface through which readers of the log get hashes for proofs and tiles, and leaves.

use std::future::Future;
use tlog::plan::Hashes;
use tlog::tile::HashRange;

/// Where the log's hashes and leaves are stored.
pub trait StoredTree: Send + Sync + 'static {
    /// The stored hashes of these ranges: of leaves at level 0, of complete subtrees above. One that is missing is left out.
    fn hashes(&self, ranges: &[HashRange]) -> impl Future<Output = Result<Hashes, Unread>> + Send;

    /// The bytes of `count` leaves from the index `first` on, each of which has the stored hash.
    fn leaves(&self, first: u64, count: u64) -> impl Future<Output = Result<Vec<Vec<u8>>, Unread>> + Send;
}

/// The store did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It cannot be asked now; later it can.
    #[error("{0}")]
    Away(String),
    /// These leaves were removed with all that came before them: the log begins at this index.
    #[error("the entries below index {begins_at} were removed")]
    Removed {
        /// The index of the first leaf that is still there.
        begins_at: u64,
    },
    /// What is stored contradicts itself: somebody changed it.
    #[error("{0}")]
    Broken(String),
}
