//! The files that pages refer to. They are inside the program, and come from nowhere else.

use crate::console::site::Shared;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

pub(crate) const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
/// Checks a proof: the one copy, for the console and for the offline page.
pub(crate) const VERIFY: &str = include_str!("assets/verify.js");
pub(crate) const VERIFY_PAGE: &str = include_str!("assets/verify_page.js");
const ICON: &str = include_str!("assets/icon.svg");

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/assets/console.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/assets/console.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/verify.js", get(async || asset("text/javascript; charset=utf-8", VERIFY)))
        .route("/assets/verify_page.js", get(async || asset("text/javascript; charset=utf-8", VERIFY_PAGE)))
        .route("/assets/icon.svg", get(async || asset("image/svg+xml", ICON)))
}

fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], text)
}
