//! The log over HTTP, c2sp.org/tlog-tiles below `/log`: the newest checkpoint, tiles of hashes, bundles of entries.
//!
//! Only what the newest checkpoint covers is served, and it never changes. An entry is a leaf, which holds hashes of
//! the publisher's bytes and not the bytes.

use crate::log::stored_tree::{StoredTree, Unread};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tlog::checkpoint::Checkpoint;
use tlog::note::Note;
use tlog::tile::{Content, HashRange, TILE_WIDTH, Tile, Width, encode_bundle, encode_hashes};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// Where it is: the log's prefix.
pub const PREFIX: &str = "/log";
/// Tiles that are read at a time. Whoever asks for another waits for a place: many clients do not try again.
const READS_MAX: usize = 8;
const PLACE_TIME_MAX: Duration = Duration::from_secs(10);
const READ_TIME_MAX: Duration = Duration::from_secs(15);

/// "Its caching headers SHOULD be long-lived."
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// "Its headers SHOULD prevent caching beyond a few seconds."
const A_MOMENT: &str = "public, max-age=1";
/// What is not there may come.
const NOT_AT_ALL: &str = "no-store";

/// The pages of the log, to be served beside the others.
#[derive(Debug)]
pub struct Pages(pub(crate) Router);

struct PageState<B> {
    tree: B,
    newest: watch::Receiver<Option<Arc<str>>>,
    reads: Semaphore,
}

impl Pages {
    /// The log in this tree, as far as the newest signed note goes.
    pub fn new(tree: impl StoredTree, newest: watch::Receiver<Option<Arc<str>>>) -> Self {
        let state = Arc::new(PageState { tree, newest, reads: Semaphore::new(READS_MAX) });
        let router = Router::new()
            .route("/checkpoint", get(checkpoint))
            .route("/tile/{*path}", get(tile))
            .fallback(async || refused(StatusCode::NOT_FOUND, "expected checkpoint or tile/…"))
            .with_state(state);
        Self(Router::new().nest(PREFIX, router))
    }
}

fn answered(content_type: &'static str, caching: &'static str, body: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, caching)], body).into_response()
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, answered("text/plain; charset=utf-8", NOT_AT_ALL, format!("{why}\n"))).into_response()
}

fn busy(why: &str) -> Response {
    ([(header::RETRY_AFTER, "1")], refused(StatusCode::SERVICE_UNAVAILABLE, why)).into_response()
}

const NO_CHECKPOINT: &str = "no checkpoint was signed yet";

async fn checkpoint<B: StoredTree>(State(state): State<Arc<PageState<B>>>) -> Response {
    let newest = state.newest.borrow().clone();
    match newest {
        Some(note) => answered("text/plain; charset=utf-8", A_MOMENT, note.to_string()),
        None => refused(StatusCode::NOT_FOUND, NO_CHECKPOINT),
    }
}

async fn tile<B: StoredTree>(
    State(state): State<Arc<PageState<B>>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let tile = match Tile::parse(&format!("tile/{path}")) {
        Ok(tile) => tile,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(size) = state.published_size() else { return refused(StatusCode::NOT_FOUND, NO_CHECKPOINT) };
    if !tile.is_in(size) {
        let why = format!("the log's newest checkpoint is of size {size}, and such a tree has no {tile}");
        return refused(StatusCode::NOT_FOUND, &why);
    }
    let Ok(Ok(_permit)) = timeout(PLACE_TIME_MAX, state.reads.acquire()).await else {
        return busy("too many tiles are being read: try again");
    };
    match timeout(READ_TIME_MAX, state.read(&tile)).await {
        Ok(Ok(bytes)) if tile.content() == Content::Entries => bundle(bytes, &headers),
        Ok(Ok(bytes)) => answered("application/octet-stream", FOR_EVER, bytes),
        Ok(Err(error)) => unread(&tile, &error),
        Err(_) => busy("the store did not answer in time: try again"),
    }
}

impl<B: StoredTree> PageState<B> {
    fn published_size(&self) -> Option<u64> {
        let newest = self.newest.borrow().clone()?;
        let note = Note::parse(newest.as_bytes()).ok()?;
        Some(Checkpoint::parse(note.unverified_text()).ok()?.head().size)
    }

    async fn read(&self, tile: &Tile) -> Result<Vec<u8>, Unread> {
        let range = tile.range();
        if tile.content() == Content::Entries {
            let leaves = self.tree.leaves(range.first, range.count).await?;
            return encode_bundle(leaves.iter().map(Vec::as_slice)).map_err(|error| Unread::Broken(error.to_string()));
        }
        let hashes = self.tree.hashes(std::slice::from_ref(&range)).await?.of_range(&range);
        Ok(encode_hashes(&hashes.map_err(|error| Unread::Broken(error.to_string()))?))
    }
}

/// "In response to a request for a full tile, or an entry bundle, the log MAY return an error response if the resource's end
/// index is below or equal to the minimum index" ("Pruning"); any other tile has to be there.
fn unread(tile: &Tile, error: &Unread) -> Response {
    match error {
        Unread::Away(why) => {
            tracing::warn!("{tile} cannot be read now: {why}");
            busy("the store is away: try again")
        }
        Unread::Removed { begins_at } if tile.width() == Width::FULL && end(&tile.range()) <= *begins_at => {
            let why = format!("pruned under authorisation: the log's minimum index is {begins_at}");
            refused(StatusCode::NOT_FOUND, &why)
        }
        Unread::Removed { .. } | Unread::Broken(_) => {
            tracing::error!("{tile} cannot be served: {error}; `ledgerd verify` says what was changed");
            refused(
                StatusCode::INTERNAL_SERVER_ERROR,
                "what is stored here contradicts itself; the log has told its operator",
            )
        }
    }
}

/// The index of the first leaf behind these hashes.
fn end(range: &HashRange) -> u64 {
    let span = TILE_WIDTH.checked_pow(u32::from(range.level)).unwrap_or(u64::MAX);
    range.first.saturating_add(range.count).saturating_mul(span)
}

/// "Entry bundles SHOULD be compressed at the HTTP layer."
fn bundle(bytes: Vec<u8>, headers: &HeaderMap) -> Response {
    const VARY: (HeaderName, &str) = (header::VARY, "Accept-Encoding");
    if !accepts_gzip(headers) {
        return ([VARY], answered("application/octet-stream", FOR_EVER, bytes)).into_response();
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    let zipped = encoder.write_all(&bytes).and_then(|()| encoder.finish()).expect("a Vec takes any bytes");
    ([VARY, (header::CONTENT_ENCODING, "gzip")], answered("application/octet-stream", FOR_EVER, zipped)).into_response()
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
        coding.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
