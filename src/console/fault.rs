//! Why a page or an answer cannot be given: a page for people, and a problem (RFC 9457) for programs.

use crate::console::access::Refusal;
use crate::console::layout::{Screen, page};
use crate::postgres::remedy::DatabaseError;
use crate::query::BadQuestion;
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// There is nothing at this address.
    #[error("there is no such page")]
    NoSuchPage,
    #[error("the ledger has no entry {0}: the newest has the largest number")]
    NoSuchEntry(u64),
    #[error("the ledger has nothing under the id {0}: what was published a moment ago may still wait in the stream")]
    NoSuchEvent(String),
    #[error("entry {0} is no reject: /rejects lists those that are")]
    NoSuchReject(i64),
    /// A server that is needed is away.
    #[error("{0}")]
    Unavailable(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Refused(String),
    /// What the framework refuses: a query that cannot be read, a method that is not there.
    #[error("{why}")]
    Request { status: StatusCode, why: String },
    /// Nobody is named in the request.
    #[error("this needs a token: send Authorization: Bearer with one that console.tokens lists, or sign in at /login")]
    NotSignedIn,
    #[error("the token is not known here: console.tokens lists the hash of each that is")]
    WrongToken,
    #[error("too many wrong tokens came from this address: wait for a minute")]
    TooManyFailures,
    #[error("the system gives no randomness for a session: try again")]
    NoRandomness,
    /// The visitor is known, and may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The request was meant for another server.
    #[error("{0}")]
    Misdirected(&'static str),
    /// The question itself is wrong.
    #[error("{0}")]
    BadQuestion(#[from] BadQuestion),
    /// No record has this id.
    #[error("no record has this id; /search looks for an id of any kind")]
    NotRecorded,
    /// As many watch as may.
    #[error(
        "as many live streams are open as may be; ask again in a few seconds, or reload the page to see what is new"
    )]
    TooManyStreams,
    /// What was asked for by name is not there.
    #[error("{0}")]
    NotFound(String),
    /// The database did not answer, or not as it should.
    #[error("the database cannot be asked: {0}")]
    Database(#[from] DatabaseError),
}

impl Fault {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPage
            | Self::NotRecorded
            | Self::NotFound(_)
            | Self::NoSuchEntry(_)
            | Self::NoSuchEvent(_)
            | Self::NoSuchReject(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::Request { status, .. } => *status,
            Self::BadQuestion(_) => StatusCode::BAD_REQUEST,
            Self::NotSignedIn | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Database(_) | Self::Unavailable(_) | Self::NoRandomness | Self::TooManyStreams => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The headers that tell a program what to do about it.
    pub(crate) fn headers(&self) -> HeaderMap {
        let header = match self.status() {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer realm=\"ledgerd\"")),
            StatusCode::TOO_MANY_REQUESTS => Some((header::RETRY_AFTER, "60")),
            // What passes by itself says when to come again.
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "5")),
            _ => None,
        };
        header.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::NotSignedIn,
            Refusal::WrongToken => Self::WrongToken,
            Refusal::TooManyFailures => Self::TooManyFailures,
            Refusal::NoRandomness => Self::NoRandomness,
        }
    }
}

/// As a page.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let content = html! {
            h1 { (self.status().canonical_reason().unwrap_or("Error")) }
            p .error role="alert" { (self) }
            p { a href="/" { "To the overview" } }
        };
        (self.status(), self.headers(), page("Error", Screen::Other, &content)).into_response()
    }
}

/// The media type of a problem.
pub(crate) const PROBLEM_TYPE: &str = "application/problem+json";

/// As a problem.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) Fault);

impl<E: Into<Fault>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// A problem of RFC 9457.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemDetails {
    /// Which kind of problem it is; `about:blank` says no more than the status.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let details =
            ProblemDetails { kind: "about:blank", title, status: status.as_u16(), detail: self.0.to_string() };
        let headers = self.0.headers();
        (status, headers, [(header::CONTENT_TYPE, PROBLEM_TYPE)], Json(details)).into_response()
    }
}
