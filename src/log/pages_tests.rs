use super::*;
use axum::body::to_bytes;
use axum::http::HeaderValue;
use tlog::plan::Hashes;
use tokio::sync::Notify;

/// A store that answers as it is told to.
struct Told {
    hold: Option<Arc<Notify>>,
    error: Option<Unread>,
}

impl StoredTree for Told {
    async fn hashes(&self, ranges: &[HashRange]) -> Result<Hashes, Unread> {
        if let Some(hold) = &self.hold {
            hold.notified().await;
        }
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let hashes =
            ranges.iter().flat_map(|range| (0..range.count).map(|at| (range.level, range.first + at, [7; 32])));
        Ok(hashes.collect())
    }

    async fn leaves(&self, _: u64, count: u64) -> Result<Vec<Vec<u8>>, Unread> {
        self.error.clone().map_or_else(|| Ok((0..count).map(|_| b"leaf".to_vec()).collect()), Err)
    }
}

const NOTE: &str = "example.com/ledger\n600\nsFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\n— example.com/ledger Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn state(told: Told) -> (Arc<PageState<Told>>, watch::Sender<Option<Arc<str>>>) {
    let (sender, newest) = watch::channel(Some(Arc::from(NOTE)));
    (Arc::new(PageState { tree: told, newest, reads: Semaphore::new(READS_MAX) }), sender)
}

async fn ask(state: &Arc<PageState<Told>>, path: &str) -> Response {
    tile(State(Arc::clone(state)), Path(path.to_owned()), HeaderMap::new()).await
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("in memory");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_store_that_fails_is_told_apart_from_what_was_removed_and_what_was_changed() {
    for (error, path, status) in [
        (Unread::Away("down".to_owned()), "0/000", 503),
        (Unread::Broken("changed".to_owned()), "0/000", 500),
        (Unread::Removed { begins_at: 256 }, "entries/000", 404),
        (Unread::Removed { begins_at: 256 }, "0/000", 404),
        (Unread::Removed { begins_at: 255 }, "entries/000", 500),
        (Unread::Removed { begins_at: 256 }, "entries/001", 500),
        (Unread::Removed { begins_at: 600 }, "entries/002.p/88", 500),
        (Unread::Removed { begins_at: 600 }, "1/000.p/2", 500),
    ] {
        let (state, _newest) = state(Told { hold: None, error: Some(error.clone()) });
        let response = ask(&state, path).await;
        assert_eq!(response.status().as_u16(), status, "{error} {path}");
        assert_eq!(response.headers().get(header::CACHE_CONTROL), Some(&HeaderValue::from_static(NOT_AT_ALL)));
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
    }
}

#[tokio::test]
async fn reads_are_bounded_and_whoever_comes_later_waits_for_a_place() {
    let hold = Arc::new(Notify::new());
    let (state, _newest) = state(Told { hold: Some(Arc::clone(&hold)), error: None });
    // As many as a client asks for that checks a whole log side by side.
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let state = Arc::clone(&state);
        reads.spawn(async move { ask(&state, "0/000").await.status() });
    }
    while state.reads.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let mut answered = 0;
    while answered < 64 {
        hold.notify_waiters();
        tokio::task::yield_now().await;
        while let Some(read) = reads.try_join_next() {
            assert_eq!(read.expect("no panic"), StatusCode::OK);
            answered += 1;
        }
    }
}

#[tokio::test]
async fn before_the_first_checkpoint_there_is_nothing() {
    let (state, newest) = state(Told { hold: None, error: None });
    newest.send_replace(None);
    for response in [ask(&state, "0/000.p/1").await, checkpoint(State(Arc::clone(&state))).await] {
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(text(response).await.contains(NO_CHECKPOINT));
    }
}

#[test]
fn gzip_is_for_those_who_take_it() {
    for (value, accepted) in
        [("gzip", true), ("br, GZIP;q=0.5", true), ("identity", false), ("gzip;q=0", false), ("gzip;q=x", false)]
    {
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
        assert_eq!(accepts_gzip(&headers), accepted, "{value}");
    }
    assert!(!accepts_gzip(&HeaderMap::new()));
}
