//! An object store that speaks as much of S3 as an archive needs, and can be told to misbehave.

use super::daemon::Environment;
use super::port::free_port;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Debug, Default)]
struct Content {
    objects: BTreeMap<String, Bytes>,
    damages: bool,
    refuses: bool,
}

/// The store. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct ObjectStore {
    port: u16,
    content: Arc<Mutex<Content>>,
    server: JoinHandle<()>,
}

impl ObjectStore {
    pub(crate) async fn start() -> Self {
        let port = free_port();
        let content = Arc::new(Mutex::new(Content::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&content));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is ours");
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { port, content, server }
    }

    /// What a client needs to find it.
    pub(crate) fn environment(&self) -> Environment {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// From now on, one byte of each object is another than what was sent; or no longer.
    pub(crate) fn damage_what_comes(&self, damages: bool) {
        self.content().damages = damages;
    }

    /// From now on, nobody may do anything.
    pub(crate) fn refuse(&self) {
        self.content().refuses = true;
    }

    /// The lines of all compressed objects.
    pub(crate) fn lines(&self) -> Vec<String> {
        let content = self.content();
        let files = content.objects.iter().filter(|(name, _)| name.ends_with(".jsonl.gz"));
        files
            .flat_map(|(_, bytes)| {
                let mut text = String::new();
                GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("gzip");
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().expect("no test panics while it holds the content")
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    State(content): State<Arc<Mutex<Content>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> (StatusCode, HeaderMap, Bytes) {
    let mut content = content.lock().expect("no test panics while it holds the content");
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, "\"1\"".parse().expect("a value"));
    headers.insert(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".parse().expect("a value"));
    if content.refuses {
        return (StatusCode::FORBIDDEN, headers, Bytes::new());
    }
    match method {
        Method::PUT => {
            let mut bytes = body.to_vec();
            if content.damages {
                *bytes.last_mut().expect("no object is empty") ^= 1;
            }
            content.objects.insert(uri.path().to_owned(), bytes.into());
            (StatusCode::OK, headers, Bytes::new())
        }
        Method::GET => match content.objects.get(uri.path()) {
            Some(bytes) => (StatusCode::OK, headers, bytes.clone()),
            None => (StatusCode::NOT_FOUND, headers, Bytes::new()),
        },
        _ => (StatusCode::METHOD_NOT_ALLOWED, headers, Bytes::new()),
    }
}
