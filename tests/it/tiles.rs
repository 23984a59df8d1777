//! The log over HTTP, as a client sees it that knows nothing but the specification and the log's key.

use crate::support::daemon::Daemon;
use crate::support::forge;
use crate::support::http::{HttpAnswer, ask, get};
use crate::support::signed::{fill, sign, sign_at, verifier_key};
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use flate2::read::GzDecoder;
use ledgerd::record::leaf_fields::LeafFields;
use std::io::Read;
use tlog::checkpoint::{Log, SignedCheckpoint};
use tlog::note::VerifierKey;
use tlog::tile::{Tile, Width, decode_bundle, decode_hashes, levels};
use tlog::tree::{Frontier, Hash, leaf_hash};

const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// More than one tile of level 1, and a part of another.
const SIZE: u64 = 65_536 + 300;

async fn checkpoint_of_size(daemon: &Daemon, size: u64) -> SignedCheckpoint {
    let log = Log::of_key(VerifierKey::parse(&verifier_key()).expect("a key"));
    eventually("the checkpoint is served", SOON, async || {
        let answer = get(daemon.http_port(), "/log/checkpoint").await;
        when(answer.status == 200, || format!("{answer:?}"))?;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "public, max-age=1");
        let checkpoint = SignedCheckpoint::parse(&answer.body, &log).expect("the log signed it");
        when(checkpoint.head().size == size, || checkpoint.to_string())?;
        Ok(checkpoint)
    })
    .await
}

async fn tile(daemon: &Daemon, tile: Option<Tile>) -> HttpAnswer {
    let tile = tile.expect("a tile of a tree");
    let answer = get(daemon.http_port(), &format!("/log/{tile}")).await;
    assert_eq!(answer.status, 200, "{tile}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("cache-control"), FOR_EVER);
    answer
}

fn root(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::EMPTY;
    for hash in hashes {
        frontier.append(*hash, &mut Vec::new());
    }
    frontier.root()
}

#[tokio::test]
async fn whoever_downloads_the_log_finds_the_signed_root_in_it() {
    let world = World::start().await;
    fill(&world.database, SIZE).await;
    sign(&world.database).await;
    let daemon = world.daemon().await;
    let checkpoint = checkpoint_of_size(&daemon, SIZE).await;

    let mut below: Vec<Hash> = Vec::new();
    for level in levels(SIZE) {
        let mut hashes = Vec::new();
        let partial = level.partial.map(|width| (level.full, width));
        for (index, width) in (0..level.full).map(|index| (index, Width::FULL)).chain(partial) {
            let answer = tile(&daemon, Tile::of_hashes(level.level, index, width)).await;
            hashes.extend(decode_hashes(&answer.body, width).expect("a tile of that width"));
        }
        if level.level == 0 {
            assert_eq!(root(&hashes), checkpoint.head().root);
        } else {
            let above: Vec<Hash> = below.chunks_exact(256).map(root).collect();
            assert_eq!(hashes, above, "level {}", level.level);
        }
        below = hashes;
    }

    let mut entries = 0;
    let level = levels(SIZE)[0];
    let partial = level.partial.map(|width| (level.full, width));
    for (index, width) in [0, 1, 255, 256].map(|index| (index, Width::FULL)).into_iter().chain(partial) {
        let bundle = tile(&daemon, Tile::of_entries(index, width)).await.body;
        let hashes = tile(&daemon, Tile::of_hashes(0, index, width)).await.body;
        let hashes = decode_hashes(&hashes, width).expect("a tile of that width");
        let leaves = decode_bundle(&bundle, width).expect("a bundle of that width");
        assert_eq!(leaves.iter().map(|leaf| leaf_hash(leaf)).collect::<Vec<_>>(), hashes);
        for leaf in &leaves {
            LeafFields::decode(leaf).expect("a leaf");
        }
        entries += leaves.len();
    }
    assert_eq!(entries, 4 * 256 + usize::try_from(SIZE % 256).expect("small"));
    let first = tile(&daemon, Tile::of_entries(0, Width::FULL)).await.body;
    let first = decode_bundle(&first, Width::FULL).expect("a bundle");
    assert_eq!(LeafFields::decode(first[0]).expect("a leaf").stream, "ledgerd", "a migration");
}

#[tokio::test]
async fn nothing_is_served_that_the_newest_checkpoint_does_not_cover() {
    let world = World::start().await;
    let daemon = world.daemon().await;
    let port = daemon.http_port();
    let none = get(port, "/log/checkpoint").await;
    assert_eq!((none.status, none.header("cache-control")), (404, "no-store"));
    assert_eq!(get(port, "/log/tile/0/000.p/1").await.status, 404);
    fill(&world.database, 700).await;
    sign_at(&world.database, 300).await;
    checkpoint_of_size(&daemon, 300).await;
    for (path, status) in [
        ("/log/tile/0/000", 200),
        ("/log/tile/0/000.p/7", 200),
        ("/log/tile/0/001.p/44", 200),
        ("/log/tile/1/000.p/1", 200),
        ("/log/tile/entries/001.p/44", 200),
        // They are stored, and were not signed for yet.
        ("/log/tile/0/001.p/45", 404),
        ("/log/tile/0/001", 404),
        ("/log/tile/1/000.p/2", 404),
        ("/log/tile/entries/001", 404),
        ("/log/tile/0/x001/000", 404),
        ("/log/tile/2/000", 404),
        ("/log/tile/63/000.p/1", 404),
        ("/log/tile/64/000", 400),
        ("/log/tile/0/000.p/0", 400),
        ("/log/tile/0/000.p/256", 400),
        ("/log/tile/0/0", 400),
        ("/log/tile/0/x000/000", 400),
        ("/log/tile/0/999/x000", 400),
        ("/log/tile/00/000", 400),
        ("/log/tile/entries/000/", 400),
        ("/log/tile/%30/000", 200),
        ("/log/tile/0/%ff", 400),
        ("/log/tile/", 404),
        ("/log/", 404),
        ("/log", 404),
        ("/log/tile", 404),
        ("/tile/0/000", 404),
    ] {
        let answer = get(port, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_ne!(answer.header("cache-control") == FOR_EVER, status != 200, "{path}");
    }
    assert_eq!(ask(port, "POST", "/log/tile/0/000", &[], b"x").await.expect("an answer").status, 405);

    // The log grows: what was partial stays what it was, and more is there.
    let narrow = get(port, "/log/tile/0/001.p/44").await.body;
    sign_at(&world.database, 700).await;
    checkpoint_of_size(&daemon, 700).await;
    assert_eq!(get(port, "/log/tile/0/001.p/44").await.body, narrow);
    assert!(get(port, "/log/tile/0/001").await.body.starts_with(&narrow));
}

#[tokio::test]
async fn bundles_are_zipped_for_those_who_take_it_and_damage_is_not_served() {
    let world = World::start().await;
    fill(&world.database, 600).await;
    sign(&world.database).await;
    let daemon = world.daemon().await;
    checkpoint_of_size(&daemon, 600).await;
    let port = daemon.http_port();
    let plain = get(port, "/log/tile/entries/001").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
    let zipped =
        ask(port, "GET", "/log/tile/entries/001", &[("Accept-Encoding", "gzip")], b"").await.expect("an answer");
    assert_eq!((zipped.header("content-encoding"), zipped.header("vary")), ("gzip", "Accept-Encoding"));
    assert!(zipped.body.len() < plain.body.len() * 2 / 3, "{} of {}", zipped.body.len(), plain.body.len());
    let mut unzipped = Vec::new();
    GzDecoder::new(&zipped.body[..]).read_to_end(&mut unzipped).expect("gzip");
    assert_eq!(unzipped, plain.body);

    // Bytes that were erased are no part of a leaf.
    forge::arm(&world.database).await;
    let erased = "insert into ledger.erased (leaf_index, erasure_id, payload_sha256)
            select leaf_index, 1, payload_sha256 from ledger.entry where leaf_index between 256 and 300;
        update ledger.entry set payload = null where leaf_index between 256 and 300";
    world.database.execute(erased).await;
    assert_eq!(get(port, "/log/tile/entries/001").await.body, plain.body);
    // A row that was changed is: its bundle is not served, the others are.
    world.database.execute("update ledger.entry set record_id = 'x' where leaf_index = 300").await;
    assert_eq!(get(port, "/log/tile/entries/001").await.status, 500);
    daemon.says("entry 300 is not what was logged").await;
    assert_eq!(get(port, "/log/tile/entries/000").await.status, 200);
    // What was removed from the beginning on is pruned: whole tiles of it are denied, and what is above them stays.
    world.database.execute("delete from ledger.entry where leaf_index < 256").await;
    for path in ["/log/tile/entries/000", "/log/tile/0/000"] {
        let pruned = get(port, path).await;
        assert_eq!(pruned.status, 404);
        assert!(pruned.text().contains("minimum index is 256"), "{}", pruned.text());
    }
    assert_eq!(get(port, "/log/tile/1/000.p/2").await.status, 200);
    assert_eq!(get(port, "/log/tile/0/001").await.status, 200);
    // A hole is not.
    world.database.execute("delete from ledger.entry where leaf_index = 520").await;
    assert_eq!(get(port, "/log/tile/entries/002.p/88").await.status, 500);
}
