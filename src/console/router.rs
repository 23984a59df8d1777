//! Every address of the console, and the headers of every answer.

use crate::console::fault::Fault;
use crate::console::site::Shared;
use crate::console::{api, assets, pages};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

pub(crate) fn router(site: Shared) -> Router {
    Router::new()
        .merge(pages::router())
        .nest(api::PREFIX, api::router())
        .merge(assets::router())
        .fallback(async || Fault::NoSuchPage)
        .layer(from_fn(guarded))
        .with_state(site)
}

/// Everything comes from here, no script stands in a page, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
