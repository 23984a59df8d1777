//! The HTTP routes of the webhooks. They check the token, the number of requests and the body, each within its limits.
//! The answer says whether the record is durable.

use crate::http::api_token::{ApiToken, ApiTokens};
use crate::metrics::WebhookMetrics;
use crate::webhook::call as webhook;
use crate::webhook::call::{ACTOR_HEADER, Submitter, Webhook, WebhookAnswer};
use crate::webhook::credentials::{self, CHALLENGE, WAYS};
use crate::webhook::refusals::{self, Refusals, RefusedCall};
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bounded_listener::Caller;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

const KEY_HEADER: &str = "Idempotency-Key";

/// A body comes within this time, or within the patience of its caller, whichever is less.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);
/// Whoever is refused may still be sending: the rest is read so far, and so long, for the answer to be heard.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct WebhookLimits {
    /// From the request to its answer.
    pub patience: Duration,
    /// Requests at a time, of all callers together.
    pub requests_max: usize,
    pub body_bytes_max: usize,
}

/// The webhooks, to be served.
#[derive(Clone, Debug)]
pub struct WebhookRouter {
    pub(crate) router: Router,
}

struct RouteState<I> {
    intake: I,
    tokens: watch::Receiver<Arc<ApiTokens>>,
    places: Semaphore,
    limits: WebhookLimits,
    metrics: WebhookMetrics,
    refusals: Arc<Refusals>,
}

/// A request without its body.
struct RequestHead<'a> {
    webhook: Webhook,
    caller: &'a Caller,
    headers: &'a HeaderMap,
}

impl WebhookRouter {
    /// Lets these tokens in.
    pub fn new(
        intake: impl Submitter,
        tokens: watch::Receiver<Arc<ApiTokens>>,
        limits: WebhookLimits,
        metrics: WebhookMetrics,
        refusals: Arc<Refusals>,
    ) -> Self {
        let places = Semaphore::new(limits.requests_max);
        let state = Arc::new(RouteState { intake, tokens, places, limits, metrics, refusals });
        let router = Webhook::ALL.into_iter().fold(Router::new(), |router, webhook| {
            let state = state.clone();
            let answer = move |ConnectInfo(caller): ConnectInfo<Caller>, headers: HeaderMap, body: Body| async move {
                respond(&state, &RequestHead { webhook, caller: &caller, headers: &headers }, body).await
            };
            router.route(webhook.path(), post(answer))
        });
        Self { router }
    }
}

/// Answers on a listener of their own until told to stop.
pub async fn serve(
    listener: TcpListener,
    webhooks: WebhookRouter,
    limits: bounded_listener::Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    bounded_listener::serve(listener, webhooks.router, limits, stop).await
}

async fn respond<I: Submitter>(state: &RouteState<I>, head: &RequestHead<'_>, mut body: Body) -> Response {
    let answer = match state.answer(head, &mut body).await {
        Ok(answer) => answer,
        Err(refusal) => {
            // Whoever was too slow was waited for already.
            if refusal.status != StatusCode::REQUEST_TIMEOUT {
                discard(body).await;
            }
            refusal
        }
    };
    state.note(head, &answer);
    let status = StatusCode::from_u16(answer.status).expect("one of ours");
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], format!("{}\n", answer.body)).into_response();
    if let Some((name, value)) = advice(status) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The header that says what to do about an answer.
fn advice(status: StatusCode) -> Option<(HeaderName, &'static str)> {
    match status {
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, CHALLENGE)),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "1")),
        _ => None,
    }
}

impl<I: Submitter> RouteState<I> {
    /// `Err`: refused, and the body may not be read to its end.
    async fn answer(&self, head: &RequestHead<'_>, body: &mut Body) -> Result<WebhookAnswer, WebhookAnswer> {
        let deadline = Instant::now() + self.limits.patience;
        let tokens = self.tokens.borrow().clone();
        let token = admit(&tokens, head.headers)?;
        let _place = self.places.try_acquire().map_err(|_| {
            let why = format!(
                "{} requests are being answered, as many as webhooks.requests_max allows: send it again in a second",
                self.limits.requests_max
            );
            WebhookAnswer::failed(429, "too_many_requests", &why)
        })?;
        head.caller.is_admitted();
        let body_deadline = deadline.min(Instant::now() + BODY_TIME_MAX);
        let body = timeout_at(body_deadline, read_body(body, self.limits.body_bytes_max)).await;
        let body =
            body.unwrap_or_else(|_| Err(WebhookAnswer::failed(408, "too_slow", "the body did not come in time")))?;
        let value = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
        let actor = value(ACTOR_HEADER).map(String::from_utf8_lossy);
        let caller = webhook::WebhookCaller { token, actor: actor.as_deref(), idempotency_key: value(KEY_HEADER) };
        let posting = match head.webhook.read(caller, body) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        let record_id = posting.record_id();
        Ok(WebhookAnswer::to(record_id.as_deref(), self.intake.submit(posting, deadline).await))
    }

    /// Counts an answer, and tells the operator of a refusal.
    fn note(&self, head: &RequestHead<'_>, answer: &WebhookAnswer) {
        let WebhookAnswer { status, body } = answer;
        self.metrics.count(head.webhook.name(), *status);
        if refusals::STATUSES.contains(status) {
            let address = Some(head.caller.address());
            let why = body["detail"].as_str().unwrap_or_default();
            self.refusals.note(RefusedCall { status: *status, webhook: head.webhook.name(), address }, why);
        }
    }
}

/// Whoever has one of the tokens in the headers.
fn admit<'a>(tokens: &'a ApiTokens, headers: &HeaderMap) -> Result<&'a ApiToken, WebhookAnswer> {
    let given = credentials::tokens(headers);
    given.iter().find_map(|token| tokens.of_token(token)).ok_or_else(|| {
        let what = if given.is_empty() { "the request has no token" } else { "the token is not known here" };
        WebhookAnswer::failed(401, "unauthorized", &format!("{what}: {WAYS}"))
    })
}

async fn read_body(body: &mut Body, bytes_max: usize) -> Result<Bytes, WebhookAnswer> {
    let too_large = || {
        let why = format!("a body has at most {bytes_max} bytes, as limits.record_bytes_max says");
        WebhookAnswer::failed(413, "too_large", &why)
    };
    // What the sender says of its length.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| WebhookAnswer::failed(400, "malformed_json", "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large());
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
