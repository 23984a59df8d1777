//! How does a webhook come in? Token, then a place, then the body, each within its bounds; the answer says whether the record is safe.

use crate::domain::bearer::Bearers;
use crate::metrics::WebhookMetrics;
use crate::webhook::{Answer, Intake, Webhook};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

const TOKEN_HEADER: &str = "X-Hegemon-Token";
const KEY_HEADER: &str = "Idempotency-Key";

/// A body comes within this time, or within the patience of its caller, whichever is less.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);
/// Whoever is refused may still be sending: the rest is read so far, and so long, for the answer to be heard.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(1);

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the request to its answer.
    pub patience: Duration,
    /// Requests at a time, of all callers together.
    pub requests_max: usize,
    /// The largest body.
    pub body_bytes_max: usize,
}

/// Both webhooks, to be served.
#[derive(Clone, Debug)]
pub struct Webhooks {
    pub(super) router: Router,
}

struct Desk<I> {
    intake: I,
    bearers: watch::Receiver<Arc<Bearers>>,
    places: Semaphore,
    limits: Limits,
    metrics: WebhookMetrics,
}

impl Webhooks {
    /// Lets these bearers in.
    pub fn new(
        intake: impl Intake,
        bearers: watch::Receiver<Arc<Bearers>>,
        limits: Limits,
        metrics: WebhookMetrics,
    ) -> Self {
        let places = Semaphore::new(limits.requests_max);
        let desk = Arc::new(Desk { intake, bearers, places, limits, metrics });
        let router = Webhook::ALL.into_iter().fold(Router::new(), |router, webhook| {
            let desk = desk.clone();
            router.route(webhook.path(), post(move |headers, body| answer(desk, webhook, headers, body)))
        });
        Self { router }
    }
}

/// Answers on a listener of their own until told to stop.
pub async fn serve(listener: TcpListener, webhooks: Webhooks, stop: CancellationToken) -> io::Result<()> {
    let listener = super::listener::Limited::new(listener);
    axum::serve(listener, webhooks.router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn answer<I: Intake>(desk: Arc<Desk<I>>, webhook: Webhook, headers: HeaderMap, mut body: Body) -> Response {
    let answer = match desk.answer(webhook, &headers, &mut body).await {
        Ok(answer) => answer,
        Err(refusal) => {
            // Whoever was too slow was waited for already.
            if refusal.status != StatusCode::REQUEST_TIMEOUT {
                discard(body).await;
            }
            refusal
        }
    };
    desk.metrics.count(webhook.name(), answer.status);
    let status = StatusCode::from_u16(answer.status).expect("one of ours");
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], format!("{}\n", answer.body)).into_response();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

impl<I: Intake> Desk<I> {
    /// `Err`: refused, and the body may not be read to its end.
    async fn answer(&self, webhook: Webhook, headers: &HeaderMap, body: &mut Body) -> Result<Answer, Answer> {
        let deadline = Instant::now() + self.limits.patience;
        let bearers = self.bearers.borrow().clone();
        let token = headers.get(TOKEN_HEADER).map(header::HeaderValue::as_bytes).unwrap_or_default();
        let bearer = bearers.of_token(token).ok_or_else(|| {
            Answer::failed(401, "unauthorized", &format!("{TOKEN_HEADER} is missing or not known here"))
        })?;
        let _place = self.places.try_acquire().map_err(|_| {
            let why = format!("{} requests are being answered: try again", self.limits.requests_max);
            Answer::failed(429, "too_many_requests", &why)
        })?;
        let body_deadline = deadline.min(Instant::now() + BODY_TIME_MAX);
        let body = timeout_at(body_deadline, read_body(body, self.limits.body_bytes_max)).await;
        let body = body.unwrap_or_else(|_| Err(Answer::failed(408, "too_slow", "the body did not come in time")))?;
        let key = headers.get(KEY_HEADER).map(header::HeaderValue::as_bytes).filter(|key| !key.is_empty());
        let posting = match webhook.read(bearer, key, body) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        let record_id = posting.record_id();
        Ok(Answer::to(record_id.as_deref(), self.intake.submit(posting, deadline).await))
    }
}

async fn read_body(body: &mut Body, bytes_max: usize) -> Result<Bytes, Answer> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Answer::failed(400, "malformed_json", "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(Answer::failed(413, "too_large", &format!("a body has at most {bytes_max} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// A connection that is closed with unread bytes is reset, and then its client may never see the answer.
async fn discard(mut body: Body) {
    let discarding = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARDED_BYTES_MAX {
                return;
            }
        }
    };
    let _ = timeout(DISCARDING_TIME_MAX, discarding).await;
}
