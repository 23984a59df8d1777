//! The timeline for programs: pages of it, and a stream of what is committed.

use crate::console::fault::{Problem, ProblemDetails};
use crate::console::live::LiveStart;
use crate::console::site::Shared;
use crate::query::timeline::{TimelineFilter, TimelineLine, TimelinePage};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::Event;

/// Records of every lane, and rejects among them, the newest first.
#[utoipa::path(
    get, path = "/timeline", params(TimelineFilter),
    responses(
        (status = 200, body = TimelinePage),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn timeline(
    State(site): State<Shared>,
    Query(filter): Query<TimelineFilter>,
) -> Result<Json<TimelinePage>, Problem> {
    Ok(Json(site.reader.timeline(&filter.question()?).await?))
}

/// Lines of the timeline as they are committed: server-sent events, each with one line as JSON. The event `missed` says that more
/// was committed at a time than is told.
#[utoipa::path(
    get, path = "/live", params(TimelineFilter, LiveStart),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn live(
    State(site): State<Shared>,
    headers: HeaderMap,
    Query(filter): Query<TimelineFilter>,
    Query(start): Query<LiveStart>,
) -> Result<impl IntoResponse + use<>, Problem> {
    Ok(site.live.stream(&site.reader, filter.question()?, start.leaf(&headers), told).await?)
}

fn told(line: &TimelineLine) -> Event {
    let leaf = line.leaf_index.to_string();
    Event::default().event("line").id(leaf).json_data(line).unwrap_or_default()
}
