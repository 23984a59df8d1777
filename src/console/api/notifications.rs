//! `/notifications`: the targets that are told of events, and what became of the last notifications.

use crate::console::fault::{Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::notifications::{Notifications, NotificationsFilter};
use axum::Json;
use axum::extract::{Query, State};

/// The targets that are told of events, and their last notifications, the newest first.
#[utoipa::path(
    get, path = "/notifications", params(NotificationsFilter),
    responses(
        (status = 200, body = Notifications),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn notifications(
    State(site): State<Shared>,
    Query(filter): Query<NotificationsFilter>,
) -> Result<Json<Notifications>, Problem> {
    Ok(Json(site.reader.notifications(&filter).await?))
}
