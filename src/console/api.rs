//! The API: the same questions for programs, as JSON, and its description in OpenAPI 3.1.

mod search;
mod timeline;

use crate::console::fault::{Fault, Problem};
use crate::console::site::Shared;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) const PREFIX: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(info(title = "ledgerd", description = "Questions about the record. Nothing here writes."))]
struct Description;

fn described() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(timeline::timeline))
        .routes(routes!(timeline::live))
        .routes(routes!(search::search))
        .routes(routes!(search::task))
        .routes(routes!(search::proposal))
        .split_for_parts()
}

pub(crate) fn router() -> Router<Shared> {
    let (router, description) = described();
    router.route("/openapi.json", get(async || Json(description))).fallback(async || Problem(Fault::NoSuchPage))
}
