//! Who asks over HTTP? Probes and Prometheus: `/livez`, `/readyz`, `/metrics`; whoever reads the log; and agents, for whom it is a webhook.

pub mod client;
mod listener;
pub mod log;
pub mod webhooks;
pub mod witness;

use crate::health::Health;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Served {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Takes the address; [`serve`] answers on it.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until told to stop, with the pages of the log where there is one, and with the webhooks where they are here.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    log: Option<log::Pages>,
    webhooks: Option<webhooks::Webhooks>,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Served { health, metrics })
        .merge(log.map_or_else(Router::new, |pages| pages.0))
        .merge(webhooks.map_or_else(Router::new, |webhooks| webhooks.router));
    axum::serve(listener::Limited::new(listener), router).with_graceful_shutdown(stop.cancelled_owned()).await
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
