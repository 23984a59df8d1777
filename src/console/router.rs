//! Every address of the console, and the headers of every answer.

use crate::console::fault::Fault;
use crate::console::pages::login;
use crate::console::site::Shared;
use crate::console::{api, assets, guard, pages, verifier};
use crate::mcp::http::McpService;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;

pub(crate) fn router(site: Shared, mcp: McpService) -> Router {
    Router::new()
        .merge(pages::router())
        .fallback(async || Fault::NoSuchPage)
        .layer(from_fn_with_state(site.clone(), guard::pages))
        .merge(login::router())
        .layer(from_fn(guard::faults_as_pages))
        .nest(api::PREFIX, programs(&site, api::router()))
        .merge(models(&site, mcp))
        .merge(assets::router())
        .merge(verifier::router())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(site.clone(), guard::everything))
        .layer(from_fn(with_headers))
        .with_state(site)
}

/// No form and no question of a program is larger.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What programs ask, behind their guard: it answers with problems, and knows tokens besides sessions.
fn programs(site: &Shared, router: Router<Shared>) -> Router<Shared> {
    router.layer(from_fn_with_state(site.clone(), guard::programs)).layer(from_fn(guard::faults_as_problems))
}

/// What models ask, behind the same guard. The protocol has errors of its own.
fn models(site: &Shared, mcp: McpService) -> Router<Shared> {
    Router::new().route_service("/mcp", mcp).layer(from_fn_with_state(site.clone(), guard::programs))
}

/// Everything comes from here, no script stands in a page, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
