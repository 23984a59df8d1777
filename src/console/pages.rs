//! The pages for people, one file for each screen.

mod notifications;
mod timeline;

use crate::console::site::Shared;
use axum::Router;
use axum::routing::get;

pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/timeline", get(timeline::show)).route("/notifications", get(notifications::show))
}
