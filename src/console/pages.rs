//! The pages for people, one file for each screen.

mod docs;
mod money;
mod now;
mod timeline;
mod trust;

use crate::console::site::Shared;
use axum::Router;
use axum::routing::get;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(now::show))
        .route("/timeline", get(timeline::show))
        .route("/money", get(money::all))
        .route("/money/{agent}", get(money::of_agent))
        .route("/trust", get(trust::show))
        .route("/docs/{page}", get(docs::show))
}
