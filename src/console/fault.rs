//! Why a page or an answer cannot be given: a page for people, and a problem (RFC 9457) for programs.

use crate::console::layout::{Screen, page};
use crate::postgres::remedy::DatabaseError;
use axum::Json;
use axum::http::{StatusCode, header};
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
    /// What was asked for by name is not there.
    #[error("{0}")]
    NotFound(String),
    /// The database did not answer, or not as it should.
    #[error("the database cannot be asked: {0}")]
    Database(#[from] DatabaseError),
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPage | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
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
        (self.status(), page("Error", Screen::Other, &content)).into_response()
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
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(details)).into_response()
    }
}
