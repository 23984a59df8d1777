//! The search and the stories of tasks and proposals, for programs.

use crate::console::fault::{Fault, Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::search::SearchAnswer;
use crate::query::story::{Story, Subject};
use crate::query::timeline::required;
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchFields {
    /// Any id, as a whole.
    q: String,
}

/// Everything that an id may mean: a record, a reject, a task, a proposal, an agent, a trace, a leaf, a sequence.
#[utoipa::path(
    get, path = "/search", params(SearchFields),
    responses(
        (status = 200, body = SearchAnswer),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn search(
    State(site): State<Shared>,
    Query(fields): Query<SearchFields>,
) -> Result<Json<SearchAnswer>, Problem> {
    Ok(Json(site.reader.search(&fields.q).await??))
}

/// Everything that was recorded about a task, the oldest first, with its cost.
#[utoipa::path(
    get, path = "/tasks/{id}", params(("id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, body = Story),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn task(State(site): State<Shared>, Path(id): Path<String>) -> Result<Json<Story>, Problem> {
    story(&site, Subject::Task, &id).await
}

/// Everything that was recorded about a proposal and its tasks, the oldest first, with its cost.
#[utoipa::path(
    get, path = "/proposals/{id}", params(("id" = String, Path, description = "The proposal's id")),
    responses(
        (status = 200, body = Story),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn proposal(State(site): State<Shared>, Path(id): Path<String>) -> Result<Json<Story>, Problem> {
    story(&site, Subject::Proposal, &id).await
}

async fn story(site: &Shared, about: Subject, id: &str) -> Result<Json<Story>, Problem> {
    let id = required("id", id)?;
    let story = site.reader.story(about, &id).await?;
    story.map(Json).ok_or(Problem(Fault::NotRecorded))
}
