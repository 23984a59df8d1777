//! The HTTP interface of a witness, open to anybody: `POST /add-checkpoint` of c2sp.org/tlog-witness, and for monitors
//! `GET /<SHA-256 of the origin>/checkpoint`.

use crate::judge::{Answer, Witness};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bounded_listener::Limits;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Requests that are judged at a time.
const REQUESTS_MAX: usize = 32;
/// A proof has at most 63 lines, and a checkpoint the signatures of a log and of its witnesses: a tenth of this is usual. Every
/// connection may hold so much.
const BODY_BYTES_MAX: usize = 128 * 1024;
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

struct WitnessState {
    witness: Witness,
    requests: Arc<Semaphore>,
    clock: fn() -> Duration,
}

/// Answers until told to stop. `clock` gives the time since 1970.
pub(crate) async fn serve(
    listener: TcpListener,
    witness: Witness,
    clock: fn() -> Duration,
    stop: CancellationToken,
) -> io::Result<()> {
    let state = Arc::new(WitnessState { witness, requests: Arc::new(Semaphore::new(REQUESTS_MAX)), clock });
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(newest))
        .with_state(state);
    bounded_listener::serve(listener, router, Limits::default(), stop).await
}

async fn add_checkpoint(State(state): State<Arc<WitnessState>>, body: Body) -> Response {
    let body = match timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let why = format!("expected a whole body of at most {BODY_BYTES_MAX} bytes\n");
            return (StatusCode::PAYLOAD_TOO_LARGE, why).into_response();
        }
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n").into_response(),
    };
    // Taken with the body in hand: whoever sends slowly keeps nobody else waiting.
    let Ok(permit) = Arc::clone(&state.requests).try_acquire_owned() else { return busy() };
    // It waits for its turn and for the disk. It goes on to its end even if the one who asked is gone by then.
    let judged = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        state.witness.add_checkpoint(&body, (state.clock)())
    });
    answered(judged.await)
}

/// What a monitor compares with the log's own newest checkpoint.
async fn newest(State(state): State<Arc<WitnessState>>, Path(origin): Path<String>) -> Response {
    let Ok(permit) = Arc::clone(&state.requests).try_acquire_owned() else { return busy() };
    let read = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        state.witness.newest(&origin, (state.clock)())
    });
    answered(read.await)
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "too many requests: try again\n").into_response()
}

fn answered(judged: Result<Answer, JoinError>) -> Response {
    match judged {
        Ok(Answer { status, content_type, body }) => {
            let status = StatusCode::from_u16(status).expect("one of the specification's");
            (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(error) => {
            tracing::error!("judging broke: {error}: this is a bug");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
