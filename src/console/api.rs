//! The API: the same questions for programs, as JSON, and its description in OpenAPI 3.1.

mod description;
mod money;
mod notifications;
mod now;
mod records;
mod rejects;
mod search;
mod timeline;
mod trust;

use crate::console::fault::{Fault, Problem};
use crate::console::site::Shared;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) const PREFIX: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(servers((url = "/api/v1")), info(title = "ledgerd", description = "Questions about the record. Nothing here writes."))]
struct Description;

fn described() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(timeline::timeline))
        .routes(routes!(timeline::live))
        .routes(routes!(search::search))
        .routes(routes!(search::task))
        .routes(routes!(search::proposal))
        .routes(routes!(records::record))
        .routes(routes!(records::proof))
        .routes(routes!(rejects::list))
        .routes(routes!(rejects::one))
        .routes(routes!(now::now))
        .routes(routes!(money::budgets))
        .routes(routes!(money::budget))
        .routes(routes!(money::history))
        .routes(routes!(money::calls))
        .routes(routes!(notifications::notifications))
        .routes(routes!(trust::trust))
        .split_for_parts();
    description::complete(&mut description);
    (router, description)
}

/// The description that is served as `/openapi.json`.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    described().1
}

pub(crate) fn router() -> Router<Shared> {
    let (router, description) = described();
    router.route("/openapi.json", get(async || Json(description))).fallback(async || Problem(Fault::NoSuchPage))
}
