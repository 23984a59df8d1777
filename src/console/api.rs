//! The API: the same questions for programs, as JSON, and its description in OpenAPI 3.1.

mod money;
mod now;
mod trust;

use crate::console::fault::{Fault, Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::timeline::{TimelineFilter, TimelineLine};
use axum::extract::{Query, State};
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
        .routes(routes!(timeline))
        .routes(routes!(now::now))
        .routes(routes!(money::budgets))
        .routes(routes!(money::budget))
        .routes(routes!(money::history))
        .routes(routes!(money::calls))
        .routes(routes!(trust::trust))
        .split_for_parts()
}

pub(crate) fn router() -> Router<Shared> {
    let (router, description) = described();
    router.route("/openapi.json", get(async || Json(description))).fallback(async || Problem(Fault::NoSuchPage))
}

/// What agents did, the newest first.
#[utoipa::path(
    get, path = "/timeline", params(TimelineFilter),
    responses((status = 200, body = Vec<TimelineLine>), (status = 503, body = ProblemDetails))
)]
async fn timeline(
    State(site): State<Shared>,
    Query(filter): Query<TimelineFilter>,
) -> Result<Json<Vec<TimelineLine>>, Problem> {
    Ok(Json(site.reader.timeline(&filter).await?))
}
