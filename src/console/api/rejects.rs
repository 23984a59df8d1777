//! The rejects, by reason and one by one.

use crate::console::fault::{Fault, Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::rejects::{Reject, RejectFilter, RejectsPage};
use axum::Json;
use axum::extract::{Path, Query, State};

/// The newest rejects by reason and agent, and those that match one by one.
#[utoipa::path(
    get, path = "/rejects", params(RejectFilter),
    responses((status = 200, body = RejectsPage), (status = 503, body = ProblemDetails))
)]
pub(crate) async fn list(
    State(site): State<Shared>,
    Query(filter): Query<RejectFilter>,
) -> Result<Json<RejectsPage>, Problem> {
    Ok(Json(site.reader.rejects(&filter).await?))
}

/// One reject: its bytes, the place of its fault, and what was decided about it.
#[utoipa::path(
    get, path = "/rejects/{leaf_index}", params(("leaf_index" = i64, Path, description = "The entry's leaf index")),
    responses(
        (status = 200, body = Reject), (status = 404, body = ProblemDetails), (status = 503, body = ProblemDetails)
    )
)]
pub(crate) async fn one(State(site): State<Shared>, Path(leaf_index): Path<i64>) -> Result<Json<Reject>, Problem> {
    Ok(Json(site.reader.reject(leaf_index).await?.ok_or(Fault::NoSuchReject(leaf_index))?))
}
