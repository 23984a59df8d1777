//! The daemon's HTTP server: `/livez`, `/readyz` and `/metrics`, the pages of the log, and the webhooks.

pub mod api_token;
pub mod client;
pub mod console_token;
pub mod hashed_tokens;

use crate::health::Health;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bounded_listener::Limits;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Served {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Answers until told to stop. `rooms` holds what the rooms serve here: the pages of the log, and the webhooks.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    rooms: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Served { health, metrics })
        .merge(rooms);
    bounded_listener::serve(listener, router, limits, stop).await
}

/// Fails only if a restart would help.
async fn livez(State(served): State<Served>) -> impl IntoResponse {
    match served.health.needs_restart() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Says which dependency is missing, and which lane stands still.
async fn readyz(State(served): State<Served>) -> impl IntoResponse {
    let code = if served.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, served.health.report())
}

async fn scrape(State(served): State<Served>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], served.metrics.render(&served.health))
}
