//! The tree, computed once more in the most naive way, straight from RFC 6962: what the daemon's must equal.

use super::ledger::Faults;
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use sqlx::postgres::PgConnection;

/// The full tiles have this many hashes.
const TILE_WIDTH: usize = 256;

type Hash = [u8; 32];

/// RFC 6962 §2.1, over leaves that are hashed already.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Sha256::new().chain_update([1]).chain_update(root(left)).chain_update(root(right)).finalize().into()
        }
    }
}

/// The roots of the perfect trees that the leaves consist of, largest first.
fn frontier(mut leaves: &[Hash]) -> Vec<u8> {
    let mut hashes = Vec::new();
    while !leaves.is_empty() {
        let largest = 1 << leaves.len().ilog2();
        hashes.extend(root(&leaves[..largest]));
        leaves = &leaves[largest..];
    }
    hashes
}

#[derive(FromRow)]
struct Head {
    size: i64,
    root: Vec<u8>,
    frontier: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, FromRow)]
struct Subtree {
    level: i16,
    index: i64,
    hash: Vec<u8>,
}

/// Checks the head and every stored subtree against the leaf hashes.
pub(super) async fn check_tree(
    connection: &mut PgConnection,
    leaf_hashes: &[Vec<u8>],
    faults: &mut Faults,
) -> Result<(), sqlx::Error> {
    let leaves: Vec<Hash> = leaf_hashes
        .iter()
        .map(|hash| hash.as_slice().try_into().expect("a constraint keeps them at 32 bytes"))
        .collect();
    let head: Head =
        sqlx::query_as("select size, root, frontier from ledger.tree_head").fetch_one(&mut *connection).await?;
    faults.unless(usize::try_from(head.size) == Ok(leaves.len()), || {
        format!("the tree's head says {} leaves, and there are {}", head.size, leaves.len())
    });
    faults.unless(head.root == root(&leaves), || "the tree's root is not that of its leaves".to_owned());
    faults.unless(head.frontier == frontier(&leaves), || "the tree's frontier is not that of its leaves".to_owned());

    let stored: Vec<Subtree> = sqlx::query_as("select level, index, hash from ledger.subtree order by level, index")
        .fetch_all(connection)
        .await?;
    let mut expected = Vec::new();
    let mut width = TILE_WIDTH;
    for level in 1.. {
        if leaves.len() < width {
            break;
        }
        let complete = (0..).zip(leaves.chunks_exact(width));
        expected.extend(complete.map(|(index, leaves)| Subtree { level, index, hash: root(leaves).to_vec() }));
        width *= TILE_WIDTH;
    }
    faults.unless(stored == expected, || {
        format!("there are {} subtrees, and {} are expected; or their hashes differ", stored.len(), expected.len())
    });
    Ok(())
}
