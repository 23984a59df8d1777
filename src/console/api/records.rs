//! One entry of the record, and its proof.

use crate::console::fault::{Fault, Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::log::proving::ProveError;
use crate::query::record::LedgerEntry;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use std::time::Duration;

/// The daemon signs each second: this is long enough for what was just committed.
const PATIENCE: Duration = Duration::from_secs(2);

/// One entry: what happened, as it was published, as it is stored.
#[utoipa::path(
    get, path = "/records/{leaf_index}", params(("leaf_index" = u64, Path, description = "The entry's leaf index")),
    responses(
        (status = 200, body = LedgerEntry), (status = 404, body = ProblemDetails), (status = 503, body = ProblemDetails)
    )
)]
pub(crate) async fn record(
    State(site): State<Shared>,
    Path(leaf_index): Path<u64>,
) -> Result<Json<LedgerEntry>, Problem> {
    let record = site.reader.record(&site.log, leaf_index).await?;
    Ok(Json(record.ok_or(Fault::NoSuchEntry(leaf_index))?))
}

/// The proof of an entry, a file of c2sp.org/tlog-proof@v1, as `ledgerd prove` writes it.
#[utoipa::path(
    get, path = "/records/{leaf_index}/proof", params(("leaf_index" = u64, Path, description = "The entry's leaf index")),
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 503, body = ProblemDetails)
    )
)]
pub(crate) async fn proof(
    State(site): State<Shared>,
    Path(leaf_index): Path<u64>,
) -> Result<impl IntoResponse, Problem> {
    let proof = site.log.prove(leaf_index, false, PATIENCE).await.map_err(|error| match error {
        ProveError::Database(error) => Fault::Database(error),
        ProveError::NoEntry { index } => Fault::NoSuchEntry(index),
        error => Fault::Refused(error.to_string()),
    })?;
    let disposition = format!("attachment; filename=\"entry-{leaf_index}.tlog-proof\"");
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, proof.file.to_string()))
}
