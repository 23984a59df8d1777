//! The API's answer to what can be trusted.

use crate::console::fault::{Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::trust::{Trust, TrustQuestion};
use axum::Json;
use axum::extract::{Query, State};

/// Checkpoints, witnesses, runs, gaps and removals; and whether the log contains a checkpoint that somebody kept.
#[utoipa::path(
    get, path = "/trust", params(TrustQuestion),
    responses((status = 200, body = Trust), (status = 503, body = ProblemDetails))
)]
pub(crate) async fn trust(
    State(site): State<Shared>,
    Query(question): Query<TrustQuestion>,
) -> Result<Json<Trust>, Problem> {
    Ok(Json(site.reader.trust(&site.config, &question).await?))
}
