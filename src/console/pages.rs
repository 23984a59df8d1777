//! The pages for people, one file for each screen.

mod docs;
pub(crate) mod login;
mod money;
mod notifications;
mod now;
mod published;
mod record;
mod reject;
mod rejects;
mod search;
mod story;
mod timeline;
mod trust;

use crate::console::site::Shared;
use axum::Router;
use axum::routing::{get, post};

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/logout", post(login::sign_out))
        .route("/timeline", get(timeline::show))
        .route("/timeline.csv", get(timeline::export))
        .route("/timeline/live", get(timeline::live))
        .route("/task/{id}", get(story::of_task))
        .route("/proposal/{id}", get(story::of_proposal))
        .route("/search", get(search::show))
        .route("/record/{leaf_index}", get(record::show))
        .route("/event/{event_id}", get(record::by_event))
        .route("/rejects", get(rejects::list))
        .route("/rejects/{leaf_index}", get(reject::show))
        .route("/rejects/{leaf_index}/preview", post(reject::preview))
        .route("/rejects/{leaf_index}/decide", post(reject::decide))
        .route("/notifications", get(notifications::show))
        .route("/", get(now::show))
        .route("/money", get(money::all))
        .route("/money/{agent}", get(money::of_agent))
        .route("/trust", get(trust::show))
        .route("/docs/{page}", get(docs::show))
}
