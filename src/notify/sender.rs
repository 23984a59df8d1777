//! One attempt at a notification: signed as Standard Webhooks says, posted, and its answer read within bounds.

use crate::clock::since_1970;
use crate::config::{NotifyTarget, SigningSecret};
use crate::http::client::{client, with_sources};
use crate::notify::sources::Notification;
use crate::record::reject::is_printable;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use sha2::Sha256;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Of the body of an answer, to be shown to an operator.
const BODY_BYTES_MAX: usize = 4 * 1024;
const BODY_CHARS_SHOWN: usize = 200;
const BODY_TIME_MAX: Duration = Duration::from_secs(1);
/// A receiver that names a longer wait is asked earlier.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Posts notifications.
#[derive(Debug)]
pub(crate) struct Sender(reqwest::Client);

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// 410: the receiver wants no more.
    Gone,
    /// Anything else. The receiver may say when to try again.
    Refused {
        retry_after: Option<Duration>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub verdict: Verdict,
    /// For people: the status and the beginning of the body, or why there is none.
    pub answer: String,
    pub took: Duration,
}

impl Sender {
    /// # Errors
    /// Why the system's certificates cannot be used.
    pub(crate) fn new() -> Result<Self, String> {
        client().map(Self)
    }

    /// Posts it once.
    pub(crate) async fn send(&self, target: &NotifyTarget, notification: &Notification) -> Attempt {
        let began = Instant::now();
        let unanswered = |why: String| (Verdict::Refused { retry_after: None }, why);
        let (verdict, answer) = match timeout(target.timeout, self.post(target, notification)).await {
            Ok(Ok(response)) => judged(response).await,
            // The URL may hold a secret.
            Ok(Err(error)) => unanswered(with_sources(&error.without_url())),
            Err(_) => unanswered(format!("no answer within {}", humantime::format_duration(target.timeout))),
        };
        Attempt { verdict, answer, took: began.elapsed() }
    }

    async fn post(&self, target: &NotifyTarget, notification: &Notification) -> reqwest::Result<Response> {
        let (id, body) = (notification.webhook_id(), notification.body());
        let timestamp = since_1970().as_secs();
        let signatures: Vec<String> =
            target.secrets.iter().map(|secret| signature(secret, &id, timestamp, &body)).collect();
        let request = self
            .0
            .post(target.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" "))
            .body(body);
        request.send().await
    }
}

/// The signature of Standard Webhooks, version 1.
fn signature(secret: &SigningSecret, id: &str, timestamp: u64, body: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("a key of any length will do");
    hmac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes()))
}

async fn judged(response: Response) -> (Verdict, String) {
    let status = response.status();
    let verdict = match status {
        _ if status.is_success() => Verdict::Accepted,
        StatusCode::GONE => Verdict::Gone,
        _ => Verdict::Refused { retry_after: retry_after(response.headers()) },
    };
    let redirect =
        if status.is_redirection() { "; redirects are not followed, so the setting names the last URL" } else { "" };
    // The status alone decides: a body that does not come costs nothing.
    let body = timeout(BODY_TIME_MAX, beginning(response)).await.unwrap_or_default();
    let body = if body.is_empty() { body } else { format!(": {body}") };
    (verdict, format!("{status}{redirect}{body}"))
}

/// How long to wait, as seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let moment = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::from_secs(u64::try_from(moment.as_second()).ok()?).saturating_sub(since_1970())
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The beginning of a body on one line. The rest is not read.
async fn beginning(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(BODY_BYTES_MAX - body.len())]);
        if body.len() >= BODY_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let shown = text.chars().map(|it| if is_printable(it) { it } else { ' ' }).take(BODY_CHARS_SHOWN);
    shown.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    /// The example of the reference libraries.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_wait_is_named_in_seconds_or_as_a_date_and_is_bounded() {
        let wait =
            |text: &'static str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Tue, 31 Dec 2999 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!((wait("soon"), wait("-1")), (None, None));
    }
}
