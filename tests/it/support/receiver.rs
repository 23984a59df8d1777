//! A receiver of webhooks: it remembers what it was sent, and answers as a test says.

use super::port::free_port;
use super::{SOON, eventually, when};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// 24 bytes, in the form of Standard Webhooks.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What was sent.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) id: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
    /// How it was answered.
    pub(crate) status: u16,
}

impl Received {
    pub(crate) fn body(&self) -> Value {
        serde_json::from_str(&self.text).expect("a body is JSON")
    }

    pub(crate) fn kind(&self) -> String {
        self.body()["type"].as_str().expect("a type").to_owned()
    }
}

/// An answer of the receiver.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) after: Duration,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), after: Duration::ZERO }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

#[derive(Debug)]
struct Script {
    /// For the next ones, in this order.
    next: VecDeque<Reply>,
    /// For whatever comes then.
    usual: Reply,
}

#[derive(Clone, Debug)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Mutex<Script>>,
}

/// Dropping it closes its port.
#[derive(Debug)]
pub(crate) struct Receiver {
    port: u16,
    shared: Shared,
    server: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Answers 204 until told otherwise.
    pub(crate) async fn start() -> Self {
        let mut receiver = Self::away();
        receiver.come().await;
        receiver
    }

    /// Nobody listens on its port yet.
    pub(crate) fn away() -> Self {
        let script = Script { next: VecDeque::new(), usual: Reply::status(204) };
        let shared = Shared { received: Arc::default(), script: Arc::new(Mutex::new(script)) };
        Self { port: free_port(), shared, server: None }
    }

    /// Listens from now on.
    pub(crate) async fn come(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.expect("the port is free");
        let router = Router::new().fallback(receive).with_state(self.shared.clone());
        self.server = Some(tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") }));
    }

    /// Its path is a secret, as that of many receivers is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook/path-that-is-secret", self.port)
    }

    /// These answer the next ones.
    pub(crate) fn answers(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().next.extend(replies);
    }

    /// This answers everything from now on.
    pub(crate) fn answers_all(&self, reply: Reply) {
        let mut script = self.shared.script.lock();
        script.next.clear();
        script.usual = reply;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().clone()
    }

    /// What it accepted, without what it had accepted before.
    pub(crate) fn accepted(&self) -> Vec<Received> {
        let mut accepted: Vec<Received> = Vec::new();
        for it in self.received().into_iter().filter(|it| it.status < 300) {
            if accepted.iter().all(|known| known.id != it.id) {
                accepted.push(it);
            }
        }
        accepted
    }

    /// Waits until it was sent so many.
    pub(crate) async fn is_sent(&self, count: usize) -> Vec<Received> {
        eventually(&format!("the receiver is sent {count}"), SOON, async || {
            let received = self.received();
            when(received.len() >= count, || format!("{received:#?}"))
        })
        .await;
        self.received()
    }

    /// Waits until it has accepted so many different ones.
    pub(crate) async fn accepts(&self, count: usize) -> Vec<Received> {
        eventually(&format!("the receiver accepts {count}"), SOON, async || {
            let accepted = self.accepted();
            when(accepted.len() >= count, || format!("{} of {:#?}", accepted.len(), self.received()))
        })
        .await;
        self.accepted()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let reply = {
        let mut script = shared.script.lock();
        script.next.pop_front().unwrap_or_else(|| script.usual.clone())
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "user-agent"];
    shared.received.lock().push(Received {
        at: Instant::now(),
        id: text("webhook-id"),
        headers: names.iter().map(|name| ((*name).to_owned(), text(name))).collect(),
        text: String::from_utf8(body.to_vec()).expect("UTF-8"),
        status: reply.status,
    });
    sleep(reply.after).await;
    let mut response = (StatusCode::from_u16(reply.status).expect("a status"), "so says the receiver").into_response();
    for (name, value) in &reply.headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
    }
    response
}

/// The setting of targets, as the environment has it: name, URL, events and further keys of each.
pub(crate) fn notify_setting(targets: &[(&str, &str, &[&str], &str)]) -> String {
    let one = |(name, url, events, more): &(&str, &str, &[&str], &str)| {
        format!("{{ name = {name:?}, url = {url:?}, events = {events:?}, secret = {SECRET:?}, {more} }}")
    };
    format!("[{}]", targets.iter().map(one).collect::<Vec<_>>().join(", "))
}
