//! The API's answer to whether all is well.

use crate::console::fault::{Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::now::Now;
use axum::Json;
use axum::extract::State;

/// Whether all is well, and what somebody must do where it is not.
#[utoipa::path(get, path = "/now", responses((status = 200, body = Now), (status = 503, body = ProblemDetails)))]
pub(crate) async fn now(State(site): State<Shared>) -> Result<Json<Now>, Problem> {
    Ok(Json(site.reader.now(&site.config, &site.stream).await?))
}
