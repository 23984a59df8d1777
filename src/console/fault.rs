//! Why a page or an answer cannot be given: a page for people, and a problem (RFC 9457) for programs.

use crate::console::layout::{Screen, page};
use crate::postgres::remedy::DatabaseError;
use crate::query::BadQuestion;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
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
    /// The question itself is wrong.
    #[error("{0}")]
    BadQuestion(#[from] BadQuestion),
    /// No record has this id.
    #[error("no record has this id; /search looks for an id of any kind")]
    NotRecorded,
    /// The query of the address cannot be read.
    #[error("the query cannot be read: {0}")]
    Query(#[from] QueryRejection),
    /// The path of the address cannot be read.
    #[error("the address cannot be read: {0}")]
    Path(#[from] PathRejection),
    /// As many watch as may.
    #[error(
        "as many live streams are open as may be; ask again in a few seconds, or reload the page to see what is new"
    )]
    TooManyStreams,
    /// The database did not answer, or not as it should.
    #[error("the database cannot be asked: {0}")]
    Database(#[from] DatabaseError),
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPage | Self::NotRecorded => StatusCode::NOT_FOUND,
            Self::BadQuestion(_) | Self::Query(_) | Self::Path(_) => StatusCode::BAD_REQUEST,
            Self::Database(_) | Self::TooManyStreams => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// How long to wait before the same is asked again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

impl Fault {
    /// What passes by itself says when to come again.
    fn waiting(&self, mut answer: Response) -> Response {
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        answer
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
        self.waiting((self.status(), page("Error", Screen::Other, &content)).into_response())
    }
}

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
        let answer = (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(details)).into_response();
        self.0.waiting(answer)
    }
}
